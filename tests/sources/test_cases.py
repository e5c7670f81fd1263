"""Small logs in the form of other people's: columns of unknown names and notations, partly empty ones, ids as
other programs write them, histories in lists. Read and prepared, they give the same answer."""

import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from random_logs import as_lists, assert_same, write

from seqrec import read_log
from seqrec.data.interactions import Interactions
from seqrec.errors import DataError, SettingsError
from seqrec.evaluation.evaluation import evaluate
from seqrec.experiment.settings import RunSettings
from seqrec.models.markov import Markov
from seqrec.sources.preparing import prepare
from seqrec.splitting import SplitSettings

CASES = Path(__file__).parent / "cases_columns"
MALFORMED = Path(__file__).parent / "cases"


def both(path, folder, **options):
    """The sequences of a log, the same whether it is read or prepared."""
    read = read_log(path, **options).sequences()
    assert_same(read, prepare(path, folder / "prepared", **options))
    return read


def test_the_time_of_a_ring_is_found_whatever_it_is_called_and_however_written(tmp_path, caplog):
    for name in ("ring_created_at.csv", "ring_event_date.tsv", "ring_utc_suffix.csv", "ring_us_dates.csv"):
        sequences = both(CASES / name, tmp_path)
        split = SplitSettings(name="leave_one_out").apply(sequences)
        recall = evaluate(Markov().fit(split), split, split.test, ["recall@1"], False)["recall@1"]
        assert recall == 1.0, name
        assert "no column of times" not in caplog.text
    assert "all times are of one date, 3/1/2024" in caplog.text  # in either order, and said


def test_without_times_the_order_of_the_file_is_said_with_what_looked_like_times(tmp_path, caplog):
    path = write(tmp_path, "user_id,item_id,time_spent,release_date\n1,a,x,2020-01-01\n1,b,y,2019-01-01\n")
    sequences = both(path, tmp_path)
    assert sequences.times is None
    assert "no column of times was found: the order of the file orders the events" in caplog.text
    assert "Could 'release_date', 'time_spent' be the time?" in caplog.text
    assert "--column timestamp=release_date" in caplog.text
    caplog.clear()
    read_log(path, columns={"timestamp": None})  # said: no warning
    assert not caplog.records
    read_log(write(tmp_path, "user_id,item_id,position\n1,a,1\n1,b,0\n"))
    assert "no column of times was found: position orders the events" in caplog.text


def test_numbers_that_may_be_times_are_named(tmp_path, caplog):
    read_log(write(tmp_path, "user_id,item_id,price,t\n1,a,3,1577836800\n1,b,4,1577836900\n"))
    assert "Could 't' be the time?" in caplog.text
    read_log(write(tmp_path, "user_id,item_id,timestamp\n1,a,1.57784e+09\n1,b,1.57784e+09\n"))
    assert "times such as 1.57784e+09 are written with so few digits" in caplog.text


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_of_dates_is_a_time_by_its_type(tmp_path, kind, caplog):
    frame = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["b", "a"], "seen": ["2020-01-02", "2020-01-01"]})
    frame = frame.with_columns(pl.col("seen").str.to_datetime("%Y-%m-%d"))
    path = tmp_path / f"log.{kind}"
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    for sequences in (both(path, tmp_path), Interactions.from_frame(frame).sequences()):
        assert as_lists(sequences) == {"u": [("a", 1577836800), ("b", 1577923200)]}
    assert "'seen' is read as the time of the events, as the only column of dates" in caplog.text


def test_where_two_columns_could_be_the_time_they_are_asked_about(tmp_path):
    path = write(tmp_path, "user_id,item_id,created_at,event_time\nu,a,2020-01-01,5\nu,b,2020-01-02,4\n")
    for read in (read_log, lambda p: prepare(p, tmp_path / "out")):
        with pytest.raises(
            DataError, match=r"'event_time' and 'created_at' may both be the time.*--column timestamp="
        ):
            read(path)
    assert both(path, tmp_path, columns={"timestamp": "event_time"}).times.tolist() == [4, 5]
    by_type = write(tmp_path, "user_id,item_id,first,second\nu,a,2020-01-01,2020-01-02\n")
    with pytest.raises(DataError, match="'first' and 'second' may each be the time"):
        read_log(by_type)
    # of two names only one holds times
    named = write(tmp_path, "user_id,item_id,date,created_at\nu,a,?,2020-01-01\nu,b,?,2020-01-02\n")
    assert both(named, tmp_path).times.tolist() == [1577836800, 1577923200]


