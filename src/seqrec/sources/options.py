"""What a reader of logs may be told: one class for Python, the command line and a run's YAML."""

from __future__ import annotations

import codecs
from typing import Any

from pydantic import Field, field_validator

from seqrec.data.frames import Duplicates
from seqrec.errors import shown
from seqrec.settings.base import Settings


class ReadOptions(Settings):
    """How the files of a log are read. What is not said is told from the files."""

    format: str = "auto"
    """``csv``, ``tsv``, ``parquet``, ``jsonl``, a name of ``seqrec.sources.FORMATS`` (``ml-1m``, ``sasrec``,
    ``recbole`` ...), or ``auto``: told from the file's name, header and first lines."""
    columns: dict[str, str | int | None] = Field(default_factory=dict)
    """Which column of the file is which: ``{user_id: customer, item_id: sku, timestamp: bought_at}``. What is
    not said is found by the usual names; numbers from 0 where the file has no header, null leaves a column
    out. Of tables of samples also label and recent."""
    delimiter: str | None = None
    """What separates the columns of a text file; None tells it from the header: comma, tab, ``;`` or
    ``|``."""
    encoding: str | None = None
    """Encoding of a text file. By default UTF-8."""
    items: Any = None
    """Attributes of items (titles, genres ...) beside the log: a frame, or the path of a table, with a column
    of item ids."""
    users: Any = None
    """Attributes of users beside the log: a frame, or the path of a table, with a column of user ids."""
    duplicates: Duplicates = "keep"
    """What becomes of events that stand twice (same user, item and time or position): ``keep``, or ``drop``
    all but the first. How many there were is logged."""

    @field_validator("delimiter")
    @classmethod
    def _separates(cls, delimiter: str | None) -> str | None:
        if delimiter is not None and (
            not delimiter.isascii() or not delimiter or not set(delimiter).isdisjoint('"\r\n\0')
        ):
            raise ValueError("one or more ASCII characters, none of them a quote or the end of a line")
        return delimiter

    @field_validator("encoding")
    @classmethod
    def _of_text(cls, encoding: str | None) -> str | None:
        try:
            # these two encode names of hosts, and are no encoding of a file
            known = encoding is None or codecs.lookup(encoding).name not in ("idna", "punycode")
            known = known and (encoding is None or "a,1\n\t".encode(encoding).decode(encoding) == "a,1\n\t")
        except (LookupError, ValueError):
            known = False
        if not known:
            raise ValueError("the name of an encoding of text, such as utf-8 or latin-1")
        return encoding

    @field_validator("columns")
    @classmethod
    def _numbered(cls, columns: dict[str, str | int | None]) -> dict[str, str | int | None]:
        for name, column in columns.items():
            if isinstance(column, int) and column < 0:
                raise ValueError(f"numbers of columns from 0 on ({name}: {shown(column)} is none)")
        return columns

    @classmethod
    def changed(cls, options: ReadOptions | None, changes: dict[str, Any]) -> ReadOptions:
        """The options with some of them replaced by name; None stands for the defaults.

        Raises:
            SettingsError: an unknown name, or a value that is none of those expected.
        """
        base = cls.of(options, "options")
        if not changes:
            return base
        return cls.of({name: getattr(base, name) for name in ReadOptions.model_fields} | changes, "")
