"""What a reader of logs may be told: one class for Python, the command line and a run's YAML."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from seqrec.data.frames import Duplicates
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