def test_a_date_and_a_time_of_day_in_two_columns_are_one_time(tmp_path):
    path = write(tmp_path, "user_id,item_id,Date,Time\nu,a,2020-01-01,10:00\nu,b,2020-01-01,09:30\n")
    assert as_lists(both(path, tmp_path)) == {"u": [("b", 1577871000), ("a", 1577872800)]}
    path = write(tmp_path, "user_id,item_id,day,clock\nu,a,27-04-2015,10:00:00\nu,b,27-04-2015,09:30:00\n")
    said = both(path, tmp_path, columns={"timestamp": "day+clock"})
    assert as_lists(said) == {"u": [("b", 1430127000), ("a", 1430128800)]}
    with pytest.raises(DataError, match="no column 'day\\+hour' for timestamp"):
        read_log(path, columns={"timestamp": "day+hour"})


@pytest.mark.parametrize(
    ("texts", "options", "expected"),
    [
        (["12/1/2010 8:26", "12/13/2010 8:26"], {}, [1291191960, 1292228760]),
        (["27-04-2015", "01-05-2015"], {}, [1430092800, 1430438400]),
        (["27.04.2015 10:00:01.5", "01.05.2015 00:00"], {}, [1430128801.5, 1430438400]),
        (["01/02/2020", "03/02/2020"], {"time_format": "day_first"}, [1580515200, 1580688000]),
        (["01/02/2020", "03/02/2020"], {"time_format": "month_first"}, [1577923200, 1583107200]),
        (["1/31/2020 12:10 AM", "1/31/2020 1:05 pm"], {}, [1580429400, 1580475900]),
        (["20.01.31", "20.02.01"], {"time_format": "%y.%m.%d"}, [1580428800, 1580515200]),
        (["2019-10-01 00:00:00 UTC", "2019-10-01 00:00:01 UTC"], {}, [1569888000, 1569888001]),
        (["2020-01-31 10:00:00 +0200", "2020-01-31T10:00:00+01:00"], {}, [1580457600, 1580461200]),
        (["Tue Apr 03 18:00:09 +0000 2012", "Tue Apr 03 18:00:10 +0000 2012"], {}, [1333476009, 1333476010]),
        (["3 Sep 2009", "13 Sep 2009"], {}, [1251936000, 1252800000]),
        (["20200131", "20200201"], {}, [1580428800, 1580515200]),
    ],
)
def test_notations_of_times(tmp_path, texts, options, expected):
    path = write(tmp_path, "user;item;time\n" + "".join(f"u;i{i};{text}\n" for i, text in enumerate(texts)))
    assert both(path, tmp_path, **options).times.tolist() == expected
    frame = pl.DataFrame({"user": ["u"] * len(texts), "item": range(len(texts)), "time": texts})
    if texts[0] != "20200131":
        log = Interactions.from_frame(frame, **options)
        assert log.frame["timestamp"].to_list() == expected


