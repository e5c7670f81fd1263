"""A run file in the making: keys of a foreign file are converted one by one, and each result is recorded."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from seqrec.errors import SettingsError, did_you_mean
from seqrec.experiment.settings import RunSettings
from seqrec.settings import yaml_file
from seqrec.tables import Table

BARE_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True)
class Migration:
    """The result of a migration.

    Attributes:
        title: what was migrated.
        run: the content of this project's run file; its paths may contain variables.
        rows: a dictionary for each key of the foreign file: key, value, and what it became.
        warnings: notes on the table: what was misspelt, what is unknown, what differs.
    """

    title: str
    run: dict[str, Any]
    rows: list[dict[str, Any]]
    warnings: list[str]

    def table(self) -> Table:
        """What each key became, with the warnings as notes."""
        return Table(
            self.title, ["key", "value", "became"], self.rows, notes=self.warnings, formats={"value": str}
        )

    def yaml(self) -> str:
        """The run file, with the warnings on top."""
        comment = "\n".join(f"# {line}" for line in [self.title, *self.warnings])
        run = yaml.safe_dump(
            self.run, sort_keys=False, default_flow_style=None, width=140, allow_unicode=True
        )
        return f"{comment}\n{run}"

    def filled(
        self, overrides: Iterable[str] = (), environment: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The run with its variables filled in and overrides applied, as ``yaml_file.read`` would give it.

        Raises:
            SettingsError: a variable that is not set and has no default, or an invalid override.
        """
        filled: dict[str, Any] = yaml_file.fill(
            self.run, os.environ if environment is None else environment, self.title
        )
        for override in overrides:
            yaml_file.apply_override(filled, override)
        return filled


class Draft:
    """A migration in progress.

    Args:
        kind: the project that the file belongs to.
        source: the file's name, for messages.
        content: of the file.
        known: every key that such a file may have -> its canonical name (of a misspelling, say).
        repeats: keys that occur more than once.
        environment: where variables come from; by default the process's.
    """

    def __init__(
        self,
        kind: str,
        source: str,
        content: Mapping[str, Any],
        known: Mapping[str, str],
        repeats: Iterable[yaml_file.Repeat] = (),
        environment: Mapping[str, str] | None = None,
    ):
        self.kind, self.source, self.known = kind, source, known
        self.environment = os.environ if environment is None else environment
        self.run: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.became: dict[str, str] = {}
        self.given = dict(content)
        self.content: dict[str, Any] = {}
        self.spelt: dict[str, str] = {}  # the name of a key here -> as the file spells it
        for repeat in repeats:
            self._repeat(repeat)
        for key, value in content.items():
            name = known.get(key, key)
            if name != key:
                self.warn(f"{key}: taken as {name}.")
            if name in self.spelt and value != self.given[self.spelt[name]]:
                self.warn(f"{self.spelt[name]} and {key} mean the same but differ; the latter counts.")
            if name in self.spelt:
                self.became[self.spelt[name]] = f"as {key}"
            self.content[name], self.spelt[name] = _braced(value), key

    def _repeat(self, repeat: yaml_file.Repeat) -> None:
        if all(value == repeat.values[0] for value in repeat.values):
            self.warn(f"{repeat.key} occurs {len(repeat.values)} times with the same value; keep one.")
        else:
            given = ", ".join(repr(value) for value in repeat.values)
            self.warn(
                f"{repeat.key} occurs {len(repeat.values)} times with different values ({given}); the "
                "last counts, as usual in YAML."
            )

    def warn(self, text: str) -> None:
        """Adds a note to the table."""
        self.warnings.append(text)

    def __contains__(self, key: str) -> bool:
        return self.content.get(key) is not None

    def text(self, key: str) -> str | None:
        """The value of a path or a name, with its variables; None where there is none."""
        value = self.content.get(key)
        return None if value is None else str(value)

    def value(self, key: str, default: Any = None) -> Any:
        """The value with its variables filled in, or the default.

        Raises:
            SettingsError: a variable that is not set.
        """
        value = self.content.get(key)
        return (
            default
            if value is None
            else yaml_file.fill(value, self.environment, f"{self.source}: {self.spelt[key]}".lstrip(": "))
        )

    def put(self, place: str, value: Any) -> None:
        """Sets ``section.key`` of the run."""
        *sections, key = place.split(".")
        inner = self.run
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[key] = value

    def move(
        self, key: str, place: str, convert: Callable[[Any], Any] | None = None, default: Any = None
    ) -> None:
        """Sets ``section.key`` of the run to the converted value of a key, or to the default unless None.

        Raises:
            SettingsError: the value cannot be converted.
        """
        value = self.value(key)
        if value is None:
            if default is not None:
                self.put(place, default)
            self.say(key, "nothing: it has no value" if default is None else f"{place} = {_shown(default)}")
            return
        if convert is not None:
            try:
                value = convert(value)
            except (TypeError, ValueError, KeyError) as error:
                if isinstance(error, SettingsError):
                    raise
                raise SettingsError(
                    f"{self.spelt[key]}: expected a value that {place} can have. Got {value!r}."
                ) from error
        self.put(place, value)
        self.say(key, f"{place} = {_shown(value)}")

    def say(self, key: str, text: str) -> None:
        """Records what a key became, if the file has it."""
        if key in self.spelt:
            self.became[self.spelt[key]] = text

    def drop(self, why: str, *keys: str) -> None:
        """Records that keys have no effect, and why."""
        for key in keys:
            self.say(key, f"dropped: {why}")

    def finished(self) -> Migration:
        """The migration, with a warning for each unknown key."""
        rows = []
        for key, value in self.given.items():
            if key not in self.became:
                self.became[key] = "unknown"
                hint = did_you_mean(key, [name for name in self.known.values() if name not in self.spelt])
                self.warn(f"{key}: unknown, and ignored.{hint if hint.startswith(' Did') else ''}")
            rows.append({"key": key, "value": _shown(value), "became": self.became[key]})
        run = {
            section: self.run[section]
            for section in RunSettings.model_fields | self.run
            if section in self.run
        }
        title = f"{self.source or 'run file'}: {self.kind}'s, as a run of seqrec"
        return Migration(title, run, rows, self.warnings)


def _shown(value: Any) -> str:
    """A value as YAML, in one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).strip().removesuffix("\n...").strip()


def _braced(value: Any) -> Any:
    """A value with ``${NAME}`` for every ``$NAME``, as envsubst accepts both."""
    if isinstance(value, str):
        return BARE_VARIABLE.sub(r"${\1}", value)
    if isinstance(value, list):
        return [_braced(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _braced(inner) for key, inner in value.items()}
    return value
