"""The contract of a model as tests that anyone can run over their own.

With pytest, a class of a few lines:

    class TestMyModel(seqrec.testing.ModelContract):
        def make_model(self):
            return MyModel(width=8, train={"epochs": 5})

or without pytest, ``seqrec.testing.check_model(lambda: MyModel(...))``. Each test states one promise. The
last three are about learning: a floor on data with a known answer, a ceiling on noise, and no influence of
events outside training. Keep the model small: the data are small.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch

from seqrec.data.catalogue import Catalogue
from seqrec.data.query import Query
from seqrec.data.sequences import Sequences
from seqrec.errors import SeqrecError, SettingsError, UnknownIdError
from seqrec.evaluation import metrics, ranking
from seqrec.models.model import Model
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.splitting.split import Queries, Split
from seqrec.training.options import FitOptions


def sequences_of(lists: list[np.ndarray], items: int) -> Sequences:
    """Sequences of these item indices, one user each.

    Raw item ids are ``i0, i1, ...``, raw user ids 100, 101, ... Items have the attributes ``kind`` (one of
    three texts) and ``tags`` (several in a cell, or none), users ``group`` (a number, or none).

    Args:
        lists: one (events,) array of item indices per user.
        items: size of the catalogue.
    """
    offsets = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
    number, user = np.arange(items), np.arange(len(lists))
    tags = [None if i % 7 == 6 else "|".join(f"t{i % n}" for n in (2, 5)) for i in range(items)]
    about_items = pl.DataFrame(
        {"kind": [f"k{i % 3}" for i in range(items)], "tags": tags},
        schema={"kind": pl.String, "tags": pl.String},
    )
    about_users = pl.DataFrame(
        {"group": [None if u % 9 == 8 else u % 4 for u in range(len(lists))]}, schema={"group": pl.Int64}
    )
    item_catalogue = Catalogue([f"i{i}" for i in number], about_items)
    return Sequences(
        np.concatenate(lists).astype(np.int32),
        offsets,
        item_catalogue,
        Catalogue((100 + user).tolist(), about_users),
    )


def markov_chain(
    users: int = 300, length: int = 12, items: int = 40, order: int = 1, noise: float = 0.1, seed: int = 0
) -> Sequences:
    """Sequences in which each item follows from the ``order`` items before it, but for a share of noise.

    With order 1 the items form a ring in random order and each is followed by its neighbour, so no item comes
    twice soon; with a higher order every context has its own successor, and a shorter context tells nothing
    about it. A noisy item is drawn uniformly. All items are about equally popular.
    """
    rng = np.random.default_rng(seed)
    if order == 1:
        ring = rng.permutation(items)
        successor = np.empty(items, dtype=np.int64)
        successor[ring] = np.roll(ring, -1)
    else:
        # A Latin square (cube ...): with one item of the context unknown, every item is an equally likely
        # successor.
        numbers = [
            rng.permutation(items).reshape([-1 if axis == i else 1 for axis in range(order)])
            for i in range(order)
        ]
        successor = rng.permutation(items)[sum(numbers) % items]
    lists = []
    for _ in range(users):
        sequence = rng.integers(0, items, order).tolist()
        while len(sequence) < length:
            sequence.append(
                int(rng.integers(items)) if rng.random() < noise else int(successor[tuple(sequence[-order:])])
            )
        lists.append(np.array(sequence))
    return sequences_of(lists, items)


def uniform_noise(users: int = 400, length: int = 12, items: int = 40, seed: int = 0) -> Sequences:
    """Sequences of items drawn uniformly and independently: nothing can be learnt."""
    return sequences_of(list(np.random.default_rng(seed).integers(0, items, (users, length))), items)


def small_log(seed: int = 0) -> Sequences:
    """60 users of 1 to 20 events over 30 items of skewed popularity, and a 31st that nobody ever has."""
    rng = np.random.default_rng(seed)
    p = 1 / np.arange(1, 31)
    return sequences_of([rng.choice(30, rng.integers(1, 21), p=p / p.sum()) for _ in range(60)], 31)


def awkward_query(split: Split) -> Query:
    """Histories that models get wrong: empty, of one item, longer than any in training; and ordinary ones.

    Some are of known users, some of unknown ones.
    """
    rng = np.random.default_rng(1)
    items = len(split.sequences.item_catalogue)
    lists = [
        np.empty(0, np.int32),
        np.array([3]),
        rng.integers(0, items, 1200),
        np.empty(0, np.int32),
        np.array([2, 2, 2]),
        np.array([items - 1]),
    ]
    lists += [split.sequences.of(user) for user in range(8)]
    return Query.from_lists(lists, np.array([-1, -1, 0, 1, 2, -1, *range(4), -1, -1, -1, -1], dtype=np.int32))


def _rows(attributes: pl.DataFrame | None, rows: np.ndarray) -> pl.DataFrame | None:
    return None if attributes is None else attributes[rows]


def _expect(error: type[Exception], naming: str, call: Callable[[], Any]) -> None:
    message = None
    try:
        call()
    except error as raised:
        message = str(raised)
    assert message is not None, f"expected {error.__name__}, but nothing was raised"
    assert naming in message, f"the message of the error does not name {naming!r}: {message}"


class ModelContract:
    """Tests of one model. Subclass it as ``Test...`` and give ``make_model``.

    Attributes:
        sequential: False for models that do not look at the history: they need not reach the floor.
        order: how many of the last items the next one depends on in the data of the floor. Above 1 the items
            are few (12), the sequences long.
        floor: recall@3 that must be reached there; chance is .08 (order 1) or .25.
        on: how it is fitted: seed, device and the like.
    """

    sequential: bool = True
    order: int = 1
    floor: float = 0.6
    on: FitOptions = FitOptions()
    _cached: ClassVar[tuple[Model, Split]]

    def make_model(self) -> Model:
        """A new, untrained model; every call gives one with the same settings."""
        raise NotImplementedError

    # -- what the tests share

    def _fit(self, split: Split) -> Model:
        model = self.make_model()
        model.fit(split, self.on)
        return model

    def _fitted(self) -> tuple[Model, Split]:
        """A model trained on the small log, once a class."""
        cls = type(self)
        if "_cached" not in cls.__dict__:
            split = leave_one_out(small_log())
            cls._cached = (self._fit(split), split)
        return cls._cached

    # -- scores

    def test_scores_are_finite_and_of_the_right_shape(self) -> None:
        """Scores are (histories, items) float32 and finite, for any history."""
        model, split = self._fitted()
        histories = awkward_query(split)
        for h in (
            histories,
            replace(histories, users=None),
            histories.select(np.array([0])),
            histories.select(np.arange(0)),
        ):
            scores = model.score(h)
            assert scores.shape == (len(h), len(split.sequences.item_catalogue)), (
                f"expected (histories, items). Got {tuple(scores.shape)}"
            )
            assert scores.dtype == torch.float32, f"expected float32. Got {scores.dtype}"
            assert torch.isfinite(scores).all(), "a score is not finite"

    def test_scores_tell_items_apart_without_a_history(self) -> None:
        """Without a history the scores still rank the items."""
        model, _ = self._fitted()
        scores = model.score(Query.from_lists([np.empty(0, np.int32)]))
        assert scores.min() < scores.max(), (
            "an empty history of an unknown user scores all items alike; back off to popularity"
        )

    def test_a_history_alone_scores_as_in_a_batch(self) -> None:
        """A history's scores do not depend on the other histories of its batch."""
        model, split = self._fitted()
        histories = awkward_query(split)
        together = model.score(histories)
        for row in range(len(histories)):
            torch.testing.assert_close(
                model.score(histories.select(np.array([row])))[0], together[row], atol=1e-5, rtol=1e-5
            )
        for some in model.score_blocks(histories, 3):
            expected = together[torch.from_numpy(some.rows)]
            for begin, end in some.blocks:
                scores = some.block(begin, end)
                torch.testing.assert_close(scores, expected[:, begin:end], atol=1e-5, rtol=1e-5)

    def test_scores_belong_to_the_caller(self) -> None:
        """The caller may write into the scores without changing the model."""
        model, split = self._fitted()
        histories = awkward_query(split)
        for h in (histories, histories.select(np.array([1]))):
            first = model.score(h)
            kept = first.clone()
            first[:] = -torch.inf  # as the filter of seen items does
            assert torch.equal(model.score(h), kept), (
                "writing into the scores changed the model, or scoring is random"
            )

    # -- recommending

    def test_recommend_with_raw_ids(self) -> None:
        """``recommend`` takes and gives raw ids, best item first, without seen items."""
        model, _ = self._fitted()
        sequences = [["i1", "i2", "i3"], [], ["i5"]]
        found = model.recommend(sequences=sequences, k=4)
        assert found.columns == ["query", "item_id", "score", "rank", "source"], (
            f"got the columns {found.columns}"
        )
        assert found["query"].to_list() == [0] * 4 + [1] * 4 + [2] * 4
        assert found["rank"].to_list() == [1, 2, 3, 4] * 3
        for query, rows in found.partition_by("query", as_dict=True).items():
            assert rows["score"].is_sorted(descending=True), "not sorted by score"
            assert rows["item_id"].n_unique() == 4, "an item comes twice"
            assert not set(rows["item_id"]) & set(sequences[query[0]]), (
                "an item of the history is recommended, with filter_seen=True"
            )
        best = model.score(Query.from_lists([np.array([5])]))
        assert (
            model.recommend(sequences=[["i5"]], k=1, filter_seen=False)["score"].item() == best.max().item()
        )
        alone = model.recommend(sequences=[sequences[0]], k=4)
        np.testing.assert_allclose(
            alone["score"].to_numpy(), found["score"].to_numpy()[:4], atol=1e-5, rtol=1e-5
        )

    def test_recommend_more_than_there_is(self) -> None:
        """A k beyond the catalogue gives every item that may be recommended: all but those of which the model
        says that it has learned nothing (``Model.unlearned``)."""
        model, split = self._fitted()
        catalogue = split.sequences.item_catalogue
        assert not split.item_counts[model.unlearned].any(), "nothing was learned of an item of the log"
        ids = set(catalogue.ids) - set(catalogue.decode(model.unlearned))
        found = model.recommend(sequences=[["i1", "i2", "i1"]], k=len(catalogue) + 5)
        assert len(found) == len(ids) - 2, "expected every item but the seen ones"
        assert set(found["item_id"]) == ids - {"i1", "i2"}
        everything = model.recommend(sequences=[["i1", "i2", "i1"]], k=len(catalogue) + 5, filter_seen=False)
        assert sorted(everything["item_id"]) == sorted(ids)

    def test_recommend_for_unknown_items(self) -> None:
        """Unknown items raise, warn or are ignored, as ``on_unknown`` says."""
        model, _ = self._fitted()
        unknown = [["i1", "no such item"], ["neither"]]
        _expect(UnknownIdError, "no such item", lambda: model.recommend(sequences=unknown, k=3))
        known = model.recommend(sequences=[["i1"], []], k=3)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert model.recommend(sequences=unknown, k=3, on_unknown="ignore").equals(known)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert model.recommend(sequences=unknown, k=3, on_unknown="warn").equals(known)
        assert any("no such item" in str(w.message) for w in caught), (
            "on_unknown='warn' did not warn of the unknown item"
        )
        _expect(
            SettingsError, "on_unknown", lambda: model.recommend(sequences=unknown, k=3, on_unknown="perhaps")
        )

    def test_of_whom_nothing_is_known_gets_the_most_popular(self) -> None:
        """An empty history of nobody gets the items with most training events, and ``source`` says so, unless
        the model knows better (``Model.knows``)."""
        model, split = self._fitted()
        found = model.recommend(sequences=[["i1"], []], k=5)
        assert found["source"].head(5).to_list() == ["model"] * 5, "a known item counts for nothing"
        rows = found.filter(query=1)
        if set(rows["source"]) == {"popularity"}:
            ids = split.sequences.item_catalogue.ids
            most = [ids[i] for i in np.argsort(-split.item_counts, kind="stable")[:5].tolist()]
            assert rows["item_id"].to_list() == most, (
                f"an empty history: expected the items with most training events, {most}. Got "
                f"{rows['item_id'].to_list()}; rank them so, or let ``knows`` say that it is known"
            )

    def test_recommend_for_users(self) -> None:
        """Users of the training data are recommended items from their own histories."""
        model, split = self._fitted()
        found = model.recommend(users=[100, 101], k=3)
        assert found.columns == ["user_id", "item_id", "score", "rank", "source"], (
            f"got the columns {found.columns}"
        )
        assert found["user_id"].to_list() == [100] * 3 + [101] * 3
        s = split.sequences
        trained = s.item_catalogue.decode(s.items[s.offsets[0] : split.train_stops[0]])
        assert not set(found["item_id"][:3]) & set(trained), (
            "an item of the user's own training events is recommended, with filter_seen=True"
        )
        _expect(UnknownIdError, "nobody", lambda: model.recommend(users=["nobody"], k=3))
        assert len(model.recommend(users=["nobody"], k=3, on_unknown="ignore")) == 3

    def test_an_untrained_model_says_so(self) -> None:
        """Recommending before ``fit`` is an error that names ``fit``."""
        _expect(SeqrecError, "fit", lambda: self.make_model().recommend(sequences=[["i1"]]))

    # -- settings, saving, seeds

    def test_settings_make_the_same_model_again(self) -> None:
        """``configuration()`` is JSON, and makes a model with the same settings."""
        model = self.make_model()
        configuration = json.loads(json.dumps(model.configuration()))
        assert type(model)(**configuration).configuration() == configuration

    def test_an_unknown_setting_is_refused(self) -> None:
        """An unknown setting is an error that names it."""
        model = self.make_model()
        _expect(
            SettingsError, "no_such_setting", lambda: type(model)(**model.configuration(), no_such_setting=1)
        )

    def test_a_saved_model_scores_the_same(self) -> None:
        """Saving and loading changes neither settings, nor scores, nor recommendations."""
        model, split = self._fitted()
        histories = awkward_query(split)
        with tempfile.TemporaryDirectory() as folder:
            model.save(Path(folder) / "model")
            loaded = type(model).load(Path(folder) / "model", self.on.device)
        assert type(loaded) is type(model)
        assert loaded.configuration() == model.configuration()
        assert torch.equal(loaded.score(histories), model.score(histories)), (
            "scores differ after saving and loading"
        )
        assert loaded.recommend(users=[100], k=3).equals(model.recommend(users=[100], k=3))

    def test_the_same_seed_gives_the_same_scores(self) -> None:
        """Training twice with the same seed gives the same scores."""
        model, split = self._fitted()
        histories = awkward_query(split)
        torch.rand(7), np.random.random(7)  # a model has its own seed: other draws do not matter
        assert torch.equal(self._fit(split).score(histories), model.score(histories)), (
            "two trainings with the same seed differ"
        )

    def test_begins_with_the_earlier_model(self) -> None:
        """A fit that starts from an earlier model has its scores before the first update, whatever numbers
        the ids have now; a model that is not trained by gradient says that it cannot."""
        earlier, split = self._fitted()
        model, histories = self.make_model(), awkward_query(split)
        if "train" not in model.sections:
            _expect(SettingsError, "fit.start", lambda: model.fit(split, self.on, start=earlier))
            return
        model.fit(split, self.on, start=earlier, stop_after=0)
        assert torch.equal(model.score(histories), earlier.score(histories)), (
            "on the log of the earlier model the scores before the first update are not its own"
        )
        s, rng = split.sequences, np.random.default_rng(2)
        items, users = rng.permutation(len(s.item_catalogue)), rng.permutation(s.users)
        renumbered = sequences_of([items.argsort()[s.of(user)] for user in users], len(items))
        about = renumbered.item_catalogue.attributes, renumbered.user_catalogue.attributes
        renumbered = replace(
            renumbered,
            item_catalogue=Catalogue(s.item_catalogue.decode(items), _rows(about[0], items)),
            user_catalogue=Catalogue(s.user_catalogue.decode(users), _rows(about[1], users)),
        )
        other = self.make_model()
        other.fit(leave_one_out(renumbered), self.on, start=earlier, stop_after=0)
        known = Query.from_lists([s.of(user) for user in range(8)], np.arange(8, dtype=np.int32))
        same = Query.from_lists(
            [items.argsort()[s.of(user)] for user in range(8)], users.argsort()[:8].astype(np.int32)
        )
        torch.testing.assert_close(
            other.score(same)[:, items.argsort()], earlier.score(known), atol=1e-5, rtol=1e-5
        )

    # -- learning

    def test_learns_what_follows(self) -> None:
        """On a Markov chain recall@3 reaches the floor."""
        if not self.sequential:
            return
        few = {} if self.order == 1 else {"items": 12, "length": 30}
        split = leave_one_out(markov_chain(order=self.order, **few))
        ranks = ranking.rank(self._fit(split), split, split.test, lists=False).headline(
            filter_seen=self.order == 1
        )
        reached = metrics.recall(ranks, 3).mean()
        assert reached >= self.floor, (
            f"recall@3 on a Markov chain of order {self.order}: expected at least {self.floor}. Got "
            f"{reached:.3f}"
        )

    def test_finds_nothing_in_noise(self) -> None:
        """On noise recall@10 stays within four standard deviations of chance: no target is seen."""
        split = leave_one_out(uniform_noise())
        ranks = ranking.rank(self._fit(split), split, split.test, lists=False)
        items, n, k = len(split.sequences.item_catalogue), len(split.test), 10
        chance = k / items
        ceiling = chance + 4 * (chance * (1 - chance) / n) ** 0.5
        for name, r in (("filtered", ranks.filtered), ("unfiltered", ranks.unfiltered)):
            reached = metrics.recall(r, k).mean()
            assert reached <= ceiling, (
                f"recall@{k} ({name}) on noise: expected at most {ceiling:.3f} (chance is {chance:.3f}). "
                f"Got {reached:.3f}: does it see its targets?"
            )

    def test_events_outside_training_do_not_matter(self) -> None:
        """Changing the events outside training does not change the scores."""
        _, split = self._fitted()
        # Without validation queries, which may rightly choose the number of epochs.
        split = replace(split, validation=Queries.at(split.sequences, np.empty(0, dtype=np.int64)))
        items = split.sequences.items.copy()
        outside = ~split.train_events
        items[outside] = (items[outside] + 7) % len(split.sequences.item_catalogue)
        changed = replace(split, sequences=replace(split.sequences, items=items))
        histories = awkward_query(split)
        assert torch.equal(self._fit(split).score(histories), self._fit(changed).score(histories)), (
            "events outside training changed what was learnt"
        )


def check_model(
    make_model: Callable[[], Model],
    sequential: bool = True,
    order: int = 1,
    floor: float = 0.6,
    on: FitOptions | None = None,
) -> None:
    """Runs every test of ``ModelContract`` over a model.

    Args:
        make_model: gives a new, untrained model with the same settings at every call.
        sequential, order, floor, on: as the attributes of ``ModelContract``.

    Raises:
        AssertionError: a promise is broken; says which.
    """
    attributes = {
        "make_model": lambda _: make_model(),
        "sequential": sequential,
        "order": order,
        "floor": floor,
        "on": on or FitOptions(),
    }
    contract = type("Contract", (ModelContract,), attributes)()
    for name in dir(contract):
        if name.startswith("test_"):
            try:
                getattr(contract, name)()
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error