def test_days_and_months_in_either_order_are_asked_about_over_the_whole_column(tmp_path):
    rows = [f"u,i{i},01/02/2020\nu,j{i},03/02/2020\n" for i in range(100)]
    path = write(tmp_path, "user_id,item_id,date\n" + "".join(rows))
    with pytest.raises(
        DataError, match=r"01/02/2020 and 03/02/2020 may have the day or the month first.*time_"
    ):
        read_log(path)
    late = write(tmp_path, "user_id,item_id,date\n" + "".join(rows) + "u,last,13/02/2020\n")
    assert int(both(late, tmp_path).times.max()) == 1581552000
    # the files of a log are one column
    a = write(tmp_path, "user_id,item_id,date\nu,a,01/02/2020\n", "a.csv")
    b = write(tmp_path, "user_id,item_id,date\nu,b,13/02/2020\n", "b.csv")
    assert both([a, b], tmp_path).times.tolist() == [1580515200, 1581552000]
    gaps = write(tmp_path, 'user_id,item_id,date,position\nu,a,"  ",1\nu,b,13/02/2020,2\n', "d.csv")
    assert read_log(gaps).frame["timestamp"].to_list() == [None, 1581552000]
    both(gaps, tmp_path)
    mixed = write(tmp_path, "user_id,item_id,date\nu,a,13/02/2020\nu,b,02/13/2020\n", "c.csv")
    with pytest.raises(DataError, match="in some dates the day comes first, in others the month"):
        read_log(mixed)


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ("day_frist", r"did you mean 'day_first'"),
        ("dd/mm/yyyy", "a format such as"),
        ("%H:%M", "at least day, month and year"),
    ],
)
def test_formats_of_times_are_checked_before_any_data(format, message):
    with pytest.raises(SettingsError, match=rf"time_format: expected .*{message}"):
        read_log("none.csv", time_format=format)
    with pytest.raises(SettingsError, match=r"data\.time_format"):
        RunSettings.of({"data": {"path": "none.csv", "time_format": format}}, "")


def test_dates_and_numbers_may_stand_in_one_log_if_all_are_times(tmp_path):
    # one file's dates must not put the other's in 1970
    sequences = both([MALFORMED / "compact.csv", MALFORMED / "iso.csv"], tmp_path)
    assert sequences.times.tolist() == [1580428800, 1580515200, 1580601600, 1580688000]
    order = write(tmp_path, "user_id,item_id,timestamp\nu,a,1\n", "a.csv")
    dates = write(tmp_path, "user_id,item_id,timestamp\nu,a,2020-01-01\n", "b.csv")
    for read in (read_log, lambda paths: prepare(paths, tmp_path / "out")):
        with pytest.raises(DataError, match="some times are dates, others numbers such as 1"):
            read([order, dates])


def test_times_that_float32_has_rounded_are_refused(tmp_path):
    frame = pl.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "timestamp": [1.6e9, 1.6e9 + 60]})
    frame.with_columns(pl.col("timestamp").cast(pl.Float32)).write_parquet(tmp_path / "log.parquet")
    for read in (read_log, lambda path: prepare(path, tmp_path / "out")):
        with pytest.raises(DataError, match=r"'timestamp': expected times to the second. Got Float32"):
            read(tmp_path / "log.parquet")
    order = frame.with_columns(pl.Series("timestamp", [0, 1], dtype=pl.Float32))
    assert Interactions.from_frame(order).frame["timestamp"].to_list() == [0, 1]


def test_positions_on_a_page_do_not_order_events_that_have_times(tmp_path, caplog):
    path = write(tmp_path, "user_id,item_id,timestamp,position\nu,a,1,7\nu,b,2,3\n")
    assert as_lists(both(path, tmp_path)) == {"u": [("a", 1), ("b", 2)]}
    assert "a later position has an earlier time" in caplog.text


def test_a_partly_empty_transaction_is_no_reason_to_drop_events(tmp_path, caplog):
    path = CASES / "views_and_orders.csv"
    sequences = both(path, tmp_path)
    assert as_lists(sequences)[257597] == [(318965, 1433221999.827), (355908, 1433221332.117)][::-1]
    assert sequences.events == 4
    assert len(np.unique(sequences.baskets)) == 4
    assert "3 of 4 events have no basket: each of them stands for itself" in caplog.text
    for name in ("session_id", "order_id", "basket_id"):
        text = f"user_id,item_id,timestamp,{name}\nu,a,1,\nu,b,2,7\nu,c,3,7\nu,d,4,\nu,e,5,8\n"
        s = both(write(tmp_path, text), tmp_path)
        groups = (s.sessions if name == "session_id" else s.baskets).tolist()
        assert groups[1] == groups[2]
        assert len(set(groups)) == 4
    empty = both(write(tmp_path, "user_id,item_id,timestamp,order_id\nu,a,1,\nu,b,2,\n"), tmp_path)
    assert empty.baskets is None
    assert "2 of 2 events have no basket: the column is left out" in caplog.text
    frame = pl.DataFrame(
        {"user_id": [1, 1], "item_id": [1, 2], "timestamp": [1, 2], "order_id": [4000.0, None]}
    )
    frame.write_parquet(tmp_path / "log.parquet")
    assert both(tmp_path / "log.parquet", tmp_path).baskets.tolist() == [0, 1]


