"""The page says what the result files say."""

import pytest
from made_up_results import write_results

from seqrec import report as reports
from seqrec.benchmark import leaderboard, runs
from seqrec.benchmark.results import Result, collect, groups
from seqrec.errors import DataError


def test_one_table_a_protocol(tmp_path):
    write_results(tmp_path / "results", "made-up-v1")
    write_results(tmp_path / "results", "made-up-v2")
    leaderboard.write(tmp_path / "results", tmp_path / "LEADERBOARD.md")
    page = (tmp_path / "LEADERBOARD.md").read_text()
    assert page.count("| model | seeds | ndcg@10 | recall@10 |") == 2
    assert page.index("## made-up-v1") < page.index("## made-up-v2")
    assert page.count("| good | 2 | .") == 2
    assert "do not edit" in page
    assert (
        "1,000 candidates, 300 users, 600 test queries, split `0000000000000000`; seen items are filtered."
        in page
    )
    assert "Hardware: a machine." in page
    assert "Data: made-up, first, from nowhere." in page
    assert "Run 2026-01-02." in page


def test_rows_and_significance(tmp_path):
    write_results(tmp_path)
    lines = [line for line in leaderboard.render(tmp_path).splitlines() if line.startswith("| ")]
    header, good, similar, poor = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    row = dict(zip(header, poor))
    assert dict(zip(header, good))["vs best"] == "best"
    assert dict(zip(header, similar))["vs best"].startswith("≈ (p ")
    assert row["vs best"] == "< .001"
    assert row["positions/s"] == "–"
    assert row["train s"] == "2.5"
    assert "[" in row["ndcg@10"]
    assert "ndcg@10 unfiltered" in header


def test_the_table_of_one_protocol(tmp_path):
    write_results(tmp_path, "made-up-v1")
    own = tmp_path / "own.yaml"
    own.write_text(
        "name: made-up-v1\ntitle: t\ndata: {name: a.csv, revision: r}\nsplit: {name: leave_one_out}\n"
    )
    assert [row["model"] for row in leaderboard.table(tmp_path, own).rows] == ["good", "similar", "poor"]
    with pytest.raises(DataError, match="expected results of ml-1m-origin-v1"):
        leaderboard.table(tmp_path, "ml-1m-origin-v1")


@pytest.mark.parametrize(
    ("changes", "shown", "none"),
    [
        ({"ties": 0}, "0", True),
        ({"ties": 3}, "3", False),
        # counted under the filter, which says nothing about unfiltered lists
        ({"ties": 0, "filter_seen": False}, "–", False),
        ({"ties": 3, "ties_unfiltered": 0, "filter_seen": False}, "0", True),
        ({"ties": 0, "ties_unfiltered": 2, "filter_seen": False}, "2", False),
    ],
)
def test_ties_are_those_of_the_headline(changes, shown, none, tmp_path):
    write_results(tmp_path)
    table = leaderboard.table_of(
        next(iter(groups(Result(r.content | changes, r.path) for r in collect(tmp_path))))
    )
    assert {table.text(row, "ties") for row in table.rows} == {shown}
    assert ("There are none" in " ".join(table.notes)) == none
    assert ("they were not counted" in " ".join(table.notes)) == (shown == "–")


def test_a_table_says_that_models_were_not_tuned_alike(tmp_path):
    write_results(tmp_path)
    found = collect(tmp_path)
    (group,) = groups(found)
    assert not leaderboard.budgets(group)  # nothing is trained by gradient
    settings = {
        "good": {"train": {"epochs": 20, "weight_decay": 0.01}},
        "similar": {"train": {"epochs": 8}},  # of a version that had no weight decay
        "poor": {},
    }
    (group,) = groups(
        Result(r.content | {"settings": {"model": r["model"], **settings[r["model"]]}}, r.path) for r in found
    )
    (note,) = leaderboard.budgets(group)
    assert "same budget" in note
    assert note.endswith("weight decay: good 20, 0.01; similar 8, 0.")
    assert f"- {note}" in leaderboard.table_of(group).notes
    settings["similar"]["train"]["epochs"] = None  # they followed the log
    more = {"training": {"plan": {"epochs": 53}}}
    (group,) = groups(
        Result(r.content | more | {"settings": {"model": r["model"], **settings[r["model"]]}}, r.path)
        for r in found
    )
    assert "similar 53, 0." in leaderboard.budgets(group)[0]


def test_what_intervals_and_tests_leave_out_is_said(tmp_path):
    write_results(tmp_path)
    assert "leave out how other seeds would come out" in " ".join(leaderboard.render(tmp_path).split())
    assert "leave out how others would come out" in " ".join(leaderboard.KEY)
    reports.write(tmp_path, tmp_path / "page.html")
    assert "leave out how other seeds would come out" in (tmp_path / "page.html").read_text()
    folders = [str(tmp_path / "made-up-v1" / model) for model in ("good", "poor")]
    assert "Seeds: A 0, 1; B 0, 1." in " ".join(runs.compare(*folders).notes)


def test_p_values_read_as_the_field_prints_them():
    assert [leaderboard.p_value(p) for p in (0.0001, 0.0312, 1.0)] == ["< .001", ".031", "1.000"]


def test_paths_of_a_machine_are_not_shown():
    without = leaderboard.without_folders
    assert without("/home/me/data/log.csv") == "log.csv"
    assert without("the files in /home/me/data, and C:\\data\\x.csv") == "the files in data, and x.csv"
    assert without("https://example.org/a/b.zip") == "https://example.org/a/b.zip"
    assert without("data/log.csv") == "data/log.csv"
