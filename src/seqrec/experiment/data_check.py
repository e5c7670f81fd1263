"""What is in a log, and what to beware of: sizes, ties, repeats, cold items, leaks, and whether order matters
at all.

Does order matter? Each user's events are shuffled, and the 2-grams and 3-grams (items that follow each other
directly) that several users have in common are counted before and after. What the order of a log tells beyond
the items in it is lost by shuffling, so a log with sequential structure loses most of them. This is the
rule-counting test of "Does It Look Sequential?" (Klenitskiy, Volodkevich, Pembek, Vasilev, RecSys 2024, arXiv
2408.12008) in a simple form: support counts users, not occurrences, and there is no threshold of confidence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from seqrec.data.sequences import Sequences
from seqrec.data.times import utc
from seqrec.errors import DataError, SeqrecError
from seqrec.splitting import Split, SplitSettings
from seqrec.tables import Table

if TYPE_CHECKING:
    from seqrec.data.interactions import Interactions

SUPPORT = 5  # users who must have an n-gram for it to count: the paper's threshold


@dataclass(frozen=True)
class Finding:
    """One thing that was measured.

    Attributes:
        name: what it is called.
        value: a number, text, or None where the log cannot tell.
        meaning: what it says, in words.
    """

    name: str
    value: float | int | str | None
    meaning: str


@dataclass(frozen=True)
class DataCheck:
    """All findings about a log, in order. ``check["ties"]`` is the value of one of them.

    Attributes:
        findings: what was measured.
        warnings: what to beware of, in words.
    """

    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]

    def __getitem__(self, name: str) -> Any:
        return next(f.value for f in self.findings if f.name == name)

    def __contains__(self, name: str) -> bool:
        return any(f.name == name for f in self.findings)

    def table(self, title: str = "") -> Table:
        """To print or to write."""
        return Table(title, ("name", "value", "meaning"), [vars(f) for f in self.findings], self.warnings)


def check(
    data: Sequences | Interactions, split: Split | SplitSettings | None = None, seed: int = 0
) -> DataCheck:
    """Measures a log.

    Args:
        data: sequences, or a log (whose ties keep the order of the file).
        split: whose cold items and leaks to measure; None measures leave_one_out and, where times are known,
            global_temporal.
        seed: of the shuffles.

    Raises:
        DataError: the log is empty.
    """
    sequences = data if isinstance(data, Sequences) else data.sequences()
    if not sequences.events:
        raise DataError("data: expected at least one event. Got none.")
    findings = [*sizes(sequences), *ties(sequences), *repeats(sequences)]
    for one in (
        [split]
        if split is not None
        else [SplitSettings(name="leave_one_out"), SplitSettings(name="global_temporal")]
    ):
        findings += held_out(sequences, one)
    findings += order(sequences, seed)
    return DataCheck(tuple(findings), tuple(warnings({f.name: f.value for f in findings})))


def sizes(s: Sequences) -> Iterator[Finding]:
    """Users, items and events, and how long the sequences are."""
    items, lengths = int(np.count_nonzero(np.bincount(s.items))), s.lengths[s.lengths > 0]
    yield Finding("users", len(lengths), "users with at least one event")
    yield Finding("items", items, "items with at least one event")
    yield Finding("events", s.events, "rows of the log")
    yield Finding("density", s.events / (len(lengths) * items), "events / (users x items)")
    yield Finding("length_min", int(lengths.min()), "events of a user: the shortest sequence")
    yield Finding("length_median", float(np.median(lengths)), "the median")
    yield Finding("length_mean", float(lengths.mean()), "the mean")
    yield Finding(
        "length_p95", float(np.quantile(lengths, 0.95)), "95% of the sequences are at most this long"
    )
    yield Finding("length_max", int(lengths.max()), "the longest sequence")
    for name, which, of in (("first_time", np.min, "first"), ("last_time", np.max, "last")):
        time = None if s.times is None else utc(which(s.times))
        yield Finding(name, time, f"the {of} event (UTC)")
    ratings = np.empty(0) if s.ratings is None else s.ratings[~np.isnan(s.ratings)]
    yield Finding("rating_min", float(ratings.min()) if len(ratings) else None, "the lowest rating")
    yield Finding("rating_max", float(ratings.max()) if len(ratings) else None, "the highest rating")


def distinct(values: np.ndarray) -> np.ndarray:
    """(distinct,) distinct ones of (n,) integers, sorted. (NumPy's own ``unique`` goes through a hash table,
    many times slower where most are distinct.)"""
    ordered = np.sort(values)
    found: np.ndarray = ordered[np.diff(ordered, prepend=ordered[:1] - 1) != 0]
    return found


def moments(s: Sequences, times: np.ndarray) -> np.ndarray:
    """(events,) number, in order, of the group of neighbouring events of one user that have the same time."""
    new = np.ones(s.events, dtype=bool)
    new[1:] = np.diff(times) != 0
    new[s.offsets[:-1][s.lengths > 0]] = True
    return np.cumsum(new) - 1


def ties(s: Sequences) -> Iterator[Finding]:
    """Events of one second, whose order is the file's and may mean nothing."""
    tied = changed = None
    if s.times is not None:
        group = moments(s, np.floor(s.times))
        size = np.bincount(group)
        tied = float((size[group] > 1).mean())
        # The last event of a random order is each of its group alike: it shows the same item as often as the
        # group holds it.
        last = s.offsets[1:][s.lengths > 0] - 1
        last_group = np.full(len(size), -1)
        last_group[group[last]] = np.arange(len(last))
        user = last_group[group]
        alike = np.bincount(
            user[user >= 0], weights=(s.items == s.items[last][user])[user >= 0], minlength=len(last)
        )
        changed = float((1 - alike / size[group[last]]).mean())
    yield Finding("ties", tied, "share of events in the same second as another of the same user")
    yield Finding(
        "last_item_ties", changed, "share of last items that a random order of ties would change (expected)"
    )


