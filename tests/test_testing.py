"""The contract suite finds broken models: each of these breaks one promise, and the test of that promise must
say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import Field

from seqrec.data.query import Query
from seqrec.errors import SeqrecError
from seqrec.models.markov import Markov
from seqrec.models.popularity import Popularity
from seqrec.settings.base import Settings
from seqrec.testing import ModelContract, check_model, markov_chain, sequences_of, small_log, uniform_noise


def failures(cls: type, sequential: bool = True) -> set[str]:
    """The names of the tests that fail on a model."""
    contract = type("Contract", (ModelContract,), {"make_model": lambda _: cls(), "sequential": sequential})()
    failed = set()
    for name in dir(contract):
        if name.startswith("test_"):
            try:
                getattr(contract, name)()
            except (AssertionError, SeqrecError):
                failed.add(name)
    return failed


def test_a_good_model_passes():
    check_model(Markov)
    check_model(Popularity, sequential=False)


def test_check_model_names_the_broken_promise():
    with pytest.raises(
        AssertionError,
        match=r"test_learns_what_follows: recall@3 on a Markov chain of order 1: expected at least 0\.6\. "
        r"Got 0\.\d+",
    ):
        check_model(Popularity)


def test_popularity_does_not_reach_the_floor():
    assert failures(Popularity) == {"test_learns_what_follows"}


class PeeksAtHeldOutEvents(Markov):
    """Learns from all events of the log."""

    def fit_split(self, split, on):
        split = type(split)(
            split.sequences,
            split.sequences.offsets[:-1],
            split.sequences.offsets[1:],
            split.validation,
            split.test,
            split.settings,
        )
        super().fit_split(split, on)


class KnowsTheAnswers(Popularity):
    """Remembers each user's whole sequence and scores the item at the place asked for highest."""

    def score(self, histories):
        scores = super().score(histories)
        users = np.full(len(histories), -1) if histories.users is None else histories.users
        for row, (user, length) in enumerate(zip(users, histories.lengths)):
            if user >= 0 and length < len(self.sequences.of(user)):
                scores[row, int(self.sequences.of(user)[length])] = 1e6
        return scores


def test_leaks_are_found():
    assert "test_events_outside_training_do_not_matter" in failures(PeeksAtHeldOutEvents)
    assert "test_finds_nothing_in_noise" in failures(KnowsTheAnswers)


class DependsOnItsBatch(Markov):
    def score(self, histories):
        scores = super().score(histories)
        return scores * (1 + len(histories))


class DrawsAtRandom(Markov):
    def fit_split(self, split, on):
        super().fit_split(split, on)
        self.popularity = self.popularity * torch.rand(len(self.popularity)).numpy()


class SharesItsMemory(Popularity):
    def score(self, histories):
        return torch.from_numpy(self.counts)[None] if len(histories) == 1 else super().score(histories)


class NotANumber(Markov):
    def score(self, histories):
        scores = super().score(histories)
        scores[torch.from_numpy(histories.lengths == 0)] = torch.nan
        return scores


class SilentOnEmptyHistories(Markov):
    def score(self, histories):
        scores = super().score(histories)
        scores[torch.from_numpy(histories.lengths == 0)] = 0.0
        return scores


class DoublePrecision(Markov):
    def score(self, histories: Query) -> torch.Tensor:
        return super().score(histories).double()


class ForgetsWhatItLearnt(Markov):
    def state(self):
        return super().state() | {"counts": np.zeros_like(self.counts)}


class TakesAnything(Markov):
    def __init__(self, **settings: Any):
        super().__init__(strength=settings.get("strength", 1.0))


class LosesASetting(Markov):
    class Settings(Settings):
        strength: float = Field(1.0, gt=0)
        window: int = 1
        skipped: int = 0

    def configuration(self):
        return {"strength": self.settings.strength + 1}


@pytest.mark.parametrize(
    ("cls", "test"),
    [
        (DependsOnItsBatch, "test_a_history_alone_scores_as_in_a_batch"),
        (DrawsAtRandom, "test_the_same_seed_gives_the_same_scores"),
        (SharesItsMemory, "test_scores_belong_to_the_caller"),
        (NotANumber, "test_scores_are_finite_and_of_the_right_shape"),
        (SilentOnEmptyHistories, "test_scores_tell_items_apart_without_a_history"),
        (DoublePrecision, "test_scores_are_finite_and_of_the_right_shape"),
        (ForgetsWhatItLearnt, "test_a_saved_model_scores_the_same"),
        (TakesAnything, "test_an_unknown_setting_is_refused"),
        (LosesASetting, "test_settings_make_the_same_model_again"),
    ],
)
def test_broken_promises_are_found(cls: type, test: str):
    assert test in failures(cls)


def test_the_data_are_what_they_say():
    chain = markov_chain(users=50, noise=0.0)
    follows = {(int(a), int(b)) for u in range(50) for a, b in zip(chain.of(u)[:-1], chain.of(u)[1:])}
    assert len({a for a, _ in follows}) == len(follows), "an item has two successors"

    second = markov_chain(users=200, length=30, items=12, order=2, noise=0.0)
    contexts: dict[tuple[int, int], set[int]] = {}
    after: dict[int, set[int]] = {}
    for u in range(200):
        s = second.of(u).tolist()
        for a, b, c in zip(s, s[1:], s[2:]):
            contexts.setdefault((a, b), set()).add(c)
            after.setdefault(b, set()).add(c)
    assert all(len(x) == 1 for x in contexts.values())
    assert all(len(x) == 12 for x in after.values()), "the last item alone tells what follows"

    noise = uniform_noise(users=2000)
    counts = np.bincount(noise.items, minlength=40)
    assert counts.min() > 0.8 * counts.mean()
    assert (small_log().items != 30).all()
    assert sequences_of([np.array([1, 0]), np.array([2])], 3).of(1).tolist() == [2]
    assert small_log().items.tolist() == small_log().items.tolist()


def test_it_needs_no_test_framework():
    """The suite ships with the library, whose core does not need pytest."""
    import seqrec.testing

    assert "pytest" not in {
        line.split()[1].split(".")[0]
        for line in Path(seqrec.testing.__file__).read_text().splitlines()
        if line.startswith(("import ", "from "))
    }
