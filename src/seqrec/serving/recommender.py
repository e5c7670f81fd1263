"""Raw histories in, the best next items out: the one function behind Python, the command line and (later)
HTTP."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from seqrec.data.catalogue import Catalogue
from seqrec.data.query import Events, Query
from seqrec.errors import SeqrecError, SettingsError, UnknownIdError, shown
from seqrec.serving import moments
from seqrec.serving.because import because
from seqrec.topk import Filter, Known

if TYPE_CHECKING:
    from seqrec.serving.embeds import Embeds


def recommend(
    model: Embeds,
    sequences: Iterable[Iterable[Any]] | Mapping[Any, Iterable[Any]] | None = None,
    *,
    users: Iterable[Any] | None = None,
    k: int = 10,
    filter_seen: bool = True,
    allow: Iterable[Any] | None = None,
    deny: Iterable[Any] | None = None,
    on_unknown: str = "raise",
    at: Any = None,
    times: Any = None,
    explain: bool = False,
) -> pl.DataFrame:
    """The k best next items for each history.

    Args:
        sequences: raw item ids, oldest first, of anyone, known or not: ``[["a", "b"], ["c"]]``, or by name
            ``{"ann": ["a", "b"]}``. Arrays and Series do as well as lists. Of a model that reads baskets each
            is a list of baskets, ``[[["a", "b"], ["c"]]]``; the order within one means nothing.
        users: raw ids of users of the training data, whose histories the model has kept: a list, array or
            Series. With ``sequences`` too, which are then a list of as many: what each user did since, which
            comes after the history (an empty one: nothing).
        filter_seen: leave out what is in the history.
        allow, deny: raw item ids: recommend only these; none of these. What is in both is left out.
        on_unknown: what to do with items or users that the model never saw: "raise" an error, "warn" and go
            on without them, or "ignore" them. A history without any known item gets the most popular ones
            (or, from models with user vectors, what suits its user).
        at: of models that read times the moment that is asked about: a date, a text, a number as the log
            writes its times, or "now"; or a list of them, one a history. There is no default.
        times: of models that read times when the items of ``sequences`` were taken: as many lists, a moment
            an item, oldest first.
        explain: also say which items of the history are nearest to each, by the cosine of what the model has
            learned of them.

    Returns:
        a long frame, best first: ``query`` (0, 1, ...; or ``user_id``), ``item_id``, ``score``, ``rank``
            (from 1), ``source``: "model", or "popularity" where nothing is known of the query, which then
            gets the items with most training events. Fewer than k rows where the catalogue has no more to
            offer. With ``explain`` a column ``because``: a list of at most three items of the history,
            nearest first; empty where popularity answers.

    Raises:
        UnknownIdError: an unknown id, with on_unknown="raise".
        SettingsError: k is no whole number from 1 on; neither sequences nor users, one of another shape, or
            not as many of both; baskets for a model that reads none, or items for one that needs them; no
            times or moment for a model that reads them, or some for one that does not; ``explain`` for a
            model without item vectors.
        SeqrecError: the model is not trained.
    """
    catalogue = checked(model, k, on_unknown)
    vectors = model.vectors().vectors if explain else None
    query, keys = asked(model, sequences, users, on_unknown, at, times)
    top = model.best(query, int(k), filter_of(catalogue, filter_seen, allow, deny, on_unknown))
    row, column = np.nonzero(top.items >= 0)
    known = model.knows(query)
    frame = pl.DataFrame(
        {
            keys.name: keys.gather(row),
            "item_id": catalogue.decode(top.items[row, column]),
            "score": top.scores[row, column],
            "rank": column + 1,
            "source": np.where(known, "model", "popularity")[row],
        }
    )
    if vectors is None:
        return frame
    nearest: list[list[int]] = []
    for i, items in enumerate(top.items):
        nearest += because(vectors, items[items >= 0], query.at(i) if known[i] else np.empty(0, np.int64))
    ids = [catalogue.decode(np.array(one, dtype=np.int64)).to_list() for one in nearest]
    return frame.with_columns(pl.Series("because", ids, dtype=pl.List(catalogue.ids.dtype)))


def asked(
    model: Known,
    sequences: Iterable[Iterable[Any]] | Mapping[Any, Iterable[Any]] | None,
    users: Iterable[Any] | None,
    on_unknown: str,
    at: Any = None,
    times: Any = None,
) -> tuple[Query, pl.Series]:
    """What is asked for by raw ids. Arguments as of ``recommend``.

    Returns:
        the histories, and what stands for each in the answer: ``query`` (0, 1, ...) or ``user_id``.

    Raises:
        UnknownIdError: an unknown id, with on_unknown="raise".
        SettingsError: neither sequences nor users, one of another shape, or not as many of both; times or a
            moment that the model does not read, or none that it does.
        SeqrecError: the model is not trained, or has no users' histories.
    """
    catalogue, keys = checked(model, 1, on_unknown), None
    if sequences is None and users is None:
        raise SettingsError("expected sequences=[[...], ...], users=[...] or both. Got neither.")
    if users is not None and isinstance(sequences, Mapping):
        raise SettingsError(
            "sequences: expected a list of lists beside users, one each, of what they did since. "
            f"Got {shown(sequences)}."
        )
    if isinstance(sequences, Mapping):
        keys = _column(list(sequences), "sequences")
        query = _query(model, catalogue, list(sequences.values()), on_unknown, times)
    elif sequences is not None:
        lists = _as_list(sequences, "sequences", "a list of lists of item ids, [[...], ...]")
        query = _query(model, catalogue, lists, on_unknown, times)
    elif times is not None:
        raise SettingsError("times: expected sequences, whose items were taken then. Got none.")
    if users is not None:
        ids = _ids(users, "users", "a list of user ids, [...]")
        kept = _query_of_users(model, ids, on_unknown)
        query = kept if sequences is None else continued(kept, query)
        keys = _column(ids, "users")
    query = moments.at_moment(model, query, at)
    return query, pl.Series("query", np.arange(len(query))) if keys is None else keys.alias("user_id")


def checked(model: Known, k: Any, on_unknown: str) -> Catalogue:
    """The items of a model that can be asked for k of them.

    Raises:
        SettingsError: k is no whole number from 1 on, or on_unknown none of "raise", "warn" and "ignore".
        SeqrecError: the model is not trained.
    """
    if model.item_catalogue is None:
        raise SeqrecError(f"{model.name} is not trained. Call fit, or load a saved model.")
    if isinstance(k, bool) or not isinstance(k, numbers.Integral) or k < 1:
        raise SettingsError(f"k: expected a whole number, at least 1. Got {k!r}.")
    if on_unknown not in ("raise", "warn", "ignore"):
        raise SettingsError(f"on_unknown: expected 'raise', 'warn' or 'ignore'. Got {on_unknown!r}.")
    return model.item_catalogue


def filter_of(catalogue: Catalogue, seen: bool, allow: Any, deny: Any, on_unknown: str) -> Filter:
    """The filter of raw item ids; arguments as of ``recommend``.

    Raises:
        UnknownIdError: an unknown id, with on_unknown="raise".
        SettingsError: no list of ids.
    """
    allowed, denied = (
        None if items is None else indices_of(catalogue, items, name, "a list of item ids, [...]", on_unknown)
        for name, items in (("allow", allow), ("deny", deny))
    )
    return Filter(seen, allowed, denied)


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


def _query(
    model: Known, catalogue: Catalogue, sequences: list[Any], on_unknown: str, times: Any = None
) -> Query:
    expected = "a list of item ids, as in a list of lists [[...], ...]"
    names = [f"sequences: sequence {number}" for number in range(len(sequences))]
    if times is not None or (model.reads_times and any(len(list(one)) for one in sequences)):
        return _query_with_times(model, catalogue, sequences, on_unknown, times)
    if not model.reads_baskets and not any(map(_begins_with_a_basket, sequences)):
        return Query.from_lists(
            [
                _learned(model, indices_of(catalogue, sequence, name, expected, on_unknown), name, on_unknown)
                for name, sequence in zip(names, sequences)
            ]
        )
    histories = [_as_list(sequence, name, expected) for name, sequence in zip(names, sequences)]
    counts = [sum(isinstance(entry, BASKET) for entry in history) for history in histories]
    for name, history, baskets in zip(names, histories, counts):
        refuse_depth(model, baskets, len(history), name)
    lists, numbers = [], []
    for name, history, baskets in zip(names, histories, counts):
        # where none is needed an item alone is a basket
        told = [list(entry) if baskets else [entry] for entry in history]
        found = [
            _learned(
                model,
                indices_of(catalogue, basket, f"{name}, basket {at}", "a list of item ids", on_unknown),
                f"{name}, basket {at}",
                on_unknown,
            )
            for at, basket in enumerate(told)
        ]
        lists.append(np.concatenate([*found, np.empty(0, np.int32)]))
        numbers.append(np.repeat(np.arange(len(found)), [len(one) for one in found]))
    return Query.from_lists(lists, baskets=numbers)


def _query_with_times(
    model: Known, catalogue: Catalogue, sequences: list[Any], on_unknown: str, times: Any
) -> Query:
    """Of a model that reads times."""
    if not model.reads_times:
        raise SettingsError(
            f"times: cannot be given, since {model.name} reads no times. Got {shown(times)}. Leave it out."
        )
    expected = "a list of lists, a time an item, [[...], ...]"
    if times is None:
        raise SettingsError(
            f"times: expected {expected}, beside sequences, since {model.name} reads when items were taken. "
            "Got none. (On the command line: --times 2024-01-30,2024-01-31 for each --sequence a,b.)"
        )
    told = _as_list(times, "times", expected)
    if len(told) != len(sequences):
        raise SettingsError(
            f"times: expected {expected}, for {len(sequences):,} sequences. Got {len(told):,}."
        )
    lists, when = [], []
    for number, (sequence, given) in enumerate(zip(sequences, told)):
        name = f"sequences: sequence {number}"
        raw = _ids(sequence, name, "a list of item ids, as in a list of lists [[...], ...]")
        taken = moments.of_items(given, len(raw), f"times: sequence {number}")
        found = indices_of(catalogue, raw, name, "a list of item ids", on_unknown)
        lists.append(_learned(model, found, name, on_unknown))
        index = catalogue.encode(raw)
        when.append(taken[(index >= 0) & ~np.isin(index, model.unlearned)])
    return Query.from_lists(lists, times=when)


BASKET = (list, tuple, set, frozenset, np.ndarray, pl.Series)
"""What a basket may be, and no id is."""


def _begins_with_a_basket(sequence: Any) -> bool:
    return isinstance(sequence, list | tuple) and len(sequence) > 0 and isinstance(sequence[0], BASKET)


def refuse_depth(model: Known, baskets: int, entries: int, name: str) -> None:
    """Checks that a history is as deep as the model reads it.

    Args:
        baskets: how many of its ``entries`` are baskets; the others are items.
        name: of the history.

    Raises:
        SettingsError: it has both; or what the model does not read.
    """
    if 0 < baskets < entries:
        raise SettingsError(
            f"{name}: expected items alone, or baskets alone. Got {baskets} baskets and {entries - baskets} "
            "items. An item alone is the basket [item]."
        )
    if baskets and not model.reads_baskets:
        raise SettingsError(
            f"{name}: expected a list of item ids, since {model.name} reads no baskets. Got a list of "
            "baskets. Give their items one after another: "
            "[[item for basket in history for item in basket] for history in sequences]."
        )
    if entries and not baskets and model.needs_baskets:
        raise SettingsError(
            f"{name}: expected a list of baskets, as in [[[...], [...]], ...], since {model.name} was "
            "trained on baskets. Got a list of items. Items taken one at a time are "
            "[[[item] for item in history] for history in sequences]."
        )


def indices_of(catalogue: Catalogue, items: Any, name: str, expected: str, on_unknown: str) -> np.ndarray:
    """(items,) int32 indices of raw item ids, those of unknown ones left out.

    Args:
        items: a list, array or Series.
        name, expected: for messages: what they are called, and what a right value is.

    Raises:
        UnknownIdError: an unknown id, with on_unknown="raise".
        SettingsError: something else than ids.
    """
    raw = _ids(items, name, expected)
    indices = catalogue.encode(raw)
    if not len(indices) or indices.min() >= 0:
        return indices
    missing = [item for item, index in zip(raw, indices) if index < 0]
    example = catalogue.ids[0]
    alike = type(example) is type(missing[0])
    hint = "" if alike else f" Ids here are {type(example).__name__}, such as {example!r}."
    report(
        f"{name} has {len(missing)} item(s) that the model does not know: {missing[:3]!r}.{hint}", on_unknown
    )
    return indices[indices >= 0]


def _learned(model: Known, items: np.ndarray, name: str, on_unknown: str) -> np.ndarray:
    """Of the (n,) items of a history those of which the model has learned something. It may well know the
    others, so they are no error, but a warning."""
    return learned(model, items, name, "warn" if on_unknown == "raise" else on_unknown)


def learned(model: Known, items: np.ndarray, name: str, on_unknown: str) -> np.ndarray:
    """Of (n,) items those of which the model has learned something.

    Args:
        name: for messages: what they are called.

    Raises:
        UnknownIdError: there are others, with on_unknown="raise".
    """
    if not len(model.unlearned) or not (lost := np.isin(items, model.unlearned)).any():
        return items
    assert model.item_catalogue is not None
    some = model.item_catalogue.decode(items[lost][:3]).to_list()
    report(
        f"{name} has {lost.sum():,} item(s) without a training event, of which {model.name} has learned "
        f"nothing: {some!r}.",
        on_unknown,
    )
    return items[~lost]


def _query_of_users(model: Known, users: list[Any], on_unknown: str) -> Query:
    index = known_users(model).encode(users)
    if len(index) and index.min() < 0:
        missing = [user for user, i in zip(users, index) if i < 0]
        report(f"users: {len(missing)} user(s) that the model does not know: {missing[:3]!r}.", on_unknown)
    return kept_histories(model, index)


def known_users(model: Known) -> Catalogue:
    """The users whose histories the model has kept.

    Raises:
        SeqrecError: it has kept none.
    """
    if model.sequences is None or model.known_stops is None:
        raise SeqrecError(
            "users: this model was saved without its users' histories. Give sequences=[[...], ...], or "
            "save it with histories=True."
        )
    return model.sequences.user_catalogue


def kept_histories(model: Known, users: np.ndarray) -> Query:
    """The histories that a model has kept of users, (n,) int32 indices; empty for -1, an unknown one."""
    s, stops = model.sequences, model.known_stops
    assert s is not None
    assert stops is not None
    begin, end = (np.where(users >= 0, ends[users], 0) for ends in (s.offsets, stops))
    return Query(Events(s.items, s.times, s.baskets), begin, end, users)


def continued(kept: Query, newer: Query) -> Query:
    """The users' histories, each followed by what its user did since.

    Raises:
        SettingsError: there are not as many of both.
    """
    if len(newer) != len(kept):
        raise SettingsError(
            f"sequences: expected one for each of the {len(kept)} users, of what they did since "
            f"([] for nothing). Got {len(newer)}."
        )
    stops = np.cumsum(kept.lengths + newer.lengths)
    starts = stops - kept.lengths - newer.lengths
    items = np.zeros(int(stops[-1]) + 1 if len(stops) else 1, dtype=np.int32)
    baskets = None
    if kept.events.baskets is not None and newer.events.baskets is not None:
        baskets = np.zeros(len(items), dtype=np.int64)
    for part, begin in ((kept, starts), (newer, starts + kept.lengths)):
        row = np.repeat(np.arange(len(part)), part.lengths)
        at = np.arange(len(row)) - np.repeat(np.cumsum(part.lengths) - part.lengths, part.lengths)
        items[begin[row] + at] = part.events.items[part.starts[row] + at]
        if baskets is not None and part.events.baskets is not None:
            # two numbers apart: what came since is in baskets of its own
            baskets[begin[row] + at] = 2 * part.events.baskets[part.starts[row] + at] + (part is newer)
    times = None
    if kept.events.times is not None and (newer.events.times is not None or not newer.lengths.any()):
        times = np.zeros(len(items))
        for part, begin in ((kept, starts), (newer, starts + kept.lengths)):
            if part.events.times is not None:
                row = np.repeat(np.arange(len(part)), part.lengths)
                at = np.arange(len(row)) - np.repeat(np.cumsum(part.lengths) - part.lengths, part.lengths)
                times[begin[row] + at] = part.events.times[part.starts[row] + at]
        _refuse_older(times, starts, stops)
    return Query(Events(items, times, baskets), starts, stops, kept.users)


def _refuse_older(times: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> None:
    """Checks that what users did since is not older than what is known of them; (events,) times, (n,) starts
    and stops."""
    back = np.flatnonzero(np.diff(times[: int(stops[-1]) if len(stops) else 0]) < 0) + 1
    wrong = np.setdiff1d(back, starts)
    if len(wrong):
        row = int(np.searchsorted(starts, wrong[0], side="right")) - 1
        raise SettingsError(
            "times: expected what a user did since to be later than what is known of them. Got earlier times "
            f"in sequence {row}."
        )


def report(message: str, on_unknown: str) -> None:
    """Raises an error, warns or does nothing.

    Raises:
        UnknownIdError: with on_unknown="raise".
    """
    if on_unknown == "raise":
        raise UnknownIdError(f"{message} Correct them, or pass on_unknown='warn' or 'ignore'.")
    if on_unknown == "warn":
        warnings.warn(message, stacklevel=6)
