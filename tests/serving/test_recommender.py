from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

from seqrec.errors import SeqrecError, SettingsError, UnknownIdError
from seqrec.models.hrm import HRM
from seqrec.models.markov import Markov
from seqrec.models.popularity import Popularity


@pytest.fixture(scope="module")
def model(ring):
    return Markov().fit(ring)


def test_raw_ids_in_raw_ids_out(model):
    frame = model.recommend(sequences=[["i3", "i4"], ["i11"]], k=2)
    assert frame.columns == ["query", "item_id", "score", "rank", "source"]
    assert frame.filter(rank=1)["item_id"].to_list() == ["i5", "i0"]
    assert frame["query"].to_list() == [0, 0, 1, 1]
    assert frame["rank"].to_list() == [1, 2, 1, 2]


def test_why_an_item_is_recommended(model, ring):
    hrm = HRM(width=8, train={"epochs": 1}).fit(ring, progress=False)
    plain = hrm.recommend([["i3", "i4", "i3", "i9", "i1"], []], k=3, on_unknown="ignore")
    frame = hrm.recommend([["i3", "i4", "i3", "i9", "i1"], []], k=3, on_unknown="ignore", explain=True)
    assert frame.drop("because").equals(plain)
    vectors = dict(hrm.item_vectors().select("item_id", "vector").iter_rows())
    for item, source, because in frame.select("item_id", "source", "because").iter_rows():
        a = np.array(vectors[item])
        cosines = {
            one: float(a @ (b := np.array(vectors[one])) / np.linalg.norm(a) / np.linalg.norm(b))
            for one in ("i1", "i3", "i4", "i9")
        }
        nearest = sorted(cosines, key=lambda one: -cosines[one])[:3]
        assert because == (nearest if source == "model" else [])
    with pytest.raises(SettingsError, match="has no item vectors"):
        model.recommend([["i3"]], explain=True)


def test_named_histories_and_users(model, ring):
    assert model.recommend({"ann": ["i3"], "bob": ["i7"]}, k=1)["user_id"].to_list() == ["ann", "bob"]
    frame = model.recommend(users=["u5", "u2"], k=1, filter_seen=False)
    assert frame["user_id"].to_list() == ["u5", "u2"]
    last = ring.item_catalogue.decode([ring.items[ring.offsets[u] + 14] for u in (5, 2)]).to_list()
    assert [f"i{(int(item[1:]) + 1) % 12}" for item in last] == frame["item_id"].to_list()


@pytest.mark.parametrize("form", [list, tuple, np.array, pl.Series, pd.Series, iter])
def test_users_in_any_form(model, form):
    assert model.recommend(users=form(["u5", "u2"]), k=1).equals(model.recommend(users=["u5", "u2"], k=1))


@pytest.mark.parametrize("form", [list, np.array, iter])
def test_a_user_whose_id_is_nothing_is_asked_for_too(form):
    numbered = Popularity().fit(pl.DataFrame({"user_id": [0, 0, 1], "item_id": [7, 8, 7]}))
    assert numbered.recommend(users=form([0]), k=5, filter_seen=False)["item_id"].to_list() == [7, 8]
    assert len(numbered.recommend(users=np.array([]))) == 0


@pytest.mark.parametrize(
    "sequences",
    [
        np.array([["i3", "i4"], ["i5", "i6"]]),
        [np.array(["i3", "i4"]), np.array(["i5", "i6"], dtype=object)],
        [pl.Series(["i3", "i4"]), pd.Series(["i5", "i6"])],
        pl.Series([["i3", "i4"], ["i5", "i6"]]),
        pd.Series([["i3", "i4"], ["i5", "i6"]]),
        pd.Series([["i3", "i4"], ["i5", "i6"]], index=[7, 3]),
        (["i3", "i4"], ("i5", "i6")),
    ],
)
def test_sequences_in_any_form(model, sequences):
    assert model.recommend(sequences, k=np.int64(2)).equals(
        model.recommend([["i3", "i4"], ["i5", "i6"]], k=2)
    )


def test_seen_items_are_filtered_and_short_lists_end(model):
    frame = model.recommend([[f"i{n}" for n in range(10)]], k=50)
    assert sorted(frame["item_id"].to_list()) == ["i10", "i11"]
    assert len(model.recommend([[f"i{n}" for n in range(10)]], k=50, filter_seen=False)) == 12
    assert len(model.recommend([[f"i{n}" for n in range(12)]])) == 0


def test_only_what_is_allowed_and_not_denied(model):
    frame = model.recommend([["i3"], ["i4"]], k=12, allow=["i4", "i5", "i6"], deny=["i6"])
    assert frame.filter(query=0)["item_id"].to_list()[0] == "i4"
    assert sorted(frame.filter(query=0)["item_id"]) == ["i4", "i5"]
    assert frame.filter(query=1)["item_id"].to_list() == ["i5"]  # i4 was seen
    assert len(model.recommend([["i3"]], allow=[])) == 0
    assert len(model.recommend([["i3"]], k=12, deny=np.array(["i1", "i2"]))) == 9
    with pytest.raises(UnknownIdError, match=r"allow has 1 item\(s\) that the model does not know: \['x'\]"):
        model.recommend([["i3"]], allow=["i4", "x"])
    assert model.recommend([["i3"]], allow=["i4", "x"], on_unknown="ignore")["item_id"].to_list() == ["i4"]


