"""Histories of baskets: one level deeper than histories of items, in Python, in the shell and over HTTP."""

from __future__ import annotations

import polars as pl
import pytest

import seqrec
from seqrec import Interactions
from seqrec.errors import SettingsError, UnknownIdError
from seqrec.experiment import recommend as of_shell
from seqrec.experiment.recommend import Choice
from seqrec.models.hrm import HRM
from seqrec.models.markov import Markov
from seqrec.models.personal_top import PersonalTop
from seqrec.models.tifu_knn import TIFUKNN
from seqrec.serving import batch

FRAME = pl.DataFrame(
    {
        "user_id": ["u", "u", "u", "u", "v", "v", "v", "w"],
        "item_id": ["a", "b", "a", "c", "a", "b", "d", "d"],
        "basket_id": [1, 1, 2, 2, 3, 4, 4, 5],
    }
)


@pytest.fixture(scope="module")
def log():
    return Interactions.from_frame(FRAME).sequences()


@pytest.fixture(scope="module")
def model(log):
    return PersonalTop().fit(log)


def best(frame: pl.DataFrame) -> list[str]:
    return frame["item_id"].to_list()


def test_a_basket_counts_once_whatever_the_order_in_it(model):
    asked = [[["d", "d", "c"], ["d"]], [], [("c",), {"b", "c"}]]
    frame = model.recommend(asked, k=2, filter_seen=False)
    assert best(frame) == ["d", "c", "a", "b", "c", "b"]
    assert frame["source"].to_list() == ["model"] * 2 + ["popularity"] * 2 + ["model"] * 2
    turned = [[["c", "d", "d"], ["d"]], [], [("c",), {"c", "b"}]]
    assert frame.equals(model.recommend(turned, k=2, filter_seen=False))
    named = model.recommend({"ann": [["d"]]}, k=1, filter_seen=False)
    assert named.rows()[0][:2] == ("ann", "d")


def test_users_what_they_took_since_and_a_saved_model(log, tmp_path):
    model = TIFUKNN(neighbours=1, groups=2).fit(log)
    asked = {"users": ["u", "w"], "k": 4, "filter_seen": False}
    kept, since = model.recommend(**asked), model.recommend([[["d"], ["d"]], []], **asked)
    whole = model.recommend([[["b", "a"], ["c", "a"], ["d"], ["d"]]], k=1, filter_seen=False)
    assert best(since)[0] == best(whole)[0] == "d"
    assert best(kept)[0] == "a"
    model.save(tmp_path)
    loaded = seqrec.load(tmp_path)
    assert loaded.needs_baskets
    assert loaded.recommend(**asked).equals(kept)
    assert loaded.recommend([[["d"], ["d"]], []], **asked).equals(since)
    Markov().fit(log, stop_after=1).save(tmp_path / "markov")
    assert seqrec.load(tmp_path / "markov").sequences.baskets is None  # which it does not read


def test_the_depth_is_told_apart_and_never_guessed(model, log):
    markov = Markov().fit(log, stop_after=1)
    with pytest.raises(SettingsError, match=r"0: .* since markov reads no baskets.*one after another"):
        markov.recommend([[["a", "b"], ["c"]]])
    with pytest.raises(SettingsError, match=r"sequence 1: .* since personal_top was trained on baskets"):
        model.recommend([[["a"]], ["a", "b"]])
    with pytest.raises(SettingsError, match=r"sequence 0: .* Got 1 baskets and 2 items"):
        model.recommend([["a", ["a"], "b"]])
    with pytest.raises(UnknownIdError, match=r"sequence 0, basket 1 has 1 item\(s\) .*'z'"):
        model.recommend([[["a"], ["z"]]])
    assert best(model.recommend([[["z"], ["d"]]], k=1, filter_seen=False, on_unknown="ignore")) == ["d"]
    alone = PersonalTop().fit(Interactions.from_frame(FRAME.drop("basket_id")).sequences())
    flat, deep = (alone.recommend(h, k=2, filter_seen=False) for h in ([["d", "d"]], [[["d"], ["d"]]]))
    assert flat.equals(deep)
    assert not alone.needs_baskets


def test_a_network_over_baskets(log, tmp_path):
    model = HRM(baskets=1, width=4, train={"epochs": 1}).fit(log, progress=False, device="cpu")
    model.save(tmp_path)
    loaded = seqrec.load(tmp_path, device="cpu")
    assert loaded.recommend(users=["u"], k=4).equals(model.recommend(users=["u"], k=4))
    with pytest.raises(SettingsError, match="since hrm was trained on baskets"):
        loaded.recommend([["a"]])


def test_in_the_shell_a_semicolon_ends_a_basket(model, tmp_path):
    choice = Choice(k=2, filter_seen=False)
    frame = of_shell.recommend(model, ["d,c;d"], None, choice, "raise")
    assert best(frame) == ["d", "c"]
    (tmp_path / "histories.jsonl").write_text('{"item_id": ["a", "b"]}\n')
    with pytest.raises(SettingsError, match="expected a file of users alone, since personal_top was trained"):
        batch.recommend(model, str(tmp_path / "histories.jsonl"), str(tmp_path / "out.jsonl"), progress=False)
    (tmp_path / "users.csv").write_text("user_id\nw\nu\n")
    batch.recommend(
        model,
        str(tmp_path / "users.csv"),
        str(tmp_path / "out.jsonl"),
        k=1,
        filter_seen=False,
        progress=False,
    )
    assert [row["item_id"] for row in pl.read_ndjson(tmp_path / "out.jsonl").to_dicts()] == [["d"], ["a"]]
