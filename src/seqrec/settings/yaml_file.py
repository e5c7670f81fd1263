"""Settings from YAML, with environment variables and dotted overrides; a repeated key is an error.

    ${NAME}             the variable, or an error if it is not set
    ${NAME:-default}    the variable, or the default

A value that consists of one variable takes the type that YAML would give it: ``epochs: ${EPOCHS:-3}`` is a
number.

A file of settings is small, so what is read is bounded: its size, how deep it is nested, and how much its
aliases (``*name``) come to when they are written out.
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
from seqrec.errors import SettingsError, did_you_mean, shown

LARGEST = 1 << 17
"""Bytes of a file, and characters of a value."""
DEEPEST = 50
"""Lists and sections within each other."""
MOST = 20_000
"""Values and keys, an alias counted as all that it stands for."""

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
    """The safe loader, bounded, with keys that are text and an error of YAML for each value that is none.

    The safe loader takes the last of repeated keys without a word; this one also lists them.
    """

    def __init__(self, text: str):
        super().__init__(text)
        self.repeats: list[Repeat] = []
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.composer.ComposerError(
                None,
                None,
                f"nested more than {DEEPEST} deep",
                self.peek_event().start_mark,  # type: ignore[no-untyped-call]
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep=deep)
            if isinstance(value, str) and "\0" in value:
                raise ValueError("no path and no name has one")
            return value
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            kind = node.tag.rsplit(":", 1)[-1]
            raise yaml.constructor.ConstructorError(
                None, None, f"expected a value of the type {kind}", node.start_mark
            ) from error

    def content(self) -> Any:
        """The one document's value."""
        node = self.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return self.construct_document(node)


def _count(node: yaml.Node, counted: dict[int, int | None]) -> int:
    """How many nodes it is with all aliases written out.

    Args:
        counted: of each node so far, by its id; None of one that is being counted.
    """
    if id(node) in counted:
        known = counted[id(node)]
        if known is None:
            raise yaml.composer.ComposerError(None, None, "contains itself by an alias", node.start_mark)
        return known
    counted[id(node)] = None
    parts = node.value if isinstance(node, yaml.CollectionNode) else ()
    inner = (part for pair in parts for part in pair) if isinstance(node, yaml.MappingNode) else parts
    total = 1 + sum(_count(part, counted) for part in inner)
    if total > MOST:
        raise yaml.composer.ComposerError(
            None, None, f"more than {MOST:,} values, aliases written out", node.start_mark
        )
    counted[id(node)] = total
    return total


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    places = [(key, value) for key, value in node.value if key.tag != "tag:yaml.org,2002:merge"]
    for key, _ in places:
        if key.tag != "tag:yaml.org,2002:str":
            raise yaml.constructor.ConstructorError(
                None, None, "expected a name before the colon (in quotes if it is a number)", key.start_mark
            )
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


def _loaded(text: str, where: str, what: str = "not valid YAML") -> tuple[Any, list[Repeat]]:
    if len(text) > LARGEST:
        raise SettingsError(
            f"{where}: expected settings of at most {LARGEST:,} characters. Got {len(text):,}."
        )
    try:
        loader = _Loader(text)
        return loader.content(), loader.repeats
    except yaml.YAMLError as error:
        raise SettingsError(f"{where}: {what} ({_why(error)}).") from error


def _why(error: yaml.YAMLError) -> str:
    """Place and problem, without the lines of the file that PyYAML adds."""
    problem = getattr(error, "problem", None) or str(error).split("\n")[0]
    mark = getattr(error, "problem_mark", None)
    place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
    return place + shown(" ".join(str(problem).split()), str)


def parse(path: str | Path) -> tuple[dict[str, Any], list[Repeat]]:
    """The content of a YAML file, variables not filled in, and the keys that are repeated in it.

    Raises:
        DataError: no such file.
        SettingsError: not valid YAML, not a mapping, or larger than settings are.
    """
    with storage.open_read(path) as stream:
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise SettingsError(
            f"{path}: expected a file of settings, at most {LARGEST:,} bytes. Got a larger one."
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            f"{path}, line {line}: expected text in UTF-8. Got the byte {content[error.start]:#04x}. "
            "Save the file as UTF-8."
        ) from error
    found, repeats = _loaded(text, str(path))
    if not isinstance(found, dict):
        raise SettingsError(f"{path}: expected sections with settings. Got {type(found).__name__}.")
    return found, repeats


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
        if "${" in default:
            raise SettingsError(
                f"{where}: the variable {name} is not set in the environment, and its default {default!r} is "
                f"another variable, which is not filled in. Set {name}, or give a plain default."
            )
        return default

    filled = VARIABLE.sub(lookup, value)
    if (only := VARIABLE.fullmatch(value)) is None:
        return filled
    return _loaded(filled, where, f"the variable {only[1]} is not a YAML value: {shown(filled)}")[0]


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
                f"override {override!r}: {key!r} is the single value {shown(inner)}, with no keys below it."
            )
        place = inner
    place[keys[-1]] = _loaded(text, f"override {shown(override)}", f"{shown(text)} is not a YAML value")[0]