def test_unknown_items(model):
    with pytest.raises(
        UnknownIdError, match=r"sequence 1 has 1 item\(s\) that the model does not know: \['x'\]"
    ):
        model.recommend([["i1"], ["i3", "x"]])
    with pytest.warns(UserWarning, match="does not know"):
        warned = model.recommend([["i3", "x"]], k=1, on_unknown="warn")
    assert (
        warned["item_id"].to_list()
        == model.recommend([["i3", "x"]], k=1, on_unknown="ignore")["item_id"].to_list()
        == ["i4"]
    )
    with pytest.raises(UnknownIdError, match=r"Ids here are str, such as 'i0'"):
        model.recommend([[3]])


def test_users_with_what_they_did_since(model, ring):
    events = ring.items[ring.offsets[5] : model.known_stops[5]]
    last = int(events[-1])
    since = [f"i{(last + 5) % 12}"]
    found = model.recommend([since, []], users=["u5", "u2"], k=1, filter_seen=False)
    assert found["user_id"].to_list() == ["u5", "u2"]
    assert found["item_id"][0] == f"i{(last + 6) % 12}"
    assert found.filter(user_id="u2").equals(model.recommend(users=["u2"], k=1, filter_seen=False))
    # one of 15 events on a ring of 12 has seen everything
    few = ring.item_catalogue.decode(events[:3]).to_list()
    log = pl.DataFrame({"user_id": ["a"] * 3 + ["b"] * 12, "item_id": few + [f"i{n}" for n in range(12)]})
    filtered = Markov().fit(log).recommend([["i11"]], users=["a"], k=12)["item_id"]
    assert set(filtered) == {f"i{n}" for n in range(12)} - {*few, "i11"}
    # of an unknown user what is given is all that is known
    with pytest.raises(UnknownIdError, match="nobody"):
        model.recommend([["i3"]], users=["nobody"])
    alone = model.recommend([["i3"], []], users=["nobody", "noone"], k=2, on_unknown="ignore")
    assert alone["item_id"][0] == "i4"
    assert alone["source"].to_list() == ["model"] * 2 + ["popularity"] * 2


def test_unknown_users(model):
    with pytest.raises(UnknownIdError, match="nobody"):
        model.recommend(users=["u1", "nobody"])
    assert len(model.recommend(users=["nobody"], k=3, on_unknown="ignore")) == 3


def test_of_whom_nothing_is_known_gets_the_most_popular_of_what_is_allowed(model, ring):
    popular = Popularity().fit(ring)
    asked = [["i3"], [], ["x"]]
    for choice in ({}, {"allow": ["i7", "i2", "i9"], "deny": ["i2"]}):
        found = model.recommend(asked, k=12, on_unknown="ignore", **choice)
        expected = popular.recommend([[]], k=12, **choice)
        for query, source in ((0, "model"), (1, "popularity"), (2, "popularity")):
            rows = found.filter(query=query)
            assert set(rows["source"]) == {source}
            if source == "popularity":
                assert rows["item_id"].to_list() == expected["item_id"].to_list()
        assert set(expected["source"]) == {"model"}  # which is what popularity has to say


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequences": [["i1"]], "k": 0}, "k: expected a whole number, at least 1"),
        ({}, "Got neither"),
        ({"sequences": [["i1"], []], "users": ["u1"]}, r"expected one for each of the 1 users.*Got 2\."),
        ({"sequences": {"u1": ["i1"]}, "users": ["u1"]}, "expected a list of lists beside users"),
        ({"sequences": ["i1"]}, "list of lists"),
        ({"sequences": [["i1"]], "on_unknown": "panic"}, "on_unknown"),
        (
            {"sequences": [3, 4]},
            r"sequences: sequence 0: expected a list of item ids, as in a list of lists .*Got 3\.",
        ),
        ({"sequences": "i1"}, r"sequences: expected a list of lists of item ids.* Got 'i1'\."),
        ({"sequences": 5}, r"sequences: expected a list of lists of item ids.* Got 5\."),
        ({"sequences": [[["i1"]]]}, r"sequence 0: expected a list of item ids.* Got a list of baskets\."),
        ({"sequences": pl.DataFrame({"item_id": ["i1"]})}, "sequences: expected a list of lists"),
        (
            {"sequences": {"ann": ["i1"], 2: ["i3"]}},
            r"sequences: expected ids of one type.* Got \['ann', 2\]",
        ),
        ({"users": 5}, r"users: expected a list of user ids, \[...\]. Got 5\."),
        ({"users": "u1"}, r"users: expected a list of user ids, \[...\]. Got 'u1'\."),
        ({"users": np.array("u1")}, "users: expected a list of user ids"),
        ({"users": [["u1"]]}, r"users: expected a list of user ids, \[...\]. Got \['u1'\] in it"),
        ({"users": ["u1", 2], "on_unknown": "ignore"}, "users: expected ids of one type"),
        ({"sequences": [["i1"]], "k": 2.0}, r"k: expected a whole number, at least 1. Got 2\.0"),
        ({"sequences": [["i1"]], "k": "2"}, "k: expected a whole number, at least 1. Got '2'"),
        ({"sequences": [["i1"]], "k": True}, "k: expected a whole number, at least 1. Got True"),
    ],
)
def test_bad_arguments(model, arguments, message):
    with pytest.raises(SettingsError, match=message):
        model.recommend(**arguments)


def test_untrained():
    with pytest.raises(SeqrecError, match="not trained"):
        Markov().recommend([["a"]])
