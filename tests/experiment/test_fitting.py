"""Fitting and validating never see the test."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import seqrec
from seqrec.evaluation import ranking
from seqrec.experiment import fitting
from seqrec.experiment.recipe import Recipe
from seqrec.models.markov import Markov
from seqrec.splitting import SplitSettings
from seqrec.splitting.split import Split
from seqrec.testing import sequences_of
from seqrec.training.options import FitOptions

PACKAGE = Path(seqrec.__file__).parent
QUIET = FitOptions(progress=False, device="cpu")


def file_of(module: str) -> Path:
    path = PACKAGE.parent / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(module: str) -> set[str]:
    """What a module of the package imports from it, anywhere in its file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file_of(module).read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found |= {f"{node.module}.{name.name}" for name in node.names}
    # of a.b.c what is a module: a, a.b, and a.b.c or the name c in a.b
    parts = [name.split(".") for name in found if name.split(".")[0] == "seqrec"]
    modules = {".".join(p[:n]) for p in parts for n in range(1, len(p) + 1)}
    return {name for name in modules if file_of(name).exists()}


def test_fitting_and_all_that_it_imports_do_not_import_the_judge():
    reached, waiting = set(), ["seqrec.experiment.fitting"]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            # the package itself names its public parts, and imports one when it is asked for
            waiting += imports(module) - {"seqrec"}
    assert {"seqrec.experiment.recipe", "seqrec.models.model", "seqrec.evaluation.ranking"} <= reached
    assert "seqrec.experiment.judge" not in reached
    assert "seqrec.experiment.judge" in imports("seqrec.experiment.train")  # the walk would have found it


def log():
    rng = np.random.default_rng(0)
    lists = [(start + np.arange(length)) % 30 for start, length in rng.integers([0, 3], [30, 13], (80, 2))]
    sequences = sequences_of(lists, 30)
    times = np.concatenate([1e9 + rng.uniform(0, 5e5) + 1e5 * np.arange(len(x)) for x in lists])
    ratings = rng.integers(1, 6, sequences.events).astype(np.float32)
    return type(sequences)(**{**vars(sequences), "times": times, "ratings": ratings})


SPLITS = {
    "leave_one_out": SplitSettings(name="leave_one_out"),
    "rated": SplitSettings(name="last_n", n=2, min_rating=2),
    "successive": SplitSettings(name="global_temporal", targets="successive"),
    "all, drawn": SplitSettings(
        name="global_temporal", targets="all", validation_cut=None, validation_users=9
    ),
    "user_holdout": SplitSettings(name="user_holdout"),
    "session_temporal": SplitSettings(name="session_temporal", test_days=2, validation_days=2),
}


@pytest.mark.parametrize("settings", SPLITS.values(), ids=SPLITS)
def test_a_split_without_its_test(settings):
    split = settings.apply(log())
    part = split.without_test()
    assert part.hash == split.hash
    assert len(part.test) == 0
    assert part.without_test() is part
    s, p = split.sequences, part.sequences
    for user in range(s.users):
        first = split.test.targets[split.test.users == user]
        known = s.of(user) if not len(first) else s.of(user)[: first.min() - s.offsets[user]]
        assert p.of(user).tolist() == known.tolist()
    assert part.known_stops.tolist() == p.offsets[1:].tolist()

    def events(of: Split, mask: np.ndarray) -> list[tuple]:
        user = np.repeat(np.arange(of.sequences.users), of.sequences.lengths)
        return list(zip(user[mask], of.sequences.items[mask], of.sequences.times[mask]))

    assert events(part, part.train_events) == events(split, split.train_events)
    if split.positive is not None:
        assert events(part, part.train_events & part.positive) == events(
            split, split.train_events & split.positive
        )
    if split.retrain_stops is not None:
        again = split.retrain()
        assert events(part.retrain(), part.retrain().train_events) == events(again, again.train_events)
        assert again.without_test().hash == again.hash
    assert part.targets(part.validation).tolist() == split.targets(split.validation).tolist()
    mine, theirs = part.query(part.validation), split.query(split.validation)
    for i in range(len(mine)):
        assert mine.at(i).tolist() == theirs.at(i).tolist()
    assert np.array_equal(mine.asked_at, theirs.asked_at)


