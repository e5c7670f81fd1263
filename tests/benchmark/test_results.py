"""Result files hold what they were given, and refuse to stand in a table they do not belong to."""

import base64
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_results import write_results

from seqrec.benchmark import results, runner
from seqrec.errors import DataError
from seqrec.experiment.protocol import names, read_protocol
from seqrec.settings import yaml_file

PUBLISHED = Path(__file__).parents[2] / "benchmarks" / "results"


@given(st.lists(st.integers(0, 2**33), max_size=50))
def test_packed_arrays_come_back(values):
    packed = json.loads(json.dumps(results.pack(np.array(values, dtype=np.int64))))
    assert results.unpack(packed).tolist() == values


def test_six_thousand_ranks_are_small():
    ranks = np.random.default_rng(0).integers(1, 3417, 6040)
    assert len(json.dumps(results.pack(ranks))) < 16_500
    assert results.pack(ranks)["dtype"] == "uint16"


def test_a_packed_array_that_is_not_whole_is_refused():
    packed = results.pack(np.arange(1000))
    for damaged in ({**packed, "zlib_base64": packed["zlib_base64"][:40]}, {**packed, "length": 7}, {}):
        with pytest.raises(DataError, match="packed array"):
            results.unpack(damaged)


def test_bins_hold_about_as_many_queries_each_and_zero_is_apart():
    values = np.concatenate([np.zeros(7, int), np.arange(1, 101)])
    ranks = np.where(values > 50, 1, 1000)
    bins = results.by_bin(values, ranks, ["recall@10"])
    assert [(b["low"], b["high"], b["queries"]) for b in bins] == [
        (0, 0, 7),
        (1, 20, 20),
        (21, 40, 20),
        (41, 60, 20),
        (61, 80, 20),
        (81, 100, 20),
    ]
    assert [b["recall@10"] for b in bins] == [0, 0, 0, 0.5, 1, 1]
    alike = results.by_bin(np.full(9, 4), np.ones(9), ["ndcg@10"])
    assert [(b["low"], b["high"], b["queries"], b["ndcg@10"]) for b in alike] == [(4, 4, 9, 1.0)]


def test_files_are_collected_in_order_and_checked(tmp_path):
    write_results(tmp_path)
    found = results.collect(tmp_path)
    assert [(r["model"], r["seed"]) for r in found] == [
        ("good", 0),
        ("good", 1),
        ("poor", 0),
        ("poor", 1),
        ("similar", 0),
        ("similar", 1),
    ]
    assert [r["seed"] for r in results.collect([tmp_path / "made-up-v1" / "poor", found[0]])] == [0, 0, 1]
    (tmp_path / "other.json").write_text('{"protocol": "x"}')
    with pytest.raises(DataError, match=r"other.json: expected a result file .* Missing keys: model, seed"):
        results.collect(tmp_path)


def test_ranks_and_values_of_a_result(tmp_path):
    write_results(tmp_path)
    result = results.collect(tmp_path)[0]
    values = result.values(True)
    assert values.mean("ndcg@10") == pytest.approx(result["metrics"]["ndcg@10"]["mean"])
    assert len(values.users) == 300
    assert values.counts.sum() == len(result.ranks(True)) == 600


def test_rows_are_means_over_seeds_best_first(tmp_path):
    write_results(tmp_path)
    (group,) = results.groups(results.collect(tmp_path))
    assert [row.model for row in group.rows] == ["good", "similar", "poor"]
    assert [group.compared[m].like_best for m in ("good", "similar", "poor")] == [True, True, False]
    good = group.rows[0]
    means = [run["metrics"]["ndcg@10"]["mean"] for run in good.runs]
    assert good.intervals(["ndcg@10"])["ndcg@10"]["mean"] == pytest.approx(np.mean(means))
    assert good.spread("ndcg@10") == pytest.approx(np.std(means, ddof=1))
    assert good.mean("train_seconds") == 2.5
    assert group.rows[2].mean("positions_per_second") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split_hash": "f" * 16}, "split_hash: expected '0000000000000000'"),
        ({"items": 7}, "items: expected 1000"),
        ({"settings": {"model": "similar", "width": 3}}, "settings: expected those of"),
        ({"seed": 0}, "a seed has several result files"),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path, change, message):
    write_results(tmp_path)
    path = tmp_path / "made-up-v1" / "similar" / "seed-1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=message):
        results.groups(results.collect(tmp_path))


def test_a_shipped_protocol_refuses_results_on_another_split(tmp_path):
    write_results(tmp_path, protocol="ml-1m-leave-one-out-v1")
    with pytest.raises(DataError, match="split_hash: expected '0aa370c5d57fe3f6'"):
        results.groups(results.collect(tmp_path))


def test_settings_of_older_results_are_the_same_where_they_mean_the_same():
    older = {"model": "hrm", "train": {"epochs": 3, "device": "auto", "precision": "auto"}, "features": None}
    now = {"model": "hrm", "train": {"epochs": 3}, "fit": {"device": "auto", "precision": "auto"}}
    assert results.same_settings(older, now)
    assert results.same_settings(now, older)
    for other in ({**now, "train": {"epochs": 4}}, {**now, "fit": {"device": "cpu", "precision": "auto"}}):
        assert not results.same_settings(older, other)


def test_no_finished_run_of_the_package_is_repeated_for_a_new_setting():
    """A setting that was added since is as it was without it: every committed result still stands for the
    settings that its row has now."""
    checked = 0
    for result in results.collect(PUBLISHED):
        configs = runner.FOLDER / result["protocol"] / f"{result['model']}.yaml"
        # hrm-origin said a rate that has since come to follow the log
        if result["seed"] == 0 and configs.is_file() and result["model"] != "hrm-origin":
            protocol = read_protocol(result["protocol"])
            config = runner.Config.of(yaml_file.read(configs), "")
            now = runner.settings_of(runner.recipe_of(protocol, result["model"], config).make(), config)
            assert results.same_settings(result["settings"], now), (result["protocol"], result["model"])
            checked += 1
    assert checked > 30


def test_examples_of_older_results_are_read(tmp_path):
    write_results(tmp_path)
    found = results.collect(tmp_path)[0]
    examples = found.examples
    assert examples[0]["target"] == "D"
    content = dict(found.content)
    content["samples"] = content.pop("examples")
    assert results.Result(content, "").examples == examples


def test_a_bomb_in_packed_ranks_is_not_opened():
    bomb = zlib.compress(bytes(1 << 26), 9)
    packed = {"dtype": "uint8", "length": 10, "zlib_base64": base64.b64encode(bomb).decode()}
    with pytest.raises(DataError, match="not 10 bytes"):
        results.unpack(packed)


@pytest.mark.parametrize("protocol", names())
def test_published_rows_chose_their_epochs_as_their_protocol_says(protocol):
    """By its first headline metric, under its filter: unfiltered on the origin's."""
    declared = read_protocol(protocol)
    for path in sorted((PUBLISHED / protocol).glob("*/*.json")):
        train = json.loads(path.read_text())["settings"].get("train")
        if train is not None:
            assert (train["metric"], train["filter_seen"]) == (declared.headline[0], declared.filter_seen)
