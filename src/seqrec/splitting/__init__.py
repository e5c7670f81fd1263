"""Splits: which events train, which are asked about. One file each, with its time axis drawn at the top.

    leave_one_out      each user's last event tests, the one before validates: the field's habit
    last_n             each user's last n events test, the one before them validates: the origin's
    global_temporal    two moments cut the log into training, validation, test: the future is unknown
    user_holdout       some users never train and are asked about their last events
    session_temporal   the last days' sessions test, the days' before validate
    last_sessions      the last sessions to begin test, those before validate
    last_basket        each user's last basket tests, the one before validates: queries ask for sets
    files              files of one's own say which events train, validate and test

Order and ties: a split uses the order of the sequences. Events of the same second stay in the order of the
log's file (a stable sort); a seeded random order of ties is an option of building the sequences
(``log.sequences(tie_order="random", seed=0)``). Minimum counts of items and users are a filter of the log
(``log.filter(min_item_count=5)``), before it becomes sequences.

A new split is a file with one function, and a line in ``SPLITS``. One from outside the package is named
``package.module:name`` in a run file, or offered as an entry point of the group ``seqrec.splits``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Self

from pydantic import ConfigDict, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from seqrec.data.sequences import Sequences
from seqrec.errors import SettingsError, did_you_mean
from seqrec.settings import names
from seqrec.settings.base import Settings
from seqrec.splitting.arguments import arguments_of
from seqrec.splitting.files import files
from seqrec.splitting.global_temporal import global_temporal
from seqrec.splitting.last_basket import last_basket
from seqrec.splitting.last_n import last_n
from seqrec.splitting.last_sessions import last_sessions
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.splitting.session_temporal import session_temporal
from seqrec.splitting.split import Queries, Split
from seqrec.splitting.user_holdout import user_holdout

SPLITS: dict[str, Callable[..., Split]] = {
    "leave_one_out": leave_one_out,
    "last_n": last_n,
    "global_temporal": global_temporal,
    "user_holdout": user_holdout,
    "session_temporal": session_temporal,
    "last_sessions": last_sessions,
    "last_basket": last_basket,
    "files": files,
}

__all__ = [
    "SPLITS",
    "Queries",
    "Split",
    "SplitSettings",
    "files",
    "global_temporal",
    "last_basket",
    "last_n",
    "last_sessions",
    "leave_one_out",
    "session_temporal",
    "user_holdout",
]


class SplitSettings(Settings):
    """A split by name, with its own arguments beside the name: ``SplitSettings(name="last_n", n=3)``."""

    model_config = ConfigDict(extra="allow")

    name: str = "leave_one_out"
    """Which split: leave_one_out, last_n, global_temporal, user_holdout, session_temporal, last_sessions,
    last_basket or files; or a function of your own, ``package.module:name``, that takes sequences and its
    arguments and gives a ``Split``."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if not callable(found := names.resolve("split", name, SPLITS)):
            raise SettingsError(f"split {name}: expected a function. Got {found!r}.")
        return name

    @model_validator(mode="after")
    def _own_arguments(self) -> Self:
        arguments = arguments_of(names.resolve("split", self.name, SPLITS))
        for key, value in (self.model_extra or {}).items():
            if key not in arguments.model_fields:
                message = f"an argument of {self.name}{_hint(key, ['name', *arguments.model_fields])}"
                error = PydanticCustomError("unknown_argument", "{message}", {"message": message})
                raise ValidationError.from_exception_data(
                    self.name, [InitErrorDetails(type=error, loc=(key,), input=value)]
                )
        arguments.model_validate(self.model_extra or {})
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        """What was given besides the name."""
        return dict(self.model_extra or {})

    def apply(self, sequences: Sequences) -> Split:
        """The split of these sequences.

        Raises:
            DataError: the sequences lack what the split needs (times, say), or nothing is left to train on,
                to validate or to test.
            SettingsError: an argument is out of range, a split of files was given a log, or a function from
                outside gives no ``Split``.
        """
        longest = int(sequences.lengths.max(initial=0))
        function = names.resolve("split", self.name, SPLITS)
        values = arguments_of(function).of(self.arguments, self.name)
        split = function(sequences, **{name: getattr(values, name) for name in type(values).model_fields})
        if not isinstance(split, Split):
            raise SettingsError(f"split {self.name}: expected a Split from it. Got {type(split).__name__}.")
        if "name" not in split.settings:
            split = replace(split, settings={"name": self.name, **values.model_dump(mode="json")})
        return split.not_empty(
            f"Users with too few events only train: the longest of {sequences.users:,} sequences has "
            f"{longest:,}. Ask for fewer events of each user, or take a log with longer sequences."
        )


def _hint(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'n'?)"``, for use within a sentence."""
    hint = did_you_mean(name, known).strip().rstrip(".")
    return f" ({hint[:1].lower()}{hint[1:]})"
