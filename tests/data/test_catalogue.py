import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data import catalogue as catalogue_module
from seqrec.data.catalogue import UNKNOWN, Catalogue, Numbering
from seqrec.errors import DataError

IDS = st.one_of(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, unique=True),
    st.lists(st.text(max_size=8), min_size=1, unique=True),
)


@given(IDS)
def test_encode_and_decode_are_inverse(ids):
    catalogue = Catalogue(ids)
    indices = np.arange(len(ids), dtype=np.int32)
    assert catalogue.decode(indices).to_list() == ids
    np.testing.assert_array_equal(catalogue.encode(ids), indices)
    np.testing.assert_array_equal(catalogue.encode(pl.Series(ids)), indices)


@given(IDS, st.data())
def test_series_and_lists_encode_alike(ids, data):
    asked = data.draw(st.lists(st.one_of(st.sampled_from(ids), st.just(type(ids[0])(7))), max_size=20))
    series = pl.Series(asked, dtype=pl.Int64 if isinstance(ids[0], int) else pl.String)
    catalogue = Catalogue(ids)
    np.testing.assert_array_equal(catalogue.encode(series), catalogue.encode(asked))
    np.testing.assert_array_equal(
        catalogue.encode(asked), [ids.index(x) if x in ids else UNKNOWN for x in asked]
    )


def test_a_string_never_stands_for_a_number():
    catalogue = Catalogue([1, 2])
    for asked in (["1"], pl.Series(["1"]), pl.Series([1.5]), pl.Series([None], dtype=pl.Int64)):
        assert catalogue.encode(asked).tolist() == [UNKNOWN]
    assert catalogue.encode(np.array([2, 3], dtype=np.int16)).tolist() == [1, UNKNOWN]
    assert catalogue.encode(pl.Series([2], dtype=pl.UInt8)).tolist() == [1]


@pytest.mark.parametrize("ids", [["a", "a"], ["a", None]])
def test_ids_must_be_distinct_and_present(ids):
    with pytest.raises(DataError, match="distinct ids without missing values"):
        Catalogue(ids)


def test_attributes_must_fit():
    with pytest.raises(DataError, match=r"expected 2 rows, one an id\. Got 1"):
        Catalogue([1, 2], pl.DataFrame({"title": ["x"]}))
    with pytest.raises(DataError, match="Rename it"):
        Catalogue([1], pl.DataFrame({"id": ["x"]}))


def test_save_and_load_keep_ids_and_attributes(tmp_path):
    Catalogue(["b", "a"], pl.DataFrame({"title": ["B", None]})).save(tmp_path / "c.parquet")
    loaded = Catalogue.load(tmp_path / "c.parquet")
    assert loaded.ids.to_list() == ["b", "a"]
    assert loaded.attributes.to_dict(as_series=False) == {"title": ["B", None]}
    Catalogue([3]).save(tmp_path / "plain.parquet")
    assert Catalogue.load(tmp_path / "plain.parquet").attributes is None


@given(st.lists(st.lists(st.integers(0, 20)), min_size=1))
def test_numbering_is_by_first_appearance(parts):
    numbering = Numbering()
    numbers = [numbering.encode(pl.Series("user_id", part, dtype=pl.Int64)).tolist() for part in parts]
    flat = [x for part in parts for x in part]
    order = list(dict.fromkeys(flat))
    assert [x for part in numbers for x in part] == [order.index(x) for x in flat]
    assert numbering.ids.to_list() == order


def test_integers_before_strings_are_strings():
    numbering = Numbering()
    assert numbering.encode(pl.Series("item_id", [3, 1])).tolist() == [0, 1]
    assert numbering.encode(pl.Series("item_id", ["a", "1"])).tolist() == [2, 1]
    assert numbering.encode(pl.Series("item_id", [3, 4])).tolist() == [0, 3]
    assert numbering.ids.to_list() == ["3", "1", "a", "4"]


MIXED = st.lists(
    st.one_of(
        st.lists(st.one_of(st.none(), st.integers(0, 20))).map(lambda x: pl.Series(x, dtype=pl.Int64)),
        st.lists(st.one_of(st.none(), st.sampled_from("a1b2"))).map(lambda x: pl.Series(x, dtype=pl.String)),
    )
)


@given(MIXED, st.integers(0, 30))
def test_ids_that_wait_get_the_numbers_that_they_would_get_at_once(parts, waiting):
    late, at_once = Numbering(), Numbering()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue_module, "WAITING", waiting)
        for part in parts:
            late.add(part)
        numbers = [batch.tolist() for batch in late.numbers()]
    assert numbers == [at_once.encode(part).tolist() for part in parts]
    assert late.ids.to_list() == at_once.ids.to_list()
    assert late.numbers() == []


def test_the_ids_known_are_not_gone_through_for_each_batch(monkeypatch):
    """With many batches the rows of all joins are some times the events, however many ids there are."""
    monkeypatch.setattr(catalogue_module, "WAITING", 100)
    rows, plain = [], catalogue_module._look_up
    monkeypatch.setattr(
        catalogue_module,
        "_look_up",
        lambda ids, known: rows.append(len(ids) + len(known)) or plain(ids, known),
    )
    numbering, events = Numbering(), np.random.default_rng(0).integers(0, 20_000, 100_000)
    for begin in range(0, len(events), 100):
        numbering.add(pl.Series(events[begin : begin + 100]))
    numbering.numbers()
    assert sum(rows) < 10 * len(events)
