"""One command that chooses a model: what it takes on logs with a known answer, and that it goes on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import seqrec
from seqrec import storage
from seqrec.errors import SettingsError
from seqrec.experiment import choose as choosing
from seqrec.experiment import fitting, judge
from seqrec.experiment.choose import choose, plan
from seqrec.experiment.recommend import filters_seen
from seqrec.report import choice as page
from seqrec.splitting import SplitSettings
from seqrec.training.options import FitOptions

ON = FitOptions(progress=False)
SHORT = 0.08  # minutes


def log_of(users: int, walks: bool, items: int = 25, length: int = 12, seed: int = 0) -> pl.DataFrame:
    """Users who go from an item to the next one, nearly always; or draw each item alike. No times."""
    rng = np.random.default_rng(seed)
    steps = np.where(rng.random((users, length)) < 0.9, 1, rng.integers(items, size=(users, length)))
    found = (rng.integers(items, size=(users, 1)) + steps.cumsum(1)) % items
    if not walks:
        found = rng.integers(items, size=(users, length))
    return pl.DataFrame({"user_id": np.repeat(np.arange(users), length), "item_id": found.ravel()})


def with_times(seed: int = 0, users: int = 2000) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    log = log_of(users, walks=True, seed=seed)
    start = rng.integers(0, 10**7, users).repeat(12)
    return log.with_columns(timestamp=start + np.tile(np.arange(12), users) * 400_000 + 10**9)


def sessions(users: int = 3000) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    log = log_of(users, walks=True, length=4)
    start = rng.integers(0, 10**7, users).repeat(4)
    return log.with_columns(timestamp=start + np.tile(np.arange(4), users) * 60 + 10**9)


@pytest.mark.parametrize(
    ("log", "split", "filter_seen", "first"),
    [
        (with_times(), "global_temporal", True, "sasrec"),
        (with_times(users=60), "leave_one_out", True, "sasrec"),
        (log_of(300, walks=True), "leave_one_out", True, "sasrec"),
        (sessions(), "last_sessions", True, "gru4rec"),
        (log_of(300, walks=True, items=4), "leave_one_out", False, "sasrec"),
        (
            log_of(300, walks=True, items=4).with_columns(basket_id=pl.int_range(pl.len()) // 3),
            "last_basket",
            False,
            "sasrec",
        ),
    ],
    ids=["times", "few users", "no times", "sessions", "repeats", "baskets"],
)
def test_split_and_filter_follow_the_log(log, split, filter_seen, first):
    found = plan(seqrec.Interactions.from_frame(log).sequences())
    assert (found.split.name, found.filter_seen, found.networks[0]) == (split, filter_seen, first)
    assert len(found.reasons) == 2
    said = plan(seqrec.Interactions.from_frame(log).sequences(), SplitSettings(name="last_n"), False)
    assert (said.split.name, said.filter_seen, said.reasons) == ("last_n", False, ())


def test_where_nothing_is_to_be_learned_it_takes_the_simplest():
    found = choose(log_of(300, walks=False), SHORT, filter_seen=False, on=ON)
    assert found.taken.label == "popularity"
    assert "nothing is significantly better" in found.words[0] or "nothing is better" in found.words[0]
    assert len(found.model.recommend([[1, 2]], k=3)) == 3


def test_fifty_users_are_enough_for_an_answer(tmp_path):
    found = choose(log_of(50, walks=True), SHORT, str(tmp_path / "chosen"), on=ON)
    assert found.taken.name in choosing.SIMPLE
    assert found.split.settings["name"] == "leave_one_out"
    served, log = seqrec.load(tmp_path / "chosen"), log_of(50, walks=True)
    assert served.known_stops.sum() == np.cumsum(np.full(50, 12)).sum()  # fitted on everything
    assert len(log) == 600
    html = page.render(found)
    assert "<svg" in html
    assert found.taken.label in html


@pytest.fixture
def fast(monkeypatch):
    """A choice that takes no time: two simple models and one network, whose epochs do not depend on it."""
    planned, recipe_for = choosing.plan, choosing.recipe_for
    simple = ("popularity", "markov")
    monkeypatch.setattr(choosing, "plan", lambda *a: replace(planned(*a), simple=simple, networks=("hrm",)))

    def small(name, *rest):
        content = recipe_for(name, *rest)
        if name == "hrm":
            content["model"] |= {"width": 4, "recent": 1}
            content["train"] |= {"epochs": 2, "batch_positions": 512}
        return content

    monkeypatch.setattr(choosing, "recipe_for", small)
    spaces = {
        "hrm": {"model.width": (4, 8), "model.recent": (1, 2)},
        "markov": {"model.strength": (1.0, 5.0, 20.0)},
    }
    monkeypatch.setattr(choosing, "space_of", lambda name, *_: spaces.get(name, {}))
    run = choosing.Search.run
    monkeypatch.setattr(choosing.Search, "run", lambda self, *a: run(self, *a[:3], most=3))


def plain(found):
    return (
        found.taken.label,
        [(one.label, one.value, one.epochs) for one in found.tried],
        {label: test["ndcg@10"] for label, test in found.test.items()},
        found.words,
    )


def test_it_goes_on_where_it_was_interrupted(fast, tmp_path, monkeypatch):
    log = log_of(400, walks=True)
    expected = choose(log, 100, str(tmp_path / "whole"), on=ON)
    labels = {"popularity", "markov", "markov-tuned", "hrm", "hrm-tuned"}
    assert {one.label for one in expected.tried} == labels
    fits, written = [], set()
    fit, write = fitting.fit, storage.write_json

    class Interrupted(BaseException):
        pass

    def write_then_stop(value, path):
        write(value, path)
        if path not in written:
            written.add(path)
            raise Interrupted

    def counted(recipe, *rest, **more):
        fits.append(recipe.model["name"])
        return fit(recipe, *rest, **more)

    monkeypatch.setattr(fitting, "fit", counted)
    folder = str(tmp_path / "parts")
    with monkeypatch.context() as patch:  # interrupted after every file that tells of progress
        patch.setattr(storage, "write_json", write_then_stop)
        for _ in range(40):
            try:
                found = choose(log, 100, folder, on=ON)
            except Interrupted:
                continue
            break
    assert plain(found) == plain(expected)
    assert len(written) > 8
    # two simple models, a network and two trials each; again what was fitted and not kept when it stopped,
    # a network from its checkpoint
    assert len(fits) <= 7 + 4, fits


def test_what_is_served_filters_as_it_was_judged(fast, tmp_path):
    log = log_of(400, walks=True)
    for filters in (False, True):
        folder = str(tmp_path / str(filters))
        choose(log, 10, folder, filter_seen=filters, on=ON)
        for place in (folder, f"{folder}/serving", f"{folder}/model"):
            assert filters_seen(place) is filters


def test_a_few_basket_ids_are_no_log_of_baskets():
    log = with_times().with_columns(basket_id=pl.int_range(pl.len()))
    sequences = seqrec.Interactions.from_frame(log).sequences()
    found = plan(sequences)
    assert (found.split.name, found.baskets) == ("global_temporal", False)
    assert "tifu_knn" not in found.simple


def test_the_test_is_asked_once_for_two_models(fast, tmp_path, monkeypatch):
    asked, ask = [], judge.ask

    def counted(model, *rest, **more):
        asked.append(model.name)
        return ask(model, *rest, **more)

    monkeypatch.setattr(judge, "ask", counted)
    found = choose(log_of(400, walks=True), 10, str(tmp_path), on=ON)
    assert sorted(asked) == sorted({found.taken.name, *(one.split("-")[0] for one in found.test)})
    assert len(asked) == 2


def test_what_is_wrong_is_refused(fast, tmp_path):
    log = log_of(400, walks=True)
    with pytest.raises(SettingsError, match="minutes: expected more than 0"):
        choose(log, 0)
    choose(log, 10, str(tmp_path), on=ON)
    with pytest.raises(SettingsError, match="has another choice, with minutes 10"):
        choose(log, 11, str(tmp_path), on=ON)
    with pytest.raises(SettingsError, match="has another choice, with split_hash"):
        choose(log_of(401, walks=True), 10, str(tmp_path), on=ON)
