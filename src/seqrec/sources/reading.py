"""Logs from files, whatever their format.

log = read_log("log.csv", columns={"item_id": "sku"})
log = read_log(["ratings-1.dat", "ratings-2.dat"], format="ml-1m")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seqrec import storage
from seqrec.data import files
from seqrec.data.interactions import Interactions, joined
from seqrec.errors import DataError, did_you_mean
from seqrec.sources import FORMATS, WITH_HEADER, module
from seqrec.sources.detect import detect
from seqrec.sources.options import ReadOptions
from seqrec.sources.plain_tables import KINDS, Chosen, log_frame, with_tables

Paths = str | Path | Sequence[str | Path]


def read_log(path: Paths, options: ReadOptions | None = None, **changes: Any) -> Interactions:
    """Reads a log: CSV, TSV, Parquet or JSON Lines (also gzipped), or the files of a known data set.

    Times are seconds since 1970, ISO dates, or dates as ``time_format`` says. Where all of them can only be
    milli-, micro- or nanoseconds, or dates such as 20200131, they are converted to seconds, with a warning.

    Args:
        path: a file, or several of one format that together are the log, read in order; a folder of parts
            (``part-*.parquet``) is a file.
        options: how the files are read.
        changes: options by name, instead of those: ``format``, ``columns``, ``time_format``, ``where``,
            ``missing_ids``, ``delimiter``, ``encoding``, ``items``, ``users``, ``duplicates``; see
            ``ReadOptions``.
    Raises:
        DataError: the input is not what it should be; names the file, the row and the column.
        SettingsError: an unknown option, or a value that is none of those expected.
    """
    paths, options, source = opened(path, ReadOptions.changed(options, changes))
    if options.format == "samples":  # its reader knows what of the item table are attributes
        log: Interactions = module(FORMATS["samples"]).read(paths, options)
        return chosen(log, options.where).without_duplicates(options.duplicates)
    if options.format in KINDS:
        log = Interactions(log_frame(paths, options, source), source=source)
    else:
        log = joined([_of_format(one, options) for one in paths], source)
    return with_tables(log.without_duplicates(options.duplicates), options)


def chosen(log: Interactions, where: str | None) -> Interactions:
    """The events of a log for which conditions such as ``rating >= 4`` hold.

    Raises:
        DataError: no such column, or no event is left.
    """
    if where is None:
        return log
    rows = Chosen(where, "refuse")
    kept, _ = rows.of(log.frame, {}, log.source)
    rows.report(log.source)
    return replace(log, frame=kept)


def opened(path: Paths, options: ReadOptions) -> tuple[list[str], ReadOptions, str]:
    """The files of a log, the options with its format, and what the files are called in messages.

    Raises:
        DataError: no file, files of different formats, an unknown format, or options that it does not have.
    """
    given = [path] if isinstance(path, str | Path) else list(path)
    if not given:
        raise DataError("path: expected a file, or several. Got an empty list.")
    paths = [part for one in given for part in files.parts(one)]
    places = [storage.resolved(one) for one in paths]
    for one, place in zip(paths, places):
        if places.count(place) > 1:
            raise DataError(
                f"path: expected each file once. Got {one} twice, which would count its events twice. "
                "Leave one out."
            )
    source, format = ", ".join(map(str, given)), options.format
    if format == "auto":
        found = [detect(one, options.encoding) for one in paths]
        format = found[0]
        for one, other in zip(paths, found):
            if other != format:
                raise DataError(
                    f"path: expected files of one format. {paths[0]} is {format}, {one} is {other}. "
                    "Give the format, or convert one."
                )
    if format not in KINDS and format not in FORMATS:
        raise DataError(
            f"format: expected auto or one of the known formats. Got {format!r}."
            f"{did_you_mean(format, [*KINDS, *FORMATS])}"
        )
    if format in FORMATS and (options.delimiter or options.encoding):
        raise DataError(
            f"{source}: format {format!r} fixes delimiter and encoding. Leave them out, or use format='csv'."
        )
    return paths, options.model_copy(update={"format": format}), source


def _of_format(path: str, options: ReadOptions) -> Interactions:
    """A file or folder of one of ``FORMATS``."""
    reader = module(FORMATS[options.format])
    if options.format in WITH_HEADER:
        log: Interactions = reader.read(path, options)
        return log
    if options.columns:
        raise DataError(
            f"{path}: format {options.format!r} fixes its columns. Leave columns out, or give the "
            "file's format."
        )
    if options.time_format is not None or options.missing_ids != "refuse":
        given = "time_format" if options.time_format is not None else "missing_ids"
        raise DataError(
            f"{path}: {given}: format {options.format!r} fixes how times and ids are written. Leave it "
            "out, or give the file's format."
        )
    return chosen(reader.read(path), options.where)