def test_lines_of_one_invoice_are_a_basket(tmp_path):
    sequences = both(CASES / "baskets_of_lines.csv", tmp_path)
    assert len(np.unique(sequences.baskets)) == 60
    assert sequences.times is not None
    jsonl = write(
        tmp_path,
        '{"user_id": 1, "item_id": 2, "timestamp": 1, "order_id": null}\n' * 3
        + '{"user_id": 1, "item_id": 2, "timestamp": 2, "order_id": 7}\n',
        "log.jsonl",
    )
    assert both(jsonl, tmp_path).baskets.max() == 3


def test_rows_to_keep(tmp_path, caplog):
    path = CASES / "views_and_orders.csv"
    for where, count in [
        ("event = transaction", 1),
        ("event != view", 2),
        ("event in view, transaction and itemid > 300000", 2),
        ("event = 'view' and visitorid = 992329", 1),
        ("transactionid >= 4000.0", 1),
        ("item_id = 355908", 1),
    ]:
        caplog.set_level(logging.INFO, "seqrec")
        assert both(path, tmp_path, where=where).events == count
        assert f"where {where}: {count} of 4 rows kept" in caplog.text
    rated = write(tmp_path, "user_id,item_id,stars\nu,a,5\nu,b,3.5\nu,c,\n")
    assert both(rated, tmp_path, where="rating >= 3.5").events == 2
    for read in (read_log, lambda path, **o: prepare(path, tmp_path / "out", **o)):
        with pytest.raises(DataError, match=r"where: no column 'evnt'.*Did you mean 'event'\?"):
            read(path, where="evnt = view")
        with pytest.raises(
            DataError, match=r"'event': where: expected numbers to compare with >.* Got 'view'"
        ):
            read(path, where="event > 3")
        with pytest.raises(DataError, match="where='event = buy' leaves none of 4 rows"):
            read(path, where="event = buy")
    for wrong in ("event", "event = ", "= 3", "rating >= good"):
        with pytest.raises(SettingsError, match=r"^where: expected a (column, an operator|number after >=)"):
            read_log(path, where=wrong)
    sessions = write(tmp_path, "SessionId\tItemId\tTime\n1\t2\t3\n1\t3\t4\n", "log.txt")
    assert len(read_log(sessions, where="Time > 3")) == 1


def test_rows_without_an_id_are_dropped_only_if_asked(tmp_path, caplog):
    path = write(tmp_path, "user_id,item_id,timestamp\nu,a,1\n,b,2\nu,,3\nu,c,soon\n")
    options = {"missing_ids": "drop"}
    for read in (read_log, lambda path, **o: prepare(path, tmp_path / "out", **o)):
        with pytest.raises(DataError, match=r"row 2, column 'user_id': missing id.*--missing-ids drop"):
            read(path)
        with pytest.raises(DataError, match="row 4, column 'timestamp'"):  # the file's row
            read(path, **options)
    path = write(tmp_path, "user_id,item_id,timestamp\nu,a,1\n,b,2\nu, ,3\nu,c,4\n")
    assert as_lists(both(path, tmp_path, **options)) == {"u": [("a", 1), ("c", 4)]}
    assert "2 of 4 rows have no user or no item: dropped" in caplog.text


