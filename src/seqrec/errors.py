"""The errors that a user can cause, each with a message that says what to do.

The command line prints them as one line, without a traceback; from Python they are ordinary ``ValueError``s.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any

LONGEST = 1000
"""Characters of a message about data."""
LONGEST_OF_ALL = 2000
"""Characters of any message."""


class SeqrecError(ValueError):
    """Base of every error that a user's input can cause.

    Credentials within an address are masked, and a message has at most ``LONGEST_OF_ALL`` characters.
    """

    def __init__(self, message: object = ""):
        super().__init__(_cut(masked(str(message)), LONGEST_OF_ALL))


class DataError(SeqrecError):
    """The log, or a file that goes with it, is invalid. Names the file, the row and the column.

    The message is one line of at most ``LONGEST`` characters, whatever the file's content that it repeats.
    """

    def __init__(self, message: str = ""):
        super().__init__(_cut(" ".join(message.split("\n")).rstrip(), LONGEST))


class StorageError(SeqrecError):
    """A storage cannot be used: no such bucket, no credentials, a server that is down or unreachable.

    Names the path and what to check.
    """


class SettingsError(SeqrecError):
    """A setting is unknown, missing or out of range. Names the key, what was expected and what came."""


class UnknownIdError(SeqrecError):
    """An item or a user was never seen in training, and the caller asked for an error."""


class TrainingError(SeqrecError):
    """Training cannot continue (the loss is not finite, the checkpoint is of another run)."""


class DownloadError(SeqrecError):
    """A data set could not be obtained from any of its sources."""


def _cut(text: str, most: int) -> str:
    """The text, without its middle if it is longer."""
    if len(text) <= most:
        return text
    left = most - 60
    start, end = text[: left * 2 // 3], text[-(left // 3) :]
    return f"{start} [... {len(text) - len(start) - len(end):,} characters left out ...] {end}"


def masked(text: str) -> str:
    """The text without user and password, and without keys and signatures, of the addresses in it:
    ``https://***@host/log.csv?token=***``."""
    if "://" not in text:
        return text
    text = re.sub(r"(://)[^/@\s'\"]+@", r"\1***@", text)
    return re.sub(
        r"([?&][^=&\s]*(?:sig|token|key|secret|pass|cred)[^=&\s]*=)[^&\s'\"]+", r"\1***", text, flags=re.I
    )


def shown(value: Any, as_text: Callable[[Any], str] = repr) -> str:
    """A value as a message shows it: cut to 100 characters, since a message repeats no content at length."""
    try:
        text = as_text(value)
    except (ValueError, RecursionError):  # numbers of thousands of digits
        return f"{type(value).__name__} too long to show"
    return text if len(text) <= 100 else f"{text[:80]}... ({len(text):,} characters)"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" Did you mean 'width'?"`` for the nearest known name; all known names if none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f" Did you mean {near[0]!r}?"
    return f" Known: {some_of(names)}." if names else ""


def some_of(names: Iterable[str], most: int = 30) -> str:
    """The first names of a list, and how many there are if that is not all."""
    found = list(names)
    left = f" ... ({len(found):,} in all)" if len(found) > most else ""
    return ", ".join(found[:most]) + left
