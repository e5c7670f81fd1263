"""The search for settings: on validation alone, within its time, and from where it was interrupted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml

from seqrec.errors import SettingsError, TrainingError
from seqrec.experiment import fitting, spaces, tune
from seqrec.experiment.recipe import Recipe
from seqrec.experiment.search import FIRST, Search, with_settings
from seqrec.experiment.settings import RunSettings
from seqrec.experiment.spaces import SPACES, Range, parse, space_of
from seqrec.models import MODELS, get
from seqrec.report import trials
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.testing import sequences_of, small_log
from seqrec.training.options import FitOptions

ON = FitOptions(progress=False)
SPACE = {"model.width": (4, 8), "train.learning_rate": Range(1e-3, 1e-1, log=True), "prior": (None, "markov")}


@pytest.fixture(scope="module")
def split():
    return leave_one_out(small_log())


def of(folder, space=SPACE, model="hrm", **train) -> Search:
    recipe = Recipe({"name": model}, train={"epochs": 3, **train} if model == "hrm" else None)
    return Search(recipe, space, "ndcg@10", True, str(folder))


def test_trials_are_files_and_the_first_is_the_model_as_it_is(split, tmp_path):
    search = of(tmp_path)
    ran = list(search.run(split, 10, ON, most=6))
    trials = search.trials()
    assert [trial for trial, _ in ran] == trials
    assert [trial.number for trial in trials] == list(range(6))
    assert trials[0].settings == {}
    for trial in trials[1:]:
        assert trial.settings["model.width"] in (4, 8)
        assert 1e-3 <= trial.settings["train.learning_rate"] <= 1e-1
        assert trial.settings["prior"] in (None, "markov")
    best = search.best()
    assert best.value == max(trial.value for trial in trials if trial.state == "complete")
    again = fitting.fit(search.recipe_of(best), split, ON).validate(["ndcg@10"])["ndcg@10"]
    assert again == pytest.approx(best.value)
    assert search.table().rows[0]["ndcg@10"] == max(trial.value for trial in trials)
    assert {p.suffix for p in tmp_path.iterdir()} == {".json"}  # no checkpoint is left


def test_an_interrupted_search_goes_on_and_repeats_nothing(split, tmp_path, monkeypatch):
    whole = of(tmp_path / "whole")
    list(whole.run(split, 100, ON, most=FIRST + 3))
    search = of(tmp_path / "parts")
    fitted, real = [], fitting.fit

    def counted(recipe, *rest, **more):
        fitted.append(recipe.model)
        if len(fitted) == 3:
            raise KeyboardInterrupt
        return real(recipe, *rest, **more)

    monkeypatch.setattr(fitting, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        list(search.run(split, 100, ON, most=FIRST + 3))
    assert [trial.state for trial in search.trials()][-1] == "started"
    list(search.run(split, 100, ON, most=FIRST + 3))
    assert len(fitted) == FIRST + 4  # the third was begun twice
    for one, other in zip(whole.trials(), search.trials(), strict=True):
        assert (one.settings, one.value, one.curve) == (other.settings, other.value, other.curve)
    assert not list(search.run(split, 100, ON, most=FIRST + 3))


def test_another_search_is_refused(split, tmp_path):
    list(of(tmp_path).run(split, 10, ON, most=1))
    with pytest.raises(SettingsError, match="has a search with another space"):
        list(of(tmp_path, {"model.width": (4, 16)}).run(split, 10, ON, most=1))
    with pytest.raises(SettingsError, match="expected settings to try for hrm"):
        list(of(tmp_path, {}).run(split, 10, ON))


def test_the_time_is_kept_and_a_trial_has_a_part_of_it(split, tmp_path):
    search = of(tmp_path, epochs=10**6, patience=10**6)
    list(search.run(split, 1.5 / 60, ON))
    trials = search.trials()
    assert len(trials) >= 2
    assert sum(trial.seconds for trial in trials) < 15
    assert all(trial.minutes * 60 <= 1.0 for trial in trials)


def test_what_fails_is_told_and_does_not_end_the_search(split, tmp_path, monkeypatch):
    real = fitting.fit

    def wide_diverges(recipe, *rest, **more):
        if recipe.model.get("width") == 8:
            raise TrainingError("epoch 1: the loss is not finite.")
        return real(recipe, *rest, **more)

    monkeypatch.setattr(fitting, "fit", wide_diverges)
    search = of(tmp_path)
    list(search.run(split, 10, ON, most=6))
    failed = [trial for trial in search.trials() if trial.state == "failed"]
    assert {trial.settings["model.width"] for trial in failed} == {8}
    assert "not finite" in failed[0].error
    assert search.best() is not None


def test_a_trial_below_the_others_is_stopped(split, tmp_path):
    search = of(tmp_path, {"train.learning_rate": Range(1e-9, 1e-1, log=True)}, epochs=8, patience=8)
    list(search.run(split, 100, ON, most=FIRST + 6))
    stopped = [trial for trial in search.trials() if trial.state == "stopped"]
    assert stopped
    assert all(len(trial.curve) < 8 for trial in stopped)
    assert search.best().state == "complete"


def test_what_was_tried_is_not_tried_again(split, tmp_path):
    search = of(tmp_path, {"model.width": (4, 8)})
    list(search.run(split, 100, ON))  # of three trials at most it ends by itself
    assert search.trials()[0].settings == {}
    tried = [trial.settings["model.width"] for trial in search.trials()[1:]]
    assert sorted(tried) == [4, 8]


def test_any_error_of_a_trial_is_a_failure_of_that_trial(split, tmp_path, monkeypatch):
    real = fitting.fit

    def no_memory(recipe, *rest, **more):
        if recipe.model.get("width") == 8:
            raise RuntimeError("out of memory")
        return real(recipe, *rest, **more)

    monkeypatch.setattr(fitting, "fit", no_memory)
    search = of(tmp_path, {"model.width": (4, 8)})
    list(search.run(split, 100, ON))
    assert {t.settings.get("model.width"): t.state for t in search.trials()} == {
        None: "complete",
        4: "complete",
        8: "failed",
    }


def test_a_search_where_nothing_can_be_right_says_so(tmp_path):
    """Everybody takes the same few items again, which the filter leaves out."""
    log = leave_one_out(sequences_of([np.arange(12) % 3] * 40, 3))
    search = Search(Recipe({"name": "markov"}), {"model.window": (1, 2)}, "ndcg@10", True, str(tmp_path))
    for _ in range(2):  # and again where it goes on
        with pytest.raises(SettingsError, match=r"say evaluate\.filter_seen=false"):
            list(search.run(log, 10, ON))
    assert len(search.trials()) == 1


def test_a_prior_keeps_what_the_recipe_says_of_it():
    recipe = Recipe({"name": "hrm"}, prior={"name": "markov", "strength": 5.0, "weight": 0.3})
    assert with_settings(recipe, {"prior": "markov"}).prior == recipe.prior
    assert with_settings(recipe, {"prior": None}).prior is None
    changed = with_settings(recipe, {"prior.window": 2, "prior": "markov"})
    assert changed.prior == {"name": "markov", "strength": 5.0, "weight": 0.3, "window": 2}


def test_test_events_play_no_part(split, tmp_path):
    """Other test events, the same search."""
    other = replace(split.sequences, items=split.sequences.items.copy())
    other.items[split.test.targets] = 0
    changed = leave_one_out(other)
    one, two = of(tmp_path / "one"), of(tmp_path / "two")
    list(one.run(split, 10, ON, most=4))
    list(two.run(changed, 10, ON, most=4))
    assert [(t.settings, t.value) for t in one.trials()] == [(t.settings, t.value) for t in two.trials()]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_space_of_its_own_settings(name):
    cls = get(name)
    space = space_of(name, bool(cls.sections), filter_seen=True)
    for key, values in space.items():
        low = values[0] if isinstance(values, tuple) else values.low
        high = values[-1] if isinstance(values, tuple) else values.high
        for value in (low, high):
            with_settings(Recipe({"name": name}), {key: value}).make()
    # the members of an ensemble have spaces of their own
    assert name in SPACES or not cls.Settings.model_fields or cls.sections or name == "ensemble"
    assert ("loss.seen" in space) == bool(cls.sections)


def test_a_space_from_the_command_line():
    assert parse(["model.width=32,64", "model.dropout=0..0.5", "train.learning_rate=1e-4..1e-2"]) == {
        "model.width": (32, 64),
        "model.dropout": Range(0.0, 0.5),
        "train.learning_rate": Range(1e-4, 1e-2, log=True),
    }
    assert parse(["prior=null,markov"]) == {"prior": (None, "markov")}
    assert isinstance(parse(["model.dropout=0..1"])["model.dropout"].high, float)
    for wrong in (
        "model=32",
        "model.window=[1",
        "width=3",
        "data.path=x",
        "model.width",
        "model.dropout=0.5..0",
        "model.dropout=a..b",
    ):
        with pytest.raises(SettingsError, match="--search"):
            parse([wrong])


def test_tuned_models_and_their_run_files(tmp_path, ring_csv):
    run = RunSettings.of({"data": {"path": str(ring_csv)}, "evaluate": {"filter_seen": False}}, "")
    found = tune.tune(run, ["markov", "item_knn"], 10, str(tmp_path / "tuned"), most=3, progress=False)
    table = tune.summary(found)
    assert {row["model"] for row in table.rows} == {"markov", "item_knn"}
    assert all(row["trials"] == 3 for row in table.rows)
    for search in found:
        content = yaml.safe_load((tmp_path / "tuned" / search.recipe.model["name"] / "best.yaml").read_text())
        assert RunSettings.of(content, "").recipe().make().configuration() == (
            search.recipe_of(search.best()).make().configuration()
        )
    with pytest.raises(SettingsError, match="models: there is nothing to try for popularity"):
        tune.tune(run, ["markov", "popularity"], 10, str(tmp_path / "other"))
    started = run.model_copy(update={"fit": run.fit.model_copy(update={"start": "x"})})
    with pytest.raises(SettingsError, match=r"fit\.start: a search trains from random weights"):
        tune.tune(started, ["hrm"], 10, str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
    with pytest.raises(SettingsError, match="models: expected at least one"):
        tune.tune(run, [], 10, str(tmp_path / "tuned"))
    with pytest.raises(SettingsError, match="minutes: expected more than 0"):
        tune.tune(run, ["markov"], 0, str(tmp_path / "tuned"))
    assert spaces.space_of("popularity", False, True) == {}
    drawing = trials.drawn(found)
    assert "markov trial 0: ndcg@10" in drawing
    assert "var(" not in drawing  # it stands alone
