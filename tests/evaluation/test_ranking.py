"""Exact evaluation against a slow and obvious one: sort everything in Python."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec import models
from seqrec.data.catalogue import Catalogue
from seqrec.data.query import Query
from seqrec.errors import DataError, TrainingError
from seqrec.evaluation import metrics, ranking
from seqrec.models.hrm import HRM
from seqrec.models.model import Model
from seqrec.models.popularity import Popularity
from seqrec.models.sasrec import SASRec
from seqrec.scoring import best
from seqrec.settings.base import Settings
from seqrec.splitting.last_n import last_n
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.splitting.split import Queries, Split
from seqrec.testing import markov_chain, sequences_of, small_log
from seqrec.topk import Filter


class NoSettings(Settings):
    pass


class Arbitrary(Model):
    """Scores that depend on the history in no sensible way, with as many ties as there are few levels."""

    name = "arbitrary"
    Settings = NoSettings

    def __init__(self, items: int, levels: int):
        super().__init__()
        self.items, self.levels = items, levels

    def fit_split(self, split, on):
        pass

    def one(self, history: np.ndarray) -> np.ndarray:
        return (
            np.random.default_rng([len(history), *history.tolist()])
            .integers(0, self.levels, self.items)
            .astype(np.float32)
        )

    def score(self, histories: Query) -> torch.Tensor:
        rows = [self.one(histories.at(i)) for i in range(len(histories))]
        return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, self.items)

    def state(self):
        return {}

    def load_state(self, state, items, users):
        pass


def slowly(
    model: Arbitrary, history: list[int], target: int
) -> tuple[int, int, int, int, list[int], list[int]]:
    """(filtered rank, unfiltered rank, ties filtered, ties unfiltered, filtered list, unfiltered list) of one
    query."""
    scores = model.one(np.array(history, dtype=np.int32)).tolist()
    everything = sorted(range(model.items), key=lambda item: (-scores[item], item))
    unseen = [item for item in everything if item not in history]
    filtered = (
        metrics.rank_of_miss(model.items)
        if target in history
        else 1 + sum(scores[i] >= scores[target] for i in unseen if i != target)
    )
    unfiltered = 1 + sum(scores[i] >= scores[target] for i in everything if i != target)
    ties, ties_unfiltered = (
        sum(scores[i] == scores[target] for i in candidates if i != target)
        for candidates in (unseen, everything)
    )
    k = ranking.LONGEST_LIST
    return filtered, unfiltered, ties, ties_unfiltered, unseen[:k], everything[:k]


def check(split: Split, model: Arbitrary) -> None:
    ranks = ranking.rank(model, split, split.test)
    width = min(ranking.LONGEST_LIST, model.items)
    for i, (target, user) in enumerate(zip(split.test.targets, split.test.users)):
        history = split.sequences.items[split.sequences.offsets[user] : target].tolist()
        filtered, unfiltered, ties, ties_unfiltered, filtered_list, unfiltered_list = slowly(
            model, history, int(split.sequences.items[target])
        )
        assert (ranks.filtered[i], ranks.unfiltered[i], ranks.users[i]) == (filtered, unfiltered, user)
        assert (ranks.ties[i], ranks.ties_unfiltered[i]) == (ties, ties_unfiltered)
        assert ranks.lists[i].tolist() == filtered_list + [-1] * (width - len(filtered_list))
        assert ranks.lists_unfiltered[i].tolist() == unfiltered_list
    without_lists = ranking.rank(model, split, split.test, lists=False)
    np.testing.assert_array_equal(without_lists.filtered, ranks.filtered)
    np.testing.assert_array_equal(without_lists.unfiltered, ranks.unfiltered)


@settings(max_examples=60, deadline=None)
@given(
    lists=st.lists(st.lists(st.integers(0, 8), min_size=3, max_size=15), min_size=1, max_size=6),
    levels=st.integers(1, 12),
    spare=st.sampled_from([0, 1, 70]),
)
def test_ranks_and_lists_are_the_obvious_ones(lists: list[list[int]], levels: int, spare: int):
    """Repeated targets, seen items, ties (all alike with one level) and catalogues smaller than a list."""
    items = 9 + spare
    check(leave_one_out(sequences_of([np.array(x) for x in lists], items)), Arbitrary(items, levels))


def test_several_targets_of_one_user():
    rng = np.random.default_rng(0)
    sequences = sequences_of([rng.integers(0, 50, 12) for _ in range(20)], 50)
    check(last_n(sequences, 3), Arbitrary(50, 10))


def slowly_sets(model: Arbitrary, history: list[int], targets: list[int], filter_seen: bool) -> list[int]:
    """The rank of each right answer: those of one score come after all else with that score, one by one."""
    scores = model.one(np.array(history, dtype=np.int32)).tolist()
    left = [i for i in range(model.items) if not (filter_seen and i in history)]
    order = sorted(left, key=lambda i: (-scores[i], i in targets, targets.index(i) if i in targets else i))
    return [order.index(t) + 1 if t in order else metrics.rank_of_miss(model.items) for t in targets]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    levels=st.integers(1, 12),
    items=st.sampled_from([9, 40]),
    rows=st.integers(1, 4),
)
def test_queries_with_several_right_answers(seed: int, levels: int, items: int, rows: int):
    rng = np.random.default_rng(seed)
    sequences = sequences_of([rng.integers(0, items, rng.integers(4, 15)) for _ in range(6)], items)
    ends = sequences.offsets[1:]
    split = leave_one_out(sequences)
    sets = Queries.sets(sequences, ends - rng.integers(1, 4, len(ends)), ends)
    model = Arbitrary(items, levels)
    ranks = ranking.rank(model, split, sets, rows=rows)
    assert len(ranks.lists) == len(ranks.users) == len(sets)
    for i in range(len(sets)):
        history = sequences.items[sequences.offsets[sets.users[i]] : sets.history_stops[i]].tolist()
        part = slice(sets.offsets[i], sets.offsets[i + 1])
        targets = sequences.items[sets.targets[part]].tolist()
        assert len(set(targets)) == len(targets)
        assert ranks.unfiltered[part].tolist() == slowly_sets(model, history, targets, False)
        assert ranks.filtered[part].tolist() == slowly_sets(model, history, targets, True)
        assert ranks.repeated[part].tolist() == [t in history for t in targets]
        assert ranks.lists[i].tolist() == slowly(model, history, targets[0])[4] + [-1] * (
            ranks.lists.shape[1] - len(slowly(model, history, targets[0])[4])
        )


def test_one_right_answer_is_the_special_case():
    split = leave_one_out(small_log())
    model = Arbitrary(31, 6)
    one = ranking.rank(model, split, split.test)
    last = split.test.targets
    sets = ranking.rank(model, split, Queries.sets(split.sequences, last, last + 1))
    for field in ("filtered", "unfiltered", "ties", "ties_unfiltered", "lists", "lists_unfiltered", "users"):
        np.testing.assert_array_equal(getattr(sets, field), getattr(one, field))
    for name, values in one.metrics(True).items():
        assert sets.metrics(True)[name].tolist() == values.tolist()


def test_answers_that_repeat_and_those_that_explore_are_told_apart():
    """User 0 has had a and b; of {a, c, b} two repeat. User 1 has had neither of {c, d}."""
    ranks = ranking.Ranks(
        *(np.array([30, 1, 12, 2, 4]) + shift for shift in (1, 0)),
        *(np.arange(4, dtype=np.int32).reshape(2, 2) for _ in range(2)),
        *(np.arange(5) for _ in range(2)),
        np.array([0, 1]),
        np.array([0, 3, 5]),
        np.array([True, False, True, False, False]),
    )
    repeat, explore = ranks.apart().values()
    assert (repeat.unfiltered.tolist(), repeat.offsets.tolist()) == ([30, 12], [0, 2])
    assert (repeat.users.tolist(), repeat.lists.tolist()) == ([0], [[0, 1]])
    assert (explore.filtered.tolist(), explore.offsets.tolist()) == ([2, 3, 5], [0, 1, 3])
    assert explore.users.tolist() == [0, 1]
    assert explore.ties.tolist() == [1, 3, 4]
    # by hand: of c alone the recall is 1, of {c, d} too; of {a, b} only within the first 12
    assert explore.metrics(False)["recall@10"].tolist() == [1.0, 1.0]
    assert repeat.metrics(False, (12, 10))["recall@12"].tolist() == [0.5]


def test_sets_are_of_one_user_each():
    sequences = small_log()
    ends = sequences.offsets[1:]
    with pytest.raises(DataError, match="starts, stops: expected runs of events, in order, each of one user"):
        Queries.sets(sequences, ends[:1] - 1, ends[:1] + 1)
    with pytest.raises(DataError, match="Got"):
        Queries.sets(sequences, ends[:1], ends[:1])


@pytest.mark.parametrize("offsets", [[0, 1, 1, 2], [1, 2], [0, 2, 2], [0, 1, 3]])
def test_every_query_has_a_target(offsets: list[int]):
    with pytest.raises(DataError, match=r"offsets: expected \d numbers that rise from 0 to 2"):
        Queries(
            np.array([3, 6]),
            np.zeros(len(offsets) - 1, int),
            np.zeros(len(offsets) - 1, int),
            np.array(offsets),
        )


@pytest.mark.parametrize("restricted", [{"allow": np.arange(12)}, {"deny": np.arange(5)}])
def test_candidates_that_are_not_ranked(restricted: dict[str, np.ndarray]):
    split = leave_one_out(small_log())
    model = Arbitrary(31, 6)
    ranks = ranking.rank(model, split, split.test, candidates=Filter(**restricted))
    out = set(range(12, 31)) if "allow" in restricted else set(range(5))
    for i, (target, user) in enumerate(zip(split.test.targets, split.test.users)):
        history = split.sequences.items[split.sequences.offsets[user] : target]
        scores, item = model.one(history), int(split.sequences.items[target])
        expected = sum(scores[j] >= scores[item] for j in range(31) if j not in out)
        assert ranks.unfiltered[i] == (metrics.rank_of_miss(31) if item in out else expected)
        assert not out & set(ranks.lists[i].tolist())


def test_a_refused_target_does_not_stand_behind_its_equals():
    class Fixed(Arbitrary):
        def one(self, history):
            return np.array([1, 1, 5, 5, 3], dtype=np.float32)

    split = leave_one_out(sequences_of([np.array([0, 1, 2, 3]), np.array([4, 0, 1, 2])], 5))
    queries = Queries.sets(split.sequences, np.array([2]), np.array([4]))
    ranks = ranking.rank(Fixed(5, 1), split, queries, candidates=Filter(deny=np.array([3])))
    assert ranks.unfiltered.tolist() == ranks.filtered.tolist() == [1, metrics.rank_of_miss(5)]
    assert ranks.ties.tolist() == ranks.ties_unfiltered.tolist() == [0, 1]  # the refused one with the other
    assert ranks.metrics(True)["ndcg@5"][0] == pytest.approx(1 / (1 + 1 / np.log2(3)))


def test_a_refused_target_has_no_ties_of_its_own():
    split = leave_one_out(small_log())
    denied = np.unique(split.targets(split.test))
    ranks = ranking.rank(Arbitrary(31, 6), split, split.test, candidates=Filter(deny=denied))
    assert (ranks.ties >= 0).all()
    assert (ranks.ties_unfiltered >= 0).all()


def test_a_query_has_each_target_once():
    split = leave_one_out(sequences_of([np.array([0, 1, 2, 2])], 5))
    twice = Queries(np.array([2, 3]), np.array([0]), np.array([2]), np.array([0, 2]))
    with pytest.raises(DataError, match=r"targets: expected each item once in a query\. Got item .i2. twice"):
        ranking.rank(Arbitrary(5, 1), split, twice)


@pytest.mark.parametrize("cls", [SASRec, HRM])
def test_a_large_catalogue_is_ranked_in_blocks(cls: type[Model]):
    """With small whole numbers as weights every product is exact, whatever the blocks: ties are ties."""
    items = 20_000
    rng = np.random.default_rng(0)
    split = leave_one_out(sequences_of([rng.integers(0, items, 6) for _ in range(40)], items))
    model = cls(width=4, train={"epochs": 1}).fit(split, progress=False, device="cpu")
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.copy_(torch.from_numpy(rng.integers(-2, 3, weight.shape)))
    query = split.query(split.test)
    (some,) = model.score_blocks(query)
    assert len(some.blocks) == 1  # 40 rows
    expected = ranking.rank(model, split, split.test)
    narrow = Blocks(model, 512)
    got = ranking.rank(narrow, split, split.test)
    assert (expected.ties > 0).any()
    for field in ("filtered", "unfiltered", "ties", "ties_unfiltered", "lists", "lists_unfiltered"):
        np.testing.assert_array_equal(getattr(got, field), getattr(expected, field))
    assert np.array_equal(best(narrow, query, 50).items, best(model, query, 50).items)


class Blocks:
    """Another model, in blocks of so many items."""

    name = "blocks"

    def __init__(self, model: Model, width: int):
        self.model, self.width = model, width

    def numbering(self):
        return {}

    def score_blocks(self, query: Query, rows: int = 512):
        for some in self.model.score_blocks(query, rows):
            edges = [*range(0, some.items, self.width), some.items]
            yield replace(some, edges=edges)


def test_worked_example():
    # history 0 1, target 2; scores 3 2 2 2 1: the target ties with 1 (seen) and 3, and takes the worst place
    # of them
    class Fixed(Arbitrary):
        def one(self, history):
            return np.array([3, 2, 2, 2, 1], dtype=np.float32)

    split = leave_one_out(sequences_of([np.array([0, 1, 2]), np.array([4, 4, 0])], 5))
    ranks = ranking.rank(Fixed(5, 1), split, split.test)
    assert ranks.unfiltered.tolist() == [4, 1]
    assert ranks.filtered.tolist() == [2, 1]
    assert ranks.ties.tolist() == [1, 0]
    assert ranks.ties_unfiltered.tolist() == [2, 0]
    assert ranks.lists.tolist() == [[2, 3, 4, -1, -1], [0, 1, 2, 3, -1]]
    assert ranks.headline(True) is ranks.filtered
    assert ranks.headline(False) is ranks.unfiltered


@pytest.mark.parametrize("rows", [1, 7, 10_000])
def test_ranks_do_not_depend_on_how_many_are_scored_at_once(rows: int):
    split = leave_one_out(small_log())
    model = Arbitrary(31, 6)
    expected = ranking.rank(model, split, split.test)
    got = ranking.rank(model, split, split.test, rows=rows)
    for field in ("filtered", "unfiltered", "ties", "ties_unfiltered", "lists", "lists_unfiltered", "users"):
        np.testing.assert_array_equal(getattr(got, field), getattr(expected, field))


def test_metrics_of_a_neural_model_do_not_depend_on_how_many_are_scored_at_once():
    split = leave_one_out(markov_chain(users=200, length=25))
    # histories of many lengths, so that padding differs
    lengths = np.random.default_rng(0).integers(3, 26, 200)
    sequences = sequences_of([split.sequences.of(u)[:n] for u, n in enumerate(lengths)], 40)
    split = leave_one_out(sequences)
    model = SASRec(width=8, length=20, train={"epochs": 1})
    model.fit(split)
    means = []
    for rows in (1, 33, 512):
        ranks = ranking.rank(model, split, split.test, rows=rows)
        means.append({name: value.mean() for name, value in metrics.from_ranks(ranks.filtered).items()})
    for other in means[1:]:
        assert other == pytest.approx(means[0], abs=1e-6)


def test_scores_that_are_no_numbers_are_refused():
    class Diverged(Arbitrary):
        def one(self, history):
            return np.full(self.items, np.nan, dtype=np.float32)

    split = leave_one_out(small_log())
    with pytest.raises(TrainingError, match="arbitrary: scores are not finite"):
        ranking.rank(Diverged(31, 1), split, split.test)


def test_targets_never_trained_on_count_as_misses_where_the_protocol_says_so():
    # item 3 is nobody's training item; popularity gives it rank 4 of 4 otherwise
    split = leave_one_out(sequences_of([np.array([0, 1, 2, 3]), np.array([1, 0, 2, 2])], 4))
    model = Popularity()
    model.fit(split)
    ordinary = ranking.rank(model, split, split.test)
    assert ordinary.unfiltered[0] == 4
    ranks = ranking.rank(model, replace(split, cold_targets_miss=True), split.test)
    assert ranks.unfiltered[0] == ranks.filtered[0] == metrics.rank_of_miss(4)


def test_a_model_is_not_asked_under_other_ids():
    """The same log with its ids as text: the split has the same hash, but sorted text numbers items
    otherwise."""
    sequences = small_log()
    as_text = replace(sequences, item_catalogue=Catalogue(sequences.item_catalogue.ids.cast(pl.String)))
    renumbered = replace(sequences, item_catalogue=Catalogue(sequences.item_catalogue.ids.reverse()))
    other_users = replace(sequences, user_catalogue=Catalogue(sequences.user_catalogue.ids.reverse()))
    model = models.get("markov")().fit(leave_one_out(sequences))
    expected = ranking.rank(model, leave_one_out(sequences), leave_one_out(sequences).test).filtered
    split = leave_one_out(as_text)  # in the same order: the same
    assert np.array_equal(ranking.rank(model, split, split.test).filtered, expected)
    for other, kind in ((renumbered, "item"), (other_users, "user")):
        split = leave_one_out(other)
        with pytest.raises(DataError, match=f"{kind} ids: expected those that markov was trained on"):
            ranking.rank(model, split, split.test)


def test_a_miss_in_a_small_catalogue_is_no_hit():
    split = leave_one_out(sequences_of([np.array([0, 1, 2]), np.array([4, 3, 4])], 5))
    found = ranking.rank(Popularity().fit(split), split, split.test).metrics(True, (20,))
    assert found["recall@20"].tolist() == [1, 0]
    assert found["ndcg@20"][1] == found["mrr@20"][1] == 0


def test_targets_that_were_seen():
    split = leave_one_out(sequences_of([np.array([0, 1, 2]), np.array([4, 3, 4])], 5))
    ranks = ranking.rank(Popularity().fit(split), split, split.test)
    assert (ranks.filtered > 5).tolist() == [False, True]  # out of the ranking: beyond its last place
    assert (ranks.unfiltered <= 5).all()