def repeats(s: Sequences) -> Iterator[Finding]:
    """Events whose item the user has taken before, and exact duplicates."""
    user = np.repeat(np.arange(s.users), s.lengths)
    pairs = len(distinct(user * len(s.item_catalogue) + s.items))
    yield Finding("repeats", 1 - pairs / s.events, "share of events whose item the user has taken before")
    duplicates = None
    if s.times is not None:
        duplicates = s.events - len(distinct(moments(s, s.times) * len(s.item_catalogue) + s.items))
    yield Finding("duplicates", duplicates, "events with the user, item and time of another")


def held_out(s: Sequences, split: Split | SplitSettings) -> Iterator[Finding]:
    """Queries of a split, their cold targets, and how much of what is known when testing is of the future."""
    if isinstance(split, SplitSettings):
        name = split.name
        try:
            split = split.apply(s)
        except SeqrecError as error:
            yield Finding(f"{name}.test_queries", None, str(error))
            return
    name = split.settings["name"]
    for role, queries in (("validation", split.validation), ("test", split.test)):
        yield Finding(f"{name}.{role}_queries", len(queries), f"queries of the {role} set")
        cold = float((split.item_counts[split.targets(queries)] == 0).mean()) if len(queries) else None
        yield Finding(
            f"{name}.{role}_cold", cold, f"share of {role} targets that were never seen in training"
        )
    later = None
    times = split.sequences.times
    if times is not None and len(split.test):
        known = split.train_events.copy()
        known[split.validation.targets] = True
        sorted_times = np.sort(times[known])
        later = float(
            1
            - np.searchsorted(sorted_times, times[split.test.targets], side="right").mean()
            / len(sorted_times)
        )
    yield Finding(
        f"{name}.later",
        later,
        "share of training and validation events later than the test event, averaged over test events",
    )


def order(s: Sequences, seed: int) -> Iterator[Finding]:
    """n-grams that users have in common, before and after shuffling: see the top of the file."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(s.users), s.lengths)
    everything = shuffled(s.items, user, rng)
    only_ties = None if s.times is None else shuffled(s.items, moments(s, np.floor(s.times)), rng)
    for n in (2, 3):
        before, after = common_ngrams(s.items, user, n), common_ngrams(everything, user, n)
        yield Finding(f"{n}grams", before, f"different {n}-grams of items that at least {SUPPORT} users have")
        yield Finding(
            f"{n}grams_lost",
            1 - after / before if before else None,
            "share of them lost by shuffling each user's events: near 1, order matters",
        )
        lost = 1 - common_ngrams(only_ties, user, n) / before if only_ties is not None and before else None
        yield Finding(
            f"{n}grams_lost_in_ties", lost, "share of them lost by shuffling only events of the same second"
        )


def shuffled(items: np.ndarray, group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(events,) items in random order within each group; groups are numbered in order."""
    return items[np.argsort(group.astype(np.int64) << 32 | rng.integers(0, 1 << 32, len(items)))]


def common_ngrams(items: np.ndarray, user: np.ndarray, n: int, support: int = SUPPORT) -> int:
    """How many different runs of n items at least ``support`` users have.

    ``[[1, 2, 3], [1, 2, 2], [3, 1, 2]]`` with n 2 and support 3 has one: ``[1, 2]``.

    Args:
        items, user: (events,) the item and the user of each event; a user's events lie together, in order.
    """
    begin = np.arange(max(0, len(items) - n + 1))
    begin = begin[user[begin] == user[begin + n - 1]] if len(begin) else begin
    span, users = int(items.max(initial=0)) + 1, int(user.max(initial=0)) + 1
    run, runs = items[begin].astype(np.int64), span
    for step in range(1, n):
        if runs * span * users >= 1 << 63:  # numbers would not fit: count anew those that occur
            known, run = np.unique(run, return_inverse=True)
            runs = len(known)
        run, runs = run * span + items[begin + step], runs * span
    run = distinct(run * users + user[begin]) // users  # once a user, sorted
    first = np.flatnonzero(np.diff(run, prepend=-1, append=-1))
    return int((np.diff(first) >= support).sum())


def warnings(value: dict[str, Any]) -> Iterator[str]:
    """What to beware of, in words, given the values of the findings by name."""
    if (value["ties"] or 0) > 0.05:
        yield (
            "Many events share their second: results depend on the order of ties. "
            "State the rule, and compare with a random order."
        )
    if value["first_time"] is None:
        yield "No times: splits in time are impossible, and leaks from the future cannot be measured."
    if value["duplicates"]:
        yield "Some events are exact duplicates: decide whether to keep or drop them."
    if (value["repeats"] or 0) > 0.1:
        yield (
            "Users return to items: filtering seen items hides right answers; "
            "also look at unfiltered results."
        )
    if (value.get("leave_one_out.later") or 0) > 0.05:
        yield "Leave-one-out trains on events later than those it tests: also use a split in time."
    if value["2grams_lost"] is not None and value["2grams_lost"] < 0.5:
        yield (
            "Shuffling loses less than half of the common 2-grams: order matters little here, and "
            "sequential models may gain little."
        )
