import polars as pl
import pytest

from seqrec import read_log, sources
from seqrec.errors import DataError
from seqrec.sources import movielens_1m
from seqrec.splitting.leave_one_out import leave_one_out


@pytest.fixture(scope="module")
def log(shared_data):
    return movielens_1m.read(shared_data / "ml-1m" / "sequences.tsv.gz")


@pytest.fixture(scope="module")
def expected(log):
    return leave_one_out(movielens_1m.benchmark_log(log).sequences()).hash


def test_it_is_what_the_plainest_reading_gives(log, expected, ml_1m_sequences):
    assert leave_one_out(ml_1m_sequences).hash == expected
    s = log.sequences()
    assert s.items.tolist() == ml_1m_sequences.items.tolist()
    assert s.times is None  # partly unknown
    titles = s.item_catalogue.attributes["title"]
    assert titles.null_count() == 0
    assert titles[int(s.item_catalogue.encode([1193])[0])] == "One Flew Over the Cuckoo's Nest (1975)"


def test_the_publishers_file_gives_the_same_order(shared_data, log):
    """On the users whose times are there: ratings.dat, sorted by time with ties in file order, is what
    sequences.tsv.gz says."""
    ratings = read_log(shared_data / "ml-1m" / "ratings-users-1-to-2999.dat.gz")
    assert sources.detect(shared_data / "ml-1m" / "ratings-users-1-to-2999.dat.gz") == "ml-1m"
    catalogue = log.sequences().item_catalogue
    kept = ratings.where(pl.col("item_id").is_in(catalogue.ids.implode())).sequences(item_catalogue=catalogue)
    known = log.where(pl.col("user_id") <= 2999).sequences(item_catalogue=catalogue)
    assert kept.users == 2999
    for name in ("items", "offsets", "times", "ratings"):
        assert getattr(kept, name).tolist() == getattr(known, name).tolist(), name


@pytest.fixture(scope="module")
def whole(log):
    """The log with the missing event put back (its item is not known; any will do)."""
    events = log.frame.with_columns(order=pl.col("position") * 2)
    last = events.filter(pl.col("user_id") == movielens_1m.SHORT_USER)["order"].max()
    missing = events.head(1).with_columns(
        user_id=pl.lit(movielens_1m.SHORT_USER, pl.Int64), order=pl.lit(last - 1, pl.Int64)
    )
    return pl.concat([events, missing]).sort("user_id", "order")


def test_sasrecs_text_gives_the_same_split(whole, expected, tmp_path):
    """As its authors number them: users and items from 1 by first appearance."""
    numbers = {item: i + 1 for i, item in enumerate(whole["item_id"].unique(maintain_order=True))}
    text = "".join(
        f"{user} {numbers[item]}\n" for user, item in whole.select("user_id", "item_id").iter_rows()
    )
    (tmp_path / "ml-1m.txt").write_text(text)
    log = sources.load("ml-1m", data_dir=tmp_path)
    assert len(log) == movielens_1m.EVENTS
    assert leave_one_out(movielens_1m.benchmark_log(log).sequences()).hash == expected


def test_ratings_dat_gives_the_same_split(whole, expected, tmp_path):
    """A whole ratings.dat made up around the known order: rarer items beside, each user's rows out of order,
    times instead of positions."""
    rare = pl.DataFrame(
        {"user_id": [1, 2, 3, 4], "item_id": [9999] * 4, "order": [5, 5, 5, 5]},
        schema=whole.select("user_id", "item_id", "order").schema,
    )
    rows = pl.concat([whole.select("user_id", "item_id", "order"), rare]).with_columns(
        shuffled=pl.int_range(pl.len()).shuffle(seed=0)
    )
    rows = rows.sort("user_id", "shuffled").with_columns(pl.col("order") * 60 + 978_300_000)
    lines = rows.select(pl.format("{}::{}::3::{}", "user_id", "item_id", "order"))
    (tmp_path / "ratings.dat").write_text("\n".join(lines.to_series()) + "\n")
    log = sources.load("ml-1m", data_dir=tmp_path)
    assert len(log) == movielens_1m.EVENTS + 4
    kept = movielens_1m.benchmark_log(log)
    assert len(kept) == movielens_1m.EVENTS - 1
    assert leave_one_out(kept.sequences()).hash == expected


def test_the_benchmark_needs_the_whole_log(log):
    with pytest.raises(DataError, match="expected the whole of MovieLens-1M"):
        movielens_1m.benchmark_log(log.where(pl.col("user_id") < 100))


def test_the_form_with_times(shared_data, log, tmp_path):
    """The events of the other form in their order, and the one that it lacks; the same from ratings.dat."""
    timed = movielens_1m.timed_log(shared_data)
    assert len(timed) == movielens_1m.EVENTS
    assert timed.frame["timestamp"].null_count() == 0
    known = log.frame.select("user_id", "item_id")
    ours = timed.frame.filter(
        (pl.col("user_id") != movielens_1m.SHORT_USER) | (pl.col("item_id") != 1181)
    ).select("user_id", "item_id")
    assert ours.equals(known)
    assert timed.sequences().item_catalogue.attributes["title"].null_count() == 0

    rare = timed.frame.head(4).with_columns(item_id=pl.lit(9999, pl.Int64))
    lines = pl.concat([timed.frame, rare]).select(
        pl.format("{}::{}::3::{}", "user_id", "item_id", "timestamp")
    )
    (tmp_path / "ratings.dat").write_text("\n".join(lines.to_series()) + "\n")
    again = movielens_1m.timed_log(tmp_path)
    assert leave_one_out(again.sequences()).hash == leave_one_out(timed.sequences()).hash
    (tmp_path / "ratings.dat").write_text("1::2::3::978300000\n" * 5)
    with pytest.raises(DataError, match="expected the whole of MovieLens-1M"):
        movielens_1m.timed_log(tmp_path)