def test_test_targets_before_other_events_are_refused():
    split = SPLITS["leave_one_out"].apply(log())
    turned = Split(**{**_fields(split), "validation": split.test, "test": split.validation})
    with pytest.raises(
        seqrec.errors.DataError, match=r"expected each user's test targets after .* Got \d+ user"
    ):
        turned.without_test()


def _fields(split: Split) -> dict:
    return {name: getattr(split, name) for name in Split.__dataclass_fields__}


SEEN: list[Split] = []


class Recording(Markov):
    """Writes down what it is given."""

    name = "recording"

    def fit_split(self, split, on):
        SEEN.append(split)
        super().fit_split(split, on)

    def score_blocks(self, query, rows=512):
        SEEN.append(query)
        return super().score_blocks(query, rows)


class Recorded(Recipe):
    def make(self):
        return Recording()


@pytest.mark.parametrize("name", ["leave_one_out", "successive", "user_holdout"])
def test_a_model_that_is_fitted_and_validated_is_given_no_test_event(name):
    SEEN.clear()
    split = SPLITS[name].apply(log())
    targets = set(split.test.targets.tolist())
    times = {float(split.sequences.times[at]) for at in targets}
    assert len(times) == len(targets)
    retrain = split.retrain_stops is not None
    fitted = fitting.fit(Recorded({}), split, QUIET, retrain=retrain)
    assert fitted.validate()["recall@20"] > 0
    first, *more = SEEN
    assert len(more) == 1 + retrain
    for given in SEEN:
        if isinstance(given, Split):
            assert not len(given.test)
            assert not times & set(given.sequences.times.tolist())
        else:
            assert len(given.events.items) == first.sequences.events


@pytest.mark.parametrize("model", ["gru4rec", "sasrec", "hrm", "fpmc", "recent_popularity", "vsknn"])
@pytest.mark.parametrize("name", ["rated", "successive", "user_holdout"])
def test_the_part_gives_the_numbers_of_the_whole(model, name):
    split = SPLITS[name].apply(log())
    train = {"epochs": 2, "batch_positions": 64} if model in ("gru4rec", "sasrec", "hrm", "fpmc") else None
    recipe = Recipe({"name": model}, train=train)
    fitted = fitting.fit(recipe, split, QUIET)
    whole = recipe.make().fit(split, QUIET)
    mine, theirs = fitted.chosen.state(), whole.state()
    assert mine.keys() == theirs.keys()
    assert all(np.array_equal(mine[key], theirs[key]) for key in mine)
    assert fitted.chosen.provenance == whole.provenance
    users = split.sequences.user_catalogue.ids.to_list()
    assert fitted.chosen.recommend(users=users, k=3).equals(whole.recommend(users=users, k=3))
    ranks = ranking.rank(whole, split, split.validation, lists=False).filtered
    assert fitted.validate().ranks.filtered.tolist() == ranks.tolist()


def test_fitting_again_takes_as_many_epochs():
    split = SPLITS["successive"].apply(log())
    recipe = Recipe({"name": "hrm"}, train={"epochs": 4, "batch_positions": 64, "patience": 1})
    fitted = fitting.fit(recipe, split, QUIET, retrain=True)
    assert fitted.final is not fitted.chosen
    assert fitted.final.fit_report.epochs == fitted.chosen.fit_report.best_epoch
    assert fitted.final.provenance["split_hash"] == split.retrain().hash
    assert fitting.fit(Recipe({"name": "markov"}), split, QUIET, retrain=True).final.fit_report.epochs is None
