"""Run files of other projects become this project's: every key is accounted for, and nothing in such a file
is ever imported or run.

    origin.py     MetaSpore's sequential demo (HRM and GRU4Rec), which this project began from
    recbole.py    RecBole

The run file that comes out describes the nearest run that this project has; the table says what became of
each key, its notes what differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from seqrec.errors import SettingsError
from seqrec.experiment.settings import RunSettings
from seqrec.migrate import origin, recbole
from seqrec.migrate.draft import Draft, Migration
from seqrec.settings import yaml_file

__all__ = ["Migration", "migrate", "read", "recognise"]


PROJECTS: dict[str, Any] = {"MetaSpore": origin, "RecBole": recbole}
"""Name -> module with ``KNOWN``, the keys of its run files, and ``convert``, which fills a draft."""


def recognise(content: Mapping[str, Any]) -> str | None:
    """Whose run file this is: a name of ``PROJECTS``, or None for one of this project and for what is
    nobody's that is known."""
    if any(isinstance(content.get(section), dict) for section in RunSettings.model_fields):
        return None
    hits = {name: len(project.KNOWN.keys() & content.keys()) for name, project in PROJECTS.items()}
    name = max(hits, key=lambda name: hits[name])
    return name if hits[name] >= 2 else None


def read(
    path: str | Path, additions: Iterable[str] = (), environment: Mapping[str, str] | None = None
) -> Migration:
    """This project's run file for another project's file.

    Args:
        additions: ``key=value`` each, keys of the file's own kind that replace what it says or leaves unsaid
            (RecBole takes ``model`` and ``dataset`` on its command line).
        environment: where variables come from; by default the process's.

    Raises:
        DataError: no such file.
        SettingsError: not valid YAML, or as ``migrate``.
    """
    content, repeats = yaml_file.parse(path)
    for addition in additions:
        yaml_file.apply_override(content, addition)
    return migrate(content, str(path), repeats, environment)


def migrate(
    content: Mapping[str, Any],
    source: str = "",
    repeats: Iterable[yaml_file.Repeat] = (),
    environment: Mapping[str, str] | None = None,
) -> Migration:
    """This project's run file for the content of another project's.

    Variables (``${NAME}``, ``${NAME:-default}``, and ``$NAME`` as envsubst knows it) stay variables in paths,
    and are filled in elsewhere.

    Args:
        source: the file's name, for messages.
        repeats: keys that stand in it more than once.
        environment: where variables come from; by default the process's.

    Raises:
        SettingsError: it is of no kind that is known, or names a class or a model that is not, or a value is
            out of range.
    """
    kind = recognise(content)
    if kind is None:
        raise SettingsError(
            f"{source or 'content'}: expected a run file of MetaSpore's sequential demo or of RecBole. "
            f"Got {_what(content)}."
        )
    project = PROJECTS[kind]
    draft = Draft(kind, source, content, project.KNOWN, repeats, environment)
    project.convert(draft)
    migration = draft.finished()
    try:
        RunSettings.of(migration.run, "").check()
    except SettingsError as error:
        raise SettingsError(
            f"{source or 'content'}: what it says has no counterpart here: {error}"
        ) from error
    return migration


def _what(content: Mapping[str, Any]) -> str:
    if any(isinstance(content.get(section), dict) for section in RunSettings.model_fields):
        return "one of this project, which needs no migration"
    if any(
        key in content for key in ("fg_dataset_path", "fg_dataset_out_path", "match_train_dataset_out_path")
    ):
        return "one that makes features or samples; `seqrec prepare` does that"
    return f"the keys {', '.join(map(str, list(content)[:6]))}"
