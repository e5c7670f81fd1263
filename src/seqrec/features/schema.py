"""A feature schema: the columns a model reads of the user, of each item of the history and of scored items.

    user: [gender, age, gender#age]    columns of the user attributes; user_id: each user has a vector
    sequence: [item_id]                columns of the item attributes, read of each item of the history
    item: [item_id, genres]            columns of the item attributes, summed to the vector of an item

``a#b`` crosses two or more columns: each combination of values is a value. ``from_origin`` reads the four
text files in which MetaSpore's demo, the origin of this project, has the same.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from seqrec import storage
from seqrec.errors import SettingsError, did_you_mean
from seqrec.settings import yaml_file
from seqrec.settings.base import Settings

USER_ID, ITEM_ID = "user_id", "item_id"
CROSS = "#"

ORIGIN_NAMES = {
    "movie_id": ITEM_ID,
    "recent_movie_ids": ITEM_ID,
    "last_movie": ITEM_ID,
    "recent_movie_genres": "genre",
    "last_genre": "genre",
}
"""Columns of the origin that go by another name here; all others keep theirs."""
ORIGIN_HISTORY = ("recent_movie_ids", "recent_movie_genres", "last_movie", "last_genre")
"""Columns of the origin that tell of the history, whichever of its files names them."""


class FeatureSchema(Settings):
    """Which features a model reads of users, of items of a history and of items that it scores."""

    user: list[str] = Field(default_factory=list)
    """What is known of the user: columns of the user attributes, and ``user_id``."""
    sequence: list[str] = Field(default_factory=lambda: [ITEM_ID], min_length=1)
    """What is known of each item of the history: columns of the item attributes, and ``item_id``."""
    item: list[str] = Field(default_factory=lambda: [ITEM_ID], min_length=1)
    """What is known of the item that is scored: columns of the item attributes, and ``item_id``."""
    drop_ids: float = Field(0.0, ge=0, lt=1)
    """Share of the looked up rows of which training leaves the own vector out, so that attributes learn to
    tell what they can without it: for items without events (DropoutNet: Volkovs et al., NIPS 2017)."""

    @field_validator("user", "sequence", "item")
    @classmethod
    def _sound(cls, names: list[str], info: ValidationInfo) -> list[str]:
        id_here, id_there = (USER_ID, ITEM_ID) if info.field_name == "user" else (ITEM_ID, USER_ID)
        names = [CROSS.join(part.strip() for part in name.split(CROSS)) for name in names]
        seen: set[tuple[str, ...]] = set()
        for name in names:
            parts = name.split(CROSS)
            if not all(parts):
                raise ValueError(f"columns, or columns crossed as in gender{CROSS}age ({name!r} is neither)")
            if id_there in parts:
                raise ValueError(
                    f"columns of the {'users' if info.field_name == 'user' else 'items'} ({id_there} is none)"
                )
            if len(parts) > 1 and id_here in parts:
                raise ValueError(f"{id_here} uncrossed ({name!r} would tell no more than {id_here} does)")
            if len(set(parts)) < len(parts):
                raise ValueError(f"different columns in a cross ({name!r} repeats one)")
            if tuple(sorted(parts)) in seen:
                raise ValueError(f"each feature once ({name!r} occurs twice)")
            seen.add(tuple(sorted(parts)))
        return names

    @classmethod
    def read(cls, path: str | Path) -> FeatureSchema:
        """From a YAML file, on any storage.

        Raises:
            DataError: no such file.
            SettingsError: an unknown key, or an invalid feature.
        """
        return cls.of(yaml_file.read(path), str(path))

    @classmethod
    def from_origin(
        cls,
        column_schema: str | Path,
        user_combine_schema: str | Path,
        seq_combine_schema: str | Path,
        item_combine_schema: str | Path,
    ) -> FeatureSchema:
        """From the four text files of the origin (MetaSpore, ``demo/sequential/schema``), on any storage.

        ``column_schema`` has a line ``index name`` for each column of the samples; the others have a line for
        each feature, columns crossed with ``#``; a line that begins with ``#`` is a comment. Columns of the
        history (``recent_movie_ids``, ``last_genre`` ...) are features of the sequence whichever file names
        them, and become the column of the item attributes that they were made from.

        Raises:
            DataError: no such file.
            SettingsError: a line that cannot be read, or a column that ``column_schema`` does not have; names
                file and line.
        """
        columns = [_column(line, where) for where, line in _lines(column_schema)]
        sides: dict[str, list[str]] = {"user": [], "sequence": [], "item": []}
        paths = {"user": user_combine_schema, "sequence": seq_combine_schema, "item": item_combine_schema}
        for own, path in paths.items():
            for where, line in _lines(path):
                parts = [part.strip() for part in line.split(CROSS)]
                for part in parts:
                    if part not in columns:
                        raise SettingsError(
                            f"{where}: {part!r} is no column of {column_schema}.{did_you_mean(part, columns)}"
                        )
                    if part == "label":
                        raise SettingsError(f"{where}: the label is the target, not a feature. Remove it.")
                of_history = [part in ORIGIN_HISTORY for part in parts]
                if any(of_history) and not all(of_history):
                    raise SettingsError(
                        f"{where}: {line!r} crosses a column of the history with another. Cross columns "
                        "of one side only."
                    )
                side = sides["sequence" if all(of_history) else own]
                name = CROSS.join(ORIGIN_NAMES.get(part, part) for part in parts)
                if name not in side:
                    side.append(name)
        for own, names in sides.items():
            cls.of({own: names} if names else {}, str(paths[own]))  # a mistake names the file
        return cls.of({own: names for own, names in sides.items() if names}, "")


def _lines(path: str | Path) -> list[tuple[str, str]]:
    """Lines that are not empty or comments, each with its place."""
    with storage.open_read(path) as stream:
        text = stream.read().decode("utf-8-sig")
    stripped = [line.strip() for line in text.splitlines()]
    return [
        (f"{path}, line {number}", line)
        for number, line in enumerate(stripped, 1)
        if line and not line.startswith(CROSS)
    ]


def _column(line: str, where: str) -> str:
    words = line.split()
    if len(words) > 2 or (len(words) == 2 and not words[0].isdigit()):
        raise SettingsError(
            f"{where}: expected the index and the name of a column, as in '1 user_id'. Got {line!r}."
        )
    return words[-1]
