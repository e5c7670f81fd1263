"""Settings from YAML, with environment variables and dotted overrides; a repeated key is an error.

    ${NAME}             the variable, or an error if it is not set
    ${NAME:-default}    the variable, or the default

A value that consists of one variable takes the type that YAML would give it: ``epochs: ${EPOCHS:-3}`` is a
number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from seqrec import storage
from seqrec.errors import SettingsError, did_you_mean

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(frozen=True)
class Repeat:
    """A key that occurs more than once in one mapping of a file. The last value counts.

    Attributes:
        key: as the file spells it.
        line: of its second occurrence, from 1.
        values: all of them, in order.
    """

    key: str
    line: int
    values: tuple[Any, ...]


class _Loader(yaml.SafeLoader):
    """The safe loader silently takes the last of repeated keys; this one also lists them."""

    def __init__(self, text: str):
        super().__init__(text)
        self.repeats: list[Repeat] = []


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    places = [(key, value) for key, value in node.value if key.tag != "tag:yaml.org,2002:merge"]
    mapping = yaml.SafeLoader.construct_mapping(loader, node, deep=deep)
    by_name: dict[Any, list[tuple[yaml.Node, yaml.Node]]] = {}
    for key, value in places:
        by_name.setdefault(loader.construct_object(key, deep=True), []).append((key, value))
    for name, same in by_name.items():
        if len(same) > 1:
            values = tuple(loader.construct_object(value, deep=True) for _, value in same)
            loader.repeats.append(Repeat(name, same[1][0].start_mark.line + 1, values))
    return mapping


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse(path: str | Path) -> tuple[dict[str, Any], list[Repeat]]:
    """The content of a YAML file, variables not filled in, and the keys that are repeated in it.

    Raises:
        DataError: no such file.
        SettingsError: not valid YAML, or not a mapping.
    """
    with storage.open_read(path) as stream:
        text = stream.read().decode("utf-8-sig")
    try:
        loader = _Loader(text)
        content = loader.get_single_data()
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not valid YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: expected sections with settings. Got {type(content).__name__}.")
    return content, loader.repeats


def read(
    path: str | Path, overrides: Iterable[str] = (), environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The content of a YAML file with variables filled in and overrides applied.

    Args:
        overrides: ``section.key=value`` each, the value in YAML.
        environment: where variables come from; by default the process's.

    Raises:
        DataError: no such file.
        SettingsError: not valid YAML, not a mapping, a repeated key, a variable that is not set, or an
            invalid override.
    """
    content, repeats = parse(path)
    if repeats:
        raise SettingsError(
            f"{path}, line {repeats[0].line}: the key {repeats[0].key!r} occurs twice. Keep one of them."
        )
    filled: dict[str, Any] = fill(content, os.environ if environment is None else environment, str(path))
    for override in overrides:
        apply_override(filled, override)
    return filled


def fill(value: Any, environment: Mapping[str, str], where: str) -> Any:
    """The value with every variable in its texts replaced.

    Raises:
        SettingsError: a variable that is not set and has no default; names the most similar one that is set.
    """
    if isinstance(value, dict):
        return {key: fill(inner, environment, f"{where}: {key}") for key, inner in value.items()}
    if isinstance(value, list):
        return [fill(inner, environment, where) for inner in value]
    if not isinstance(value, str) or "${" not in value:
        return value

    def lookup(match: re.Match[str]) -> str:
        name, default = match.groups()
        if name in environment:
            return environment[name]
        if default is None:
            near = did_you_mean(name, environment)
            hint = near if near.startswith(" Did") else ""
            raise SettingsError(
                f"{where}: the variable {name} is not set in the environment.{hint} Set it, or write "
                f"${{{name}:-default}}."
            )
        return default

    filled = VARIABLE.sub(lookup, value)
    return yaml.safe_load(filled) if VARIABLE.fullmatch(value) else filled


def apply_override(content: dict[str, Any], override: str) -> None:
    """Sets ``section.key`` to a value: ``"train.epochs=3"``.

    Raises:
        SettingsError: no "=", or a section in the path that is a single value.
    """
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise SettingsError(f"override {override!r}: expected section.key=value, as in train.epochs=3.")
    place = content
    for key in keys[:-1]:
        inner = place.setdefault(key, {})
        if not isinstance(inner, dict):
            raise SettingsError(
                f"override {override!r}: {key!r} is the single value {inner!r}, with no keys below it."
            )
        place = inner
    try:
        place[keys[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"override {override!r}: {text!r} is not a YAML value.") from error
