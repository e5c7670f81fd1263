"""Converts run files of other projects; every key is accounted for, and nothing in them is imported or run.

    origin.py     MetaSpore's sequential demo (HRM and GRU4Rec), the origin of this project
    recbole.py    RecBole

The converted file describes the closest run that this project has. The table shows what each key became; its
notes say what differs.
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
    """The project that a run file belongs to: a name of ``PROJECTS``; None for this or an unknown project."""
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
        additions: ``key=value`` each: keys of the other project that replace or complete those of the file
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

    Variables (``${NAME}``, ``${NAME:-default}``, and ``$NAME`` as in envsubst) stay variables in paths, and
    are filled in elsewhere.

    Args:
        source: the file's name, for messages.
        repeats: keys that occur in it more than once.
        environment: where variables come from; by default the process's.

    Raises:
        SettingsError: an unknown kind of file, class or model, or a value out of range.
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
        raise SettingsError(f"{source or 'content'}: cannot be converted: {error}") from error
    return migration


def _what(content: Mapping[str, Any]) -> str:
    if any(isinstance(content.get(section), dict) for section in RunSettings.model_fields):
        return "one of this project, which needs no migration"
    if any(
        key in content for key in ("fg_dataset_path", "fg_dataset_out_path", "match_train_dataset_out_path")
    ):
        return "one that makes features or samples; `seqrec prepare` does that"
    return f"the keys {', '.join(map(str, list(content)[:6]))}"
