"""Top-k files: what is written is read back, what is wrong is refused, and an independent judge agrees."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from seqrec.data.catalogue import Catalogue
from seqrec.data.query import Query
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError, SettingsError
from seqrec.evaluation import lists, metrics, ranking
from seqrec.evaluation.ranking import Ranks
from seqrec.scoring import Scores
from seqrec.splitting.last_n import last_n
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.splitting.split import Queries


class Fixed:
    """Scores that depend on the last item only: a seeded table."""

    name = "fixed"

    def numbering(self):
        return {}

    def __init__(self, items: int, levels: int | None = None):
        table = np.random.default_rng(0).random((items, items), dtype=np.float32)
        self.table = torch.from_numpy(np.floor(table * levels) / levels if levels else table)

    def score_blocks(self, query: Query, rows: int = 512):
        for begin in range(0, len(query), rows):
            some = np.arange(begin, min(begin + rows, len(query)))
            asked = query.select(some)
            yield Scores.whole(some, asked, self.table[query.events.items[asked.stops - 1]])


def random_sequences(users: int = 40, items: int = 60, seed: int = 0) -> Sequences:
    rng = np.random.default_rng(seed)
    rows = [rng.choice(items, rng.integers(6, 15), replace=False) for _ in range(users)]
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return Sequences(
        np.concatenate(rows).astype(np.int32),
        offsets,
        Catalogue([f"i{i}" for i in range(items)]),
        Catalogue(list(range(100, 100 + users))),
    )


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("split_of", [leave_one_out, last_n])
@pytest.mark.parametrize("filter_seen", [True, False])
def test_a_written_list_scores_as_the_model_did(tmp_path, ending, split_of, filter_seen):
    split = split_of(random_sequences())
    ranks = ranking.rank(Fixed(60), split, split.test)
    path = tmp_path / f"lists.{ending}"
    lists.write(ranks, split, path, filter_seen)
    scored = lists.score(path, split, filter_seen)
    expected = ranks.headline(filter_seen)
    assert lists.ties_within(ranks, filter_seen) == 0
    assert (scored.longest, scored.without_list, scored.unknown_users, scored.unknown_items) == (20, 0, 0, 0)
    assert np.array_equal(np.where(expected <= 20, expected, metrics.rank_of_miss(60)), scored.ranks)
    for name, values in scored.metrics().items():
        assert np.array_equal(values, metrics.from_ranks(expected)[name]), name
    assert ("position" in lists.read(path).columns) == (split_of is last_n)


@pytest.mark.parametrize("filter_seen", [True, False])
def test_ties_that_reach_a_target_are_counted_and_only_help_the_list(filter_seen):
    split = leave_one_out(random_sequences())
    ranks = ranking.rank(Fixed(60, levels=30), split, split.test)
    expected = ranks.headline(filter_seen)
    scored = lists.score(
        lists.frame(ranks.lists if filter_seen else ranks.lists_unfiltered, split), split, filter_seen
    )
    differ = (scored.ranks != expected) & (np.minimum(scored.ranks, expected) <= 20)
    assert 0 < differ.sum() <= lists.ties_within(ranks, filter_seen)
    assert np.all(scored.metrics()["ndcg@20"] >= metrics.ndcg(expected, 20))


def test_ties_with_seen_items_count_where_nothing_is_filtered():
    none = np.empty((1, 0), dtype=np.int32)
    ranks = Ranks(
        filtered=np.array([1]),
        unfiltered=np.array([2]),
        lists=none,
        lists_unfiltered=none,
        ties=np.array([0]),
        ties_unfiltered=np.array([1]),
        users=np.array([0]),
    )
    assert lists.ties_within(ranks, filter_seen=True) == 0
    assert lists.ties_within(ranks, filter_seen=False) == 1


def listed(split, **columns) -> pl.DataFrame:
    """A good list for the first user, changed by the columns given."""
    history = set(split.sequences.of(0)[:-1].tolist())
    items = [f"i{i}" for i in range(60) if i not in history][:3]
    return pl.DataFrame({"user_id": [100] * 3, "item_id": items, "rank": [1, 2, 3]}).with_columns(
        **{k: pl.Series(v) for k, v in columns.items()}
    )


def test_what_is_wrong_is_refused():
    split = leave_one_out(random_sequences())
    good = listed(split)
    first = good["item_id"][0]
    seen = f"i{split.sequences.of(0)[0]}"
    with pytest.raises(DataError, match="user 100: rank 1 is given twice"):
        lists.score(listed(split, rank=[1, 2, 1]), split)
    with pytest.raises(
        DataError, match=r"user 100: rank 4 in a list of 3\. Number each list from 1 without gaps"
    ):
        lists.score(listed(split, rank=[1, 4, 2]), split)
    with pytest.raises(DataError, match="user 100: rank 7 in a list of 1"):
        lists.score(listed(split, rank=[7, 8, 9])[:1], split)
    with pytest.raises(DataError, match="user 100: rank 0, expected ranks from 1"):
        lists.score(listed(split, rank=[0, 1, 2]), split)
    with pytest.raises(DataError, match=f"user 100: item {first} is recommended twice"):
        lists.score(listed(split, item_id=[first, "i1", first]), split, filter_seen=False)
    with pytest.raises(DataError, match="item zzz is recommended twice"):
        lists.score(listed(split, item_id=["zzz", first, "zzz"]), split)
    with pytest.raises(DataError, match=f"user 100: recommends item {seen}, already in the history"):
        lists.score(listed(split, item_id=[seen, first, "zzz"]), split)
    assert lists.score(listed(split, item_id=[seen, first, "zzz"]), split, filter_seen=False).longest == 3
    many = last_n(random_sequences())
    with pytest.raises(DataError, match="expected a column position"):
        lists.score(good, many)


def test_strangers_are_reported_and_missing_lists_are_misses():
    split = leave_one_out(random_sequences())
    table = pl.concat(
        [listed(split, item_id=["zzz", listed(split)["item_id"][0], "yyy"]), listed(split, user_id=[7] * 3)]
    )
    scored = lists.score(table, split)
    assert (scored.unknown_items, scored.unknown_users, scored.without_list) == (2, 3, 39)
    assert np.all(scored.ranks[1:] == metrics.rank_of_miss(60))
    assert set(scored.metrics()) == {f"{m}@1" for m in metrics.BY_NAME}  # lists of 3 say nothing about @5


def test_position_picks_the_query():
    split = last_n(random_sequences())
    s = split.sequences
    length = int(s.lengths[0])
    targets = s.item_catalogue.decode(s.of(0)[-3:]).to_list()
    table = pl.DataFrame(
        {
            "user_id": [100] * 5,
            "item_id": ["zzz", *targets, "i0"],
            "rank": [1, 2, 1, 1, 1],
            "position": [length - 3, length - 3, length - 2, length - 1, length],
        }
    )
    scored = lists.score(table, split)
    assert scored.ranks[:3].tolist() == [2, 1, 1]
    assert scored.unknown_users == 1  # there is no event at that position
    with pytest.raises(DataError, match=r"the frame: no row belongs to a query of this split. .* from 0"):
        lists.score(table.with_columns(position=pl.lit(0)), split)


def test_ids_may_be_numbers_or_text(tmp_path):
    split = leave_one_out(random_sequences())
    table = listed(split)
    as_text = table.with_columns(user_id=pl.Series(["100", "100.0", "x"]))
    assert lists.score(as_text, split).unknown_users == 1
    as_float = table.with_columns(user_id=pl.Series([100.0, 100.0, 100.7]))
    assert lists.score(as_float, split).unknown_users == 1


def test_ids_with_leading_zeros_stay_what_they_are(tmp_path):
    s = random_sequences()
    users, items = (Catalogue([f"{i:04}" for i in range(n)]) for n in (s.users, 60))
    split = leave_one_out(replace(s, user_catalogue=users, item_catalogue=items))
    ranks = ranking.rank(Fixed(60), split, split.test)
    lists.write(ranks, split, tmp_path / "lists.csv")
    scored = lists.score(tmp_path / "lists.csv", split)
    assert (scored.without_list, scored.unknown_users, scored.unknown_items) == (0, 0, 0)
    assert np.array_equal(
        scored.ranks, np.where(ranks.filtered <= 20, ranks.filtered, metrics.rank_of_miss(60))
    )


@pytest.mark.parametrize(("column", "known"), [("user_id", "100, 101, 102"), ("item_id", "i0, i1, i2")])
def test_lists_of_strangers_only_are_refused(column, known):
    split = leave_one_out(random_sequences())
    with pytest.raises(
        DataError,
        match=f"the frame: no known {column}. Expected ids as in the log, such as {known}. Got a, b, c.",
    ):
        lists.score(listed(split, **{column: ["a", "b", "c"]}), split)


def test_unreadable_files_are_refused(tmp_path):
    path = tmp_path / "lists.csv"
    path.write_text("user_id,item_id\n1,2\n")
    with pytest.raises(DataError, match="Missing: rank"):
        lists.read(path)
    path.write_text("user_id,item_id,rank\n1,2,1\n1,,2\n")
    with pytest.raises(DataError, match="row 3, column item_id"):
        lists.read(path)
    path.write_text("user_id,item_id,rank\n1,2,1.5\n")
    with pytest.raises(DataError, match=r"row 2, column rank: expected a whole number. Got 1.5"):
        lists.read(path)
    pl.DataFrame({"user_id": [1], "item_id": [2], "rank": [1.0]}).write_parquet(tmp_path / "float.parquet")
    with pytest.raises(DataError, match=r"column rank: expected whole numbers. Got Float64"):
        lists.read(tmp_path / "float.parquet")
    (tmp_path / "lists.parquet").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="not readable as parquet"):
        lists.read(tmp_path / "lists.parquet")
    with pytest.raises(DataError, match="no such file"):
        lists.read(tmp_path / "none.csv")
    with pytest.raises(SettingsError, match=r"\.csv or \.parquet"):
        lists.read(tmp_path / "lists.txt")


@pytest.mark.parametrize("target", ["last", "second-last"])
def test_the_independent_judge_agrees(ml_1m_sequences, shared_data, tmp_path, target):
    judge = shared_data.parent / "tools" / "score_topk.py"
    if not judge.is_file():
        pytest.skip(f"needs the independent judge: {judge} does not exist")
    split = leave_one_out(ml_1m_sequences)
    queries = split.test if target == "last" else split.validation
    ranks = ranking.rank(Fixed(3416), split, queries)
    lists.write(ranks, split, tmp_path / "lists.csv", queries=queries)
    data = shared_data / "ml-1m" / "sequences.tsv.gz"
    done = subprocess.run(
        [sys.executable, judge, tmp_path / "lists.csv", "--data", data, "--target", target],
        capture_output=True,
        text=True,
        check=True,
    )
    assert lists.ties_within(ranks) <= 1  # float32 scores that happen to be equal
    ours = metrics.from_ranks(ranks.filtered)
    lines = {
        int(line[1:].split(":")[0]): line.split(":")[1].split()
        for line in done.stdout.splitlines()
        if line.startswith("@")
    }
    for k, words in lines.items():
        for name, value in zip(words[::2], words[1::2]):
            assert float(value) == pytest.approx(
                ours[f"{name}@{k}"].mean(), abs=2e-6 + 1 / 6040 * lists.ties_within(ranks)
            ), (name, k)


@pytest.mark.parametrize("filter_seen", [True, False])
def test_lists_of_queries_with_several_right_answers(tmp_path, filter_seen: bool):
    split = leave_one_out(random_sequences())
    ends = split.sequences.offsets[1:]
    sets = Queries.sets(split.sequences, ends - np.arange(len(ends)) % 3 - 1, ends)
    ranks = ranking.rank(Fixed(60), split, sets)
    lists.write(ranks, split, tmp_path / "lists.csv", filter_seen, sets)
    scored = lists.score(tmp_path / "lists.csv", split, filter_seen, sets)
    found = ranks.headline(filter_seen) <= ranking.LONGEST_LIST
    assert found.any()
    assert scored.ranks[found].tolist() == ranks.headline(filter_seen)[found].tolist()
    assert (scored.ranks[~found] == metrics.rank_of_miss(60)).all()
    for name, values in ranks.metrics(filter_seen, (5, 20)).items():
        assert scored.metrics((5, 20))[name].tolist() == values.tolist()
