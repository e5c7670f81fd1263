"""Raw histories in, the best next items out: the one function behind Python, the command line and (later)
HTTP."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl
import torch

from seqrec.data.sequences import Histories
from seqrec.errors import SeqrecError, SettingsError, UnknownIdError
from seqrec.scoring import Known, distinct_seen, top_k

CHUNK = 512


def recommend(
    model: Known,
    sequences: Iterable[Iterable[Any]] | Mapping[Any, Iterable[Any]] | None = None,
    *,
    users: Iterable[Any] | None = None,
    k: int = 10,
    filter_seen: bool = True,
    on_unknown: str = "raise",
) -> pl.DataFrame:
    """The k best next items for each history.

    Args:
        sequences: raw item ids, oldest first, of anyone, known or not: ``[["a", "b"], ["c"]]``, or by name
            ``{"ann": ["a", "b"]}``. Arrays and Series do as well as lists.
        users: or raw ids of users of the training data, whose histories the model has kept: a list, array or
            Series.
        filter_seen: leave out what is in the history.
        on_unknown: what to do with items or users that the model never saw: "raise" an error, "warn" and go
            on without them, or "ignore" them. A history without any known item gets the most popular ones
            (or, from models with user vectors, what suits its user).

    Returns:
        a long frame, best first: ``query`` (0, 1, ...; or ``user_id``), ``item_id``, ``score``, ``rank``
            (from 1). Fewer than k rows where the
        catalogue has no more to offer.

    Raises:
        UnknownIdError: an unknown id, with on_unknown="raise".
        SettingsError: k is no whole number from 1 on; both or neither of sequences and users, or one of
            another shape.
    """
    if model.item_catalogue is None:
        raise SeqrecError(f"{model.name} is not trained. Call fit, or load a saved model.")
    if isinstance(k, bool) or not isinstance(k, numbers.Integral) or k < 1:
        raise SettingsError(f"k: expected a whole number, at least 1. Got {k!r}.")
    if on_unknown not in ("raise", "warn", "ignore"):
        raise SettingsError(f"on_unknown: expected 'raise', 'warn' or 'ignore'. Got {on_unknown!r}.")
    if (sequences is None) == (users is None):
        raise SettingsError(
            "expected either sequences=[[...], ...] or users=[...]. Got "
            f"{'neither' if users is None else 'both'}."
        )
    keys: pl.Series | None = None
    if isinstance(sequences, Mapping):
        keys = _column(list(sequences), "sequences")
        histories = _histories_of(model, list(sequences.values()), on_unknown)
    elif sequences is not None:
        histories = _histories_of(
            model, _as_list(sequences, "sequences", "a list of lists of item ids, [[...], ...]"), on_unknown
        )
    else:
        ids = _ids(users, "users", "a list of user ids, [...]")
        histories = _histories_of_users(model, ids, on_unknown)
        keys = _column(ids, "users")
    n = len(histories)
    width = min(k, len(model.item_catalogue))
    best = np.full((n, width), -1, dtype=np.int64)
    score = np.zeros((n, width), dtype=np.float32)
    for rows, scores in model.score_chunks(histories, CHUNK):
        if filter_seen:
            row, item = distinct_seen(histories.select(rows))
            scores[torch.from_numpy(row), torch.from_numpy(item)] = -torch.inf
        found = top_k(scores, width)
        score[rows] = scores.gather(1, found.clamp(min=0)).cpu().numpy()
        best[rows] = found.cpu().numpy()
    row, column = np.nonzero(best >= 0)
    query = {"query": row} if keys is None else {"user_id": keys.gather(row)}
    return pl.DataFrame(
        {
            **query,
            "item_id": model.item_catalogue.decode(best[row, column]),
            "score": score[row, column],
            "rank": column + 1,
        }
    )


def _as_list(values: Any, name: str, expected: str) -> list[Any]:
    """What is in a list, array or Series, as Python's own values; a single value, a text or a frame is
    refused."""
    plain = values.tolist() if isinstance(values, np.ndarray) else values
    if isinstance(plain, (str, bytes)) or hasattr(plain, "columns") or not isinstance(plain, Iterable):
        raise SettingsError(f"{name}: expected {expected}. Got {values!r}.")
    return [value.item() if isinstance(value, np.generic) else value for value in plain]


def _ids(values: Any, name: str, expected: str) -> list[Any]:
    ids = _as_list(values, name, expected)
    for value in ids:
        if not isinstance(value, Hashable):
            raise SettingsError(f"{name}: expected {expected}. Got {value!r} in it.")
    return ids


def _column(keys: list[Any], name: str) -> pl.Series:
    try:
        return pl.Series(keys)
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise SettingsError(
            f"{name}: expected ids of one type, all texts or all whole numbers. Got {keys[:5]!r}."
        ) from error


def _histories_of(model: Known, sequences: list[Any], on_unknown: str) -> Histories:
    lists = []
    catalogue = model.item_catalogue
    assert catalogue is not None
    for number, sequence in enumerate(sequences):
        raw = _ids(
            sequence,
            f"sequences: sequence {number}",
            "a list of item ids, as in a list of lists [[...], ...]",
        )
        indices = catalogue.encode(raw)
        if len(indices) and indices.min() < 0:
            missing = [item for item, index in zip(raw, indices) if index < 0]
            example = catalogue.ids[0]
            hint = (
                f" Ids here are {type(example).__name__}, such as {example!r}."
                if type(example) is not type(missing[0])
                else ""
            )
            _report(
                f"sequences: sequence {number} has {len(missing)} item(s) that the model has never seen: "
                f"{missing[:3]!r}.{hint}",
                on_unknown,
            )
            indices = indices[indices >= 0]
        lists.append(indices)
    return Histories.from_lists(lists)


def _histories_of_users(model: Known, users: list[Any], on_unknown: str) -> Histories:
    if model.sequences is None or model.known_stops is None:
        raise SeqrecError(
            "users: this model was saved without its users' histories. Give sequences=[[...], ...], or "
            "save it with histories=True."
        )
    index = model.sequences.user_catalogue.encode(users).astype(np.int64)
    if len(index) and index.min() < 0:
        missing = [user for user, i in zip(users, index) if i < 0]
        _report(f"users: {len(missing)} user(s) that the model has never seen: {missing[:3]!r}.", on_unknown)
    known = index >= 0
    starts = np.where(known, model.sequences.offsets[index], 0)
    return Histories(
        model.sequences.items, starts, np.where(known, model.known_stops[index], 0), index.astype(np.int32)
    )


def _report(message: str, on_unknown: str) -> None:
    if on_unknown == "raise":
        raise UnknownIdError(f"{message} Correct them, or pass on_unknown='warn' or 'ignore'.")
    if on_unknown == "warn":
        warnings.warn(message, stacklevel=4)