def test_ids_are_what_people_type(tmp_path):
    sequences = both(CASES / "ids_blanks_commas.csv", tmp_path)
    assert as_lists(sequences)["u1"] == [("5", 1), ("a,b", 2), ('say "hi"', 3)]
    model = Markov().fit(SplitSettings(name="leave_one_out").apply(sequences).refit())
    assert model.recommend([["5"]], k=1, filter_seen=False)["item_id"].to_list() == ["a,b"]
    assert model.recommend([["a,b"], ['say "hi"']], k=1)["query"].to_list() == [0, 1]
    sequences = both(CASES / "ids_as_floats.csv", tmp_path)
    assert as_lists(sequences) == {12417: [(1001, 1), (1002, 2)], 12418: [(1001, 1), (1003, 2)]}
    # one id in two notations
    path = write(tmp_path, "user_id,item_id,order_id\n1.0,7,1\n1,7.0,1.0\n2,8,2\n")
    sequences = both(path, tmp_path)
    assert sequences.user_catalogue.ids.to_list() == [1, 2]
    assert sequences.item_catalogue.ids.to_list() == [7, 8]
    assert sequences.baskets.tolist() == [0, 0, 1]
    header = write(tmp_path, "user_id, item_id, when\n1, 2, 3\n")
    assert both(header, tmp_path, columns={"timestamp": "when"}).times.tolist() == [3]


def test_histories_in_lists_are_read_with_the_items_that_follow(tmp_path, caplog):
    sequences = both(CASES / "history_list.inter", tmp_path)
    items = {user: [item for item, _ in events] for user, events in as_lists(sequences).items()}
    assert items == {1: [2, 3, 4, 5, 6], 2: [7, 8, 9]}
    assert "3 rows are read as histories" in caplog.text
    sequences = both(CASES / "session_list.inter", tmp_path)
    items = {user: [item for item, _ in events] for user, events in as_lists(sequences).items()}
    assert items == {"a": [1, 2, 3, 4], "b": [2, 3, 5]}
    # every prefix of a session, longest first; the end of a long past; a history of its own
    text = (
        "session_id:token\titem_id_list:token_seq\titem_id:token\n"
        "a\t1 2 3\t4\na\t1 2\t3\na\t1\t2\na\t2 3 4\t5\nb\t1 2\t3\nb\t8 9\t7\n"
    )
    log = read_log(write(tmp_path, text, "long.inter"))
    items = {user: [item for item, _ in events] for user, events in as_lists(log.sequences()).items()}
    assert items == {"a": [1, 2, 3, 4, 5], "b": [1, 2, 3, 8, 9, 7]}
    assert "1 histories share nothing" in caplog.text


def test_partly_empty_times_give_the_same_read_and_prepared(tmp_path):
    path = MALFORMED / "partial_times.csv"
    assert both(path, tmp_path).times is None
    read = read_log(path).filter(min_item_count=2).sequences()
    prepared = prepare(path, tmp_path / "out", min_item_count=2)
    assert_same(read, prepared)
    assert read.times.dtype == np.int64
    twice = write(tmp_path, "user_id,item_id,timestamp,position\n0,a,1.5,0\n0,b,1,1\n0,b,2,2\n")
    assert_same(
        read_log(twice).filter(min_item_count=2).sequences(),
        prepare(twice, tmp_path / "out", min_item_count=2),
    )


def test_the_command_line_has_the_options_of_rows_and_times(tmp_path):
    from typer.testing import CliRunner

    from seqrec.cli import app

    text = "user_id,item_id,date,event\n" + "".join(
        f"u{u},i{i},0{i}/02/2020,{'buy' if i % 2 else 'view'}\n" for u in range(3) for i in range(1, 9)
    )
    path = write(tmp_path, text + ",i1,01/02/2020,buy\n")
    options = ["--time-format", "day_first", "--where", "event = buy", "--missing-ids", "drop"]
    for command in (
        ["data", "check", str(path)],
        ["prepare", str(path), str(tmp_path / "out")],
        ["recommend", str(path), "--model", "markov", "-u", "u1"],
        ["train", "--data", str(path), "--model", "markov"],
    ):
        result = CliRunner().invoke(app, [*command, *options])
        assert result.exit_code == 0, (command, result.output)
    about = (tmp_path / "out" / "sequences.json").read_text()
    assert '"events": 12' in about
