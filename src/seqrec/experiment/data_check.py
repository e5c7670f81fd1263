"""What is in a log, and what to beware of: sizes, ties, repeats, cold items, leaks, and whether order matters
at all.

Does order matter? Half of the users say which 2-grams and 3-grams (items that follow each other directly) are
common. How often do these occur among the other half, and how often once each user's events are shuffled?
What the order of a log tells beyond the items in it is lost by shuffling. This follows the rule-counting test
of "Does It Look Sequential?" (Klenitskiy, Volodkevich, Pembek, Vasilev, RecSys 2024, arXiv 2408.12008), with
two differences. Occurrences are counted, and not different n-grams: of short sequences shuffling makes more
different ones (a, b, c has the 2-grams ab and bc; shuffled users have ac, ba, ca and cb too). And the users
who choose the n-grams are not those who are counted: n-grams that are common by chance would always be lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from seqrec.data.baskets import starts_of
from seqrec.data.sequences import Sequences
from seqrec.data.times import utc
from seqrec.errors import DataError, SeqrecError
from seqrec.splitting import Split, SplitSettings
from seqrec.tables import Table
from seqrec.topk import distinct_seen

if TYPE_CHECKING:
    from seqrec.data.interactions import Interactions

SUPPORT = 5  # users who must have an n-gram for it to count: the paper's threshold
SUPPORT_OF_HALF = 3  # the same among half of the users
SHUFFLES = 5  # whose counts are averaged; fewer of a large log
LITTLE = 0.1  # order matters little where shuffling loses less than this
FEW = 200  # test queries, below which intervals are too wide to compare models
DAY = 86_400
TIES = (
    "{:.0%} of the events share their second with another of the same user, and {:.0%} of the last items "
    "hang on the file's order of such ties: results depend on it. Compare with data.tie_order=random; if "
    "such events are a basket, say which column has it (data.columns.basket_id), or data.basket=same_time."
)
COPIES = (
    "Every event stands {} times in the log: it looks as if files were joined several times. "
    "data.duplicates=drop keeps one of each."
)
EARLY = 10 * 365.25 * DAY  # 1980: earlier than any log


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
        rows = [vars(f) for f in self.findings]
        return Table(title, ("name", "value", "meaning"), rows, self.warnings, notes_first=True)


def check(
    data: Sequences | Interactions, split: Split | SplitSettings | None = None, seed: int = 0
) -> DataCheck:
    """Measures a log.

    Args:
        data: sequences, or a log (whose ties keep the order of the file).
        split: whose cold items and leaks to measure; None measures leave_one_out, where times are known
            global_temporal, and where baskets are known last_basket.
        seed: of the shuffles.

    Raises:
        DataError: the log is empty.
    """
    sequences = data if isinstance(data, Sequences) else data.sequences()
    if not sequences.events:
        raise DataError("data: expected at least one event. Got none.")
    findings = [*sizes(sequences), *ties(sequences), *repeats(sequences), *baskets(sequences)]
    usual = ["leave_one_out", "global_temporal", *(["last_basket"] if sequences.baskets is not None else [])]
    for one in [SplitSettings(name=name) for name in usual] if split is None else [split]:
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
    early = span = None
    if s.times is not None:
        early = float((s.times < EARLY).mean())
        begins, ends = s.offsets[:-1][s.lengths > 0], s.offsets[1:][s.lengths > 0] - 1
        span = float(np.median(s.times[ends] - s.times[begins]))
    yield Finding("early_times", early, "share of events before 1980, which may be wrong")
    yield Finding("spans_median", span, "seconds from a user's first event to the last: the median")
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


def warnings_of_order(s: Sequences, random: bool = False) -> Iterator[str]:
    """What whoever trains on a log must know of its order: ties, and rows that stand several times. Of
    baskets a model says itself whether it reads them.

    Args:
        random: ties are in a random order already.
    """
    measured: dict[str, Any] = {f.name: f.value for f in (*ties(s), *repeats(s))}
    if measured["copies"]:
        yield COPIES.format(measured["copies"])
    if s.baskets is None and (measured["ties"] or 0) > 0.05 and not random:
        yield TIES.format(measured["ties"], measured["last_item_ties"])


def repeats(s: Sequences) -> Iterator[Finding]:
    """Events whose item the user has taken before, and exact duplicates."""
    user = np.repeat(np.arange(s.users), s.lengths)
    pairs = len(distinct(user * len(s.item_catalogue) + s.items))
    yield Finding("repeats", 1 - pairs / s.events, "share of events whose item the user has taken before")
    duplicates = copies = None
    if s.times is not None:
        event = np.sort(moments(s, s.times) * len(s.item_catalogue) + s.items)
        counts = np.diff(np.flatnonzero(np.diff(event, prepend=-1, append=-1)))
        duplicates, copies = s.events - len(counts), int(counts.min()) if counts.min() > 1 else 0
    yield Finding("duplicates", duplicates, "events with the user, item and time of another")
    yield Finding("copies", copies, "how often every event stands in the log, if more than once; else 0")


def baskets(s: Sequences) -> Iterator[Finding]:
    """How many baskets there are, how large they are, and how much of them was bought before; nothing of a
    log without baskets."""
    if s.baskets is None:
        return
    starts = starts_of(s.offsets, s.baskets)
    size = np.diff(np.append(starts, s.events))
    per_user = np.diff(np.searchsorted(starts, s.offsets))
    yield Finding("baskets", len(starts), "baskets: neighbouring events that were taken together")
    yield Finding("baskets_mean", float(per_user[s.lengths > 0].mean()), "baskets of a user: the mean")
    yield Finding("basket_size_median", float(np.median(size)), "events of a basket: the median")
    yield Finding("basket_size_mean", float(size.mean()), "the mean")
    yield Finding(
        "basket_size_p95", float(np.quantile(size, 0.95)), "95% of the baskets are at most this large"
    )
    yield Finding("basket_size_max", int(size.max()), "the largest basket")
    basket = np.repeat(np.arange(len(starts)), size)
    user = np.repeat(np.arange(s.users), s.lengths)
    pair = user * len(s.item_catalogue) + s.items
    order = np.argsort(pair, kind="stable")
    new = np.ones(s.events, dtype=bool)
    new[1:] = np.diff(pair[order]) != 0
    earliest = basket[order][new][np.cumsum(new) - 1]  # the first basket with that item of that user
    again = np.empty(s.events, dtype=bool)
    again[order] = basket[order] > earliest
    later = basket > np.searchsorted(starts, s.offsets)[user]
    share = float(again[later].mean()) if later.any() else None
    yield Finding(
        "basket_repeats",
        share,
        "share of the events after a user's first basket whose item is in an earlier one",
    )


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
        if queries.offsets is not None:
            history = split.query(queries)
            pairs = np.stack(distinct_seen(history))
            number = np.repeat(np.arange(len(queries)), np.diff(queries.first_targets))
            span = len(s.item_catalogue)
            known = np.isin(number * span + split.targets(queries), pairs[0] * span + pairs[1])
            yield Finding(
                f"{name}.{role}_repeats",
                float(known.mean()) if len(known) else None,
                f"share of {role} targets that are in the history; the others explore",
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
    """How often common n-grams occur, before and after shuffling: see the top of the file."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(s.users), s.lengths)
    second = None if s.times is None else moments(s, np.floor(s.times))
    chooses = (rng.random(s.users) < 0.5)[user]
    times = max(1, min(SHUFFLES, 10_000_000 // s.events))
    orders = [shuffled(s.items, user, rng) for _ in range(times)]
    of_ties = [] if second is None else [shuffled(s.items, second, rng) for _ in range(times)]
    for n in (2, 3):
        before, *after = occurrences(s.items, [s.items, *orders, *of_ties], user, chooses, n)
        everything, ties = after[:times], after[times:]
        yield Finding(
            f"{n}grams",
            common_ngrams(s.items, user, n),
            f"different {n}-grams of items that at least {SUPPORT} users have",
        )
        yield Finding(
            f"{n}grams_counted",
            before,
            f"how often {n}-grams that half of the users choose occur among the others",
        )
        yield Finding(
            f"{n}grams_lost",
            1 - float(np.mean(everything)) / before if before else None,
            f"share of the occurrences of common {n}-grams lost by shuffling each user's events: "
            "near 0, order tells nothing; near 1, much",
        )
        yield Finding(
            f"{n}grams_lost_in_ties",
            1 - float(np.mean(ties)) / before if ties and before else None,
            "share of them lost by shuffling only events of the same second",
        )


def occurrences(
    items: np.ndarray, orders: list[np.ndarray], user: np.ndarray, chooses: np.ndarray, n: int
) -> list[int]:
    """How often each order of the events has n-grams that are common in ``items``.

    Either half of the users chooses them (``SUPPORT_OF_HALF`` of its users have them) for the other half,
    which is counted; the sum of both.

    Args:
        items: (events,) in their own order.
        orders: arrays (events,), the items of each user in other orders.
        user: (events,) whose event, ascending.
        chooses: (events,) whether the user is of the first half.
    """
    begin = np.arange(max(0, len(items) - n + 1))
    begin = begin[user[begin] == user[begin + n - 1]] if len(begin) else begin
    span, first = int(items.max(initial=0)) + 1, chooses[begin]
    # a number an n-gram; of huge catalogues it wraps, and two n-grams in billions may share one
    powers = np.array([pow(span, n - 1 - step, 1 << 64) for step in range(n)], dtype=np.uint64)

    def numbers(of: np.ndarray) -> np.ndarray:
        found = np.zeros(len(begin), dtype=np.uint64)
        for step in range(n):
            found += of[begin + step].astype(np.uint64) * powers[step]
        return found

    own, found = numbers(items), [0] * len(orders)
    others = [own if of is items else numbers(of) for of in orders]
    for half in (first, ~first):
        # once a user: sorted by n-gram, then user
        by = np.lexsort((user[begin][half], own[half]))
        run, who = own[half][by], user[begin][half][by]
        new = np.ones(len(run), dtype=bool)
        new[1:] = (np.diff(run) != 0) | (np.diff(who) != 0)
        known, count = np.unique(run[new], return_counts=True)
        known = known[count >= SUPPORT_OF_HALF]
        for index, other in enumerate(others):
            found[index] += int(np.isin(other[~half], known).sum())
    return found


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
    """What to beware of, in words, most important first, given the values of the findings by name."""
    lost, sessions = value["2grams_lost"], value["spans_median"]
    times = value["first_time"] is not None
    if (value["ties"] or 0) > 0.05:
        yield TIES.format(value["ties"], value["last_item_ties"])
    if value["copies"]:
        yield COPIES.format(value["copies"])
    elif value["duplicates"]:
        yield (
            f"{value['duplicates']:,} events are exact duplicates (user, item and time): "
            "data.duplicates=drop keeps one of each."
        )
    if not times:
        yield "No times: splits in time are impossible, and leaks from the future cannot be measured."
    elif value["early_times"]:
        yield (
            f"{value['early_times']:.0%} of the events are before 1980 (the first: {value['first_time']}): "
            "the times may be no seconds since 1970, or missing ones were written as 0. Check the column, "
            "or leave it out with --column timestamp=."
        )
    if (value["repeats"] or 0) > 0.1:
        yield (
            f"Users return to items ({value['repeats']:.0%} of the events): filtering seen items hides right "
            "answers. Also look at unfiltered results (evaluate.filter_seen=false)."
        )
    wrong = bool(value["early_times"])
    if sessions is not None and sessions < DAY and value["length_median"] <= 20 and not wrong:
        yield (
            "Most users come for less than a day and have few events: they are sessions rather than people. "
            "split.name=session_temporal trains on earlier sessions and tests on later ones."
        )
    elif (value.get("leave_one_out.later") or 0) > 0.05:
        yield (
            f"Leave-one-out trains on events later than those it tests ({value['leave_one_out.later']:.0%}): "
            "also use a split in time (split.name=global_temporal)."
        )
    for name, queries in value.items():
        if name.endswith(".test_queries") and queries is not None and queries < FEW:
            split = name.removesuffix(".test_queries")
            yield (
                f"{split} has only {queries:,} test queries, too few to tell models apart. Take another "
                "split, or ask about more events (last_n with split.n, user_holdout, or an earlier "
                "split.test_cut)."
            )
    if lost is None:
        yield "No items that follow each other are common among users: whether order matters cannot be told."
    elif lost < LITTLE or lost * value["2grams_counted"] < 3 * value["2grams_counted"] ** 0.5:
        yield (
            f"Shuffling loses {max(0.0, lost):.0%} of the common 2-grams, no more than chance may: "
            "order matters little here, and sequential models may gain little."
        )
    else:
        yield f"Order matters: shuffling loses {lost:.0%} of the common 2-grams."
