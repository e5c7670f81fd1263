"""Events are on disk before anyone is told so, and stay whole whatever ends the process."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import time

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.errors import SettingsError, StorageError
from seqrec.service.events import EventLog, Live
from seqrec.sources.reading import read_log


def appended(folder, *requests, full=1_000_000):
    """The state of the folder after these requests, sent together, with the log still open."""

    async def run():
        log = EventLog(folder, full)
        found = await asyncio.gather(*(log.append(rows) for rows in requests), return_exceptions=True)
        return log, found

    return asyncio.run(run())


def test_what_was_appended_is_a_log_that_training_reads(tmp_path):
    log, _ = appended(tmp_path / "e", [("ann", "x", 3.0), ("bob", "y", 1.5)], [("ann", "z", 2.0)])
    assert log.live.after("ann", -float("inf")) == ["z", "x"]
    log.close()
    assert [p.name for p in (tmp_path / "e").iterdir()] == ["events-00000001.parquet"]
    frame = read_log(tmp_path / "e").frame
    assert frame.sort("timestamp")["item_id"].to_list() == ["y", "z", "x"]
    log, _ = appended(tmp_path / "e", [("ann", "w", 9.0)])
    assert log.live.after("ann", 2.0) == ["x", "w"]
    log.close()
    assert read_log(tmp_path / "e").frame.height == 4


def test_an_answer_comes_after_the_sync(tmp_path, monkeypatch):
    calls = []
    real_sync, real_write = os.fsync, os.write
    monkeypatch.setattr(os, "write", lambda file, data: calls.append("write") or real_write(file, data))
    monkeypatch.setattr(os, "fsync", lambda file: calls.append("sync") or real_sync(file))

    async def run():
        log = EventLog(tmp_path / "e")
        calls.clear()
        await log.append([("ann", "x", 1.0)])
        calls.append("answer")
        return log

    log = asyncio.run(run())
    assert calls == ["write", "sync", "answer"]
    log.close()


def test_requests_that_wait_together_share_a_sync(tmp_path, monkeypatch):
    syncs = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: syncs.append(file) or real(file))
    log, found = appended(tmp_path / "e", *([("u", str(i), float(i))] for i in range(200)))
    assert found == [None] * 200
    assert len(syncs) < 100
    assert log.live.after("u", 189.0) == [str(i) for i in range(190, 200)]
    log.close()


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_refuses_and_keeps_what_was_acknowledged(tmp_path, monkeypatch, call):
    log, _ = appended(tmp_path / "e", [("ann", "x", 1.0)])
    real = getattr(os, call)

    def full(*arguments):
        if call == "write":  # half of it fits
            real(arguments[0], bytes(arguments[1])[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(
        StorageError, match=r"could not be written \(No space left on device\). Check the disk"
    ):
        asyncio.run(log.append([("ann", "y", 2.0)]))
    monkeypatch.undo()
    asyncio.run(log.append([("ann", "z", 3.0)]))
    assert log.live.after("ann", 0.0) == ["x", "z"]
    log.close()
    rows = pl.concat(pl.read_parquet(p) for p in sorted((tmp_path / "e").glob("*.parquet")))
    assert [item for item in rows["item_id"] if item != "y"] == ["x", "z"]
    if call == "write":
        assert "y" not in rows["item_id"]


def test_half_a_line_of_a_killed_writer_is_left_out(tmp_path, caplog):
    folder = tmp_path / "e"
    folder.mkdir()
    (folder / "journal-00000004.jsonl").write_text('["ann","x",1.0]\n["ann","y",2.0]\n["ann","z')
    log, _ = appended(folder)
    assert log.live.after("ann", 0.0) == ["x", "y"]
    assert "line 3 is left out (half a line)" in caplog.text
    log.close()
    assert [p.name for p in folder.iterdir()] == ["events-00000004.parquet"]


def test_a_journal_beside_its_parquet_file_is_not_read_again(tmp_path):
    log, _ = appended(tmp_path / "e", [("ann", "x", 1.0)])
    journal = log.path.read_bytes()
    log.close()
    (tmp_path / "e" / "journal-00000001.jsonl").write_bytes(journal)  # killed before it was removed
    log, _ = appended(tmp_path / "e")
    assert log.live.after("ann", 0.0) == ["x"]
    log.close()


def test_a_full_journal_becomes_a_parquet_file(tmp_path):
    log, _ = appended(tmp_path / "e", [("ann", str(i), float(i)) for i in range(5)], full=4)
    asyncio.run(log.append([("ann", "5", 5.0)]))
    assert sorted(p.suffix for p in (tmp_path / "e").iterdir() if p.name[0] != ".") == [".jsonl", ".parquet"]
    log.close()
    assert read_log(tmp_path / "e").frame.height == 6


def test_an_old_journal_becomes_a_parquet_file_by_itself(tmp_path):
    log = EventLog(tmp_path / "e", age=0.05)
    asyncio.run(log.append([("ann", "x", 1.0)]))
    until = time.monotonic() + 10
    while not list((tmp_path / "e").glob("*.parquet")) and time.monotonic() < until:
        time.sleep(0.01)
    assert read_log(tmp_path / "e").frame["item_id"].to_list() == ["x"]
    asyncio.run(log.append([("ann", "y", 2.0)]))
    log.close()
    assert read_log(tmp_path / "e").frame["item_id"].to_list() == ["x", "y"]


def test_a_folder_has_one_service(tmp_path):
    log, _ = appended(tmp_path / "e")
    with pytest.raises(StorageError, match="e"):
        EventLog(tmp_path / "e")
    log.close()
    with pytest.raises(SettingsError, match="expected a folder of this machine"):
        EventLog("s3://bucket/events")


def test_whole_numbers_stay_whole_numbers(tmp_path):
    log, _ = appended(tmp_path / "e", [(1, 7, 1.0), (2, 8, 2.0)])
    assert json.loads(log.path.read_text().splitlines()[0]) == [1, 7, 1.0]
    log.close()
    assert pl.read_parquet(next((tmp_path / "e").glob("*.parquet"))).schema == {
        "user_id": pl.Int64,
        "item_id": pl.Int64,
        "timestamp": pl.Float64,
    }


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=30), st.integers(-1, 6))
@settings(max_examples=100)
def test_live_events_are_in_the_order_of_their_times(events, moment):
    live = Live()
    live.add((user, number, float(at)) for number, (user, at) in enumerate(events))
    for user in range(3):
        expected = sorted(
            ((at, number) for number, (who, at) in enumerate(events) if who == user and at > moment),
            key=lambda pair: pair[0],
        )
        assert live.after(user, moment) == [number for _, number in expected]
