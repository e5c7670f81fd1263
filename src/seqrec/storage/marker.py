"""JSON files that describe others: read against a schema, and sealed, so that a changed one is noticed.

A schema is a pydantic class of what a reader needs. Keys beyond it are those of another version.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic import AfterValidator, BaseModel, ConfigDict

from seqrec import storage
from seqrec.errors import DataError, shown
from seqrec.storage import version

SEAL = "digest"
LARGEST = 1 << 28
"""Bytes of a JSON file that is read."""


class Schema(BaseModel):
    """Base of what is read: types as JSON has them, no number for a text and no text for a number."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


def _plain(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise ValueError("the plain name of a file in the same folder")
    return name


FileName = Annotated[str, AfterValidator(_plain)]
"""The name of a file beside the one that names it: no folders, so no way out of its own."""

Read = TypeVar("Read", bound=Schema)


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """The content with its digest, by which ``read`` sees whether it is as it was written."""
    return content | {SEAL: digest(content)}


def digest(content: dict[str, Any]) -> str:
    """16 hexadecimal digits of a JSON object, whatever the order of its keys; its seal does not count."""
    plain = json.loads(json.dumps(content, allow_nan=False))
    plain.pop(SEAL, None)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def read(path: str | Path, advice: str, formats: Sequence[int] = ()) -> dict[str, Any]:
    """The object in a JSON file. One without a seal is of an earlier version, and taken as it is.

    Args:
        formats: those that this version reads (``seqrec.storage.version``); none where it says no format.
        advice: for messages, what to do about a damaged one: ``Save the model again``.

    Raises:
        DataError: there is no such file, it is no JSON object, of another format, or was changed after it
            was written.
    """
    content = storage.read_json(path, LARGEST)
    if formats and not isinstance(content, dict):
        content = {}
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object. Got {shown(content)}. {advice}.")
    if formats:
        again = f"{advice[0].lower()}{advice[1:]} with this one"
        version.check(content, formats, path, again)
    if SEAL in content:
        try:
            whole = digest(content) == content[SEAL]
        except ValueError:  # NaN, which no file has
            whole = False
        if not whole:
            raise DataError(f"{path}: was changed after it was written (its digest differs). {advice}.")
    return content


def parse(content: dict[str, Any], schema: type[Read], path: str | Path, advice: str) -> Read:
    """What a reader needs of the content.

    Raises:
        DataError: something is missing, or of another type; names it.
    """
    try:
        return schema.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        what = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        name = ".".join(str(part) for part in first["loc"])
        got = "nothing" if first["type"] == "missing" else shown(first["input"])
        what = "a value" if first["type"] == "missing" else what
        raise DataError(f"{path}: {shown(name, str)}: expected {what}. Got {got}. {advice}.") from error
