"""Storage against a real S3 server, and against one that fails."""

from __future__ import annotations

import gzip
import socket
import time
import urllib.request
from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
from misbehaving_s3 import MisbehavingS3, misbehaving

import seqrec
from seqrec import storage
from seqrec.data import files
from seqrec.errors import DataError, StorageError
from seqrec.models.hrm import HRM
from seqrec.models.popularity import Popularity
from seqrec.storage import s3

MORE_THAN_A_PART = s3.PART + (1 << 20)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits between tries are short."""
    from botocore.retries import standard

    monkeypatch.setattr(standard.ExponentialBackoff, "delay_amount", lambda self, context: 0.001)
    monkeypatch.setattr(s3, "WAIT_SECONDS", 0.001)


@pytest.fixture(scope="module")
def proxy(s3_server: str) -> Iterator[MisbehavingS3]:
    with misbehaving(s3_server) as server:
        yield server


@pytest.fixture
def faulty(
    s3_bucket: str, proxy: MisbehavingS3, quick: None, monkeypatch: pytest.MonkeyPatch
) -> MisbehavingS3:
    """The way to ``s3_bucket`` leads through a proxy that can fail."""
    proxy.faults.clear()
    proxy.requests.clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
    return proxy


def content(path: str) -> bytes:
    with storage.open_read(path) as stream:
        return stream.read()


def uploads(bucket: str, server: str) -> bytes:
    """What the server says of uploads that are begun and neither complete nor given up."""
    with urllib.request.urlopen(f"{server}/{bucket.removeprefix('s3://')}?uploads", timeout=10) as answer:
        return answer.read()


def test_round_trips(s3_bucket):
    folder = storage.join(s3_bucket, "some", "folder")
    frame = pl.DataFrame({"a": [1, 2]})
    storage.write_parquet(frame, storage.join(folder, "f.parquet"))
    assert storage.read_parquet(storage.join(folder, "f.parquet")).equals(frame)
    storage.write_json({"a": [1, None]}, storage.join(folder, "f.json"))
    assert storage.read_json(storage.join(folder, "f.json")) == {"a": [1, None]}
    array = np.arange(6).reshape(2, 3)
    storage.write_array(array, storage.join(folder, "deep", "f.npy"))
    np.testing.assert_array_equal(storage.read_array(storage.join(folder, "deep", "f.npy")), array)
    assert storage.names(folder) == ["deep", "f.json", "f.parquet"]
    assert storage.files_below(s3_bucket) == [
        f"{folder}/{name}" for name in ("deep/f.npy", "f.json", "f.parquet")
    ]
    assert storage.is_folder(folder)
    assert storage.is_folder(s3_bucket)
    assert storage.exists(s3_bucket)
    assert not storage.is_folder(storage.join(folder, "f.json"))
    assert content(
        storage.sibling(storage.join(folder, "f.json"), "f.json").replace("s3://", "s3a://")
    ).startswith(b"{")


def test_what_is_written_is_listed_at_once_and_what_is_removed_is_not(s3_bucket):
    """A cache of listings would hide it."""
    assert not storage.exists(f"{s3_bucket}/run/a.txt")
    storage.write_text("a", f"{s3_bucket}/run/a.txt")
    assert storage.names(f"{s3_bucket}/run") == ["a.txt"]
    server = storage.s3.filesystem().call_s3  # another program
    server("put_object", Bucket=s3_bucket.removeprefix("s3://"), Key="run/b.txt", Body=b"b")
    assert storage.names(f"{s3_bucket}/run") == ["a.txt", "b.txt"]
    # as AWS's console makes a folder
    server("put_object", Bucket=s3_bucket.removeprefix("s3://"), Key="run/", Body=b"")
    storage.remove(f"{s3_bucket}/run/a.txt")
    storage.remove(f"{s3_bucket}/run/a.txt")
    assert storage.names(f"{s3_bucket}/run") == ["b.txt"]
    assert storage.files_below(f"{s3_bucket}/run") == [f"{s3_bucket}/run/b.txt"]
    assert not storage.exists(f"{s3_bucket}/run/a.txt")


@pytest.mark.parametrize("size", [6 << 20, MORE_THAN_A_PART])
def test_an_error_while_writing_writes_nothing(s3_bucket, s3_server, size):
    """Neither a small file, sent at once, nor one that is sent in parts: leaving fsspec's own block would
    complete both."""
    path = f"{s3_bucket}/model/weights"
    storage.write_text("old", path)

    def write_half() -> None:
        with storage.open_write(path) as stream:
            stream.write(b"x" * size)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert content(path) == b"old"
    assert storage.names(f"{s3_bucket}/model") == ["weights"]
    assert b"<Upload>" not in uploads(s3_bucket, s3_server)


def test_large_files_go_in_parts_and_come_back_whole(faulty, s3_bucket):
    array = np.random.default_rng(0).integers(0, 1 << 62, MORE_THAN_A_PART // 8)
    storage.write_array(array, f"{s3_bucket}/large.npy")
    assert sum("partNumber" in request for request in faulty.requests) == 2
    np.testing.assert_array_equal(storage.read_array(f"{s3_bucket}/large.npy"), array)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "csv.gz"])
def test_logs_are_streamed(s3_bucket, monkeypatch, kind):
    monkeypatch.setattr(s3, "AHEAD", 1 << 14)
    frame = pl.DataFrame(
        {"user_id": [f"u{i % 97}" for i in range(50_000)], "item_id": [f"i{i % 31}" for i in range(50_000)]}
    )
    path = f"{s3_bucket}/log.{kind}"
    with storage.open_write(path) as stream:
        if kind == "parquet":
            frame.write_parquet(stream)
        elif kind == "jsonl":
            frame.write_ndjson(stream)
        else:
            text = frame.write_csv(separator="\t" if kind == "tsv" else ",").encode()
            stream.write(gzip.compress(text) if kind == "csv.gz" else text)
    batches = list(files.batches(path, kind.removesuffix(".gz"), block=1 << 16, rows=10_000))
    assert pl.concat(batches).equals(frame)
    assert len(batches) > 1
    assert seqrec.read_log(path).frame.select("user_id", "item_id").equals(frame)


# What goes wrong.


def test_a_wrong_bucket_is_named(s3_bucket):
    wrong = f"{s3_bucket}-other"
    for attempt in (
        lambda: content(f"{wrong}/log.csv"),
        lambda: storage.write_text("x", f"{wrong}/x.txt"),
        lambda: storage.exists(f"{wrong}/x"),
        lambda: storage.is_folder(f"{wrong}/x"),
        lambda: storage.exists(wrong),
        lambda: storage.names(f"{wrong}/x"),
        lambda: storage.remove(f"{wrong}/x"),
        lambda: seqrec.read_log(f"{wrong}/log.csv"),
        lambda: seqrec.load(f"{wrong}/model"),
        lambda: seqrec.Sequences.load(f"{wrong}/prepared"),
    ):
        with pytest.raises(
            StorageError, match=f"there is no bucket '{wrong.removeprefix('s3://')}' at http://127.0.0.1"
        ):
            attempt()
    with pytest.raises(DataError, match="no such file"):
        content(f"{s3_bucket}/log.csv")
    with pytest.raises(DataError, match="no such folder"):
        storage.names(f"{s3_bucket}/nothing")
    with pytest.raises(DataError, match="expected the folder of a trained model"):
        seqrec.load(f"{s3_bucket}/model")


def test_no_credentials(s3_bucket, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for attempt in (
        lambda: content(f"{s3_bucket}/x"),
        lambda: storage.write_text("x", f"{s3_bucket}/x"),
        lambda: storage.exists(f"{s3_bucket}/x"),
    ):
        with pytest.raises(StorageError, match=r"/x: no AWS credentials .*Set AWS_ACCESS_KEY_ID"):
            attempt()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageError, match=r"no AWS credentials .*nobody"):
        storage.exists(f"{s3_bucket}/x")


def test_no_permission(faulty, s3_bucket):
    storage.write_text("x", f"{s3_bucket}/x")
    faulty.inject("refuse", times=100)
    for attempt in (
        lambda: content(f"{s3_bucket}/x"),
        lambda: storage.write_text("x", f"{s3_bucket}/x"),
        lambda: storage.exists(f"{s3_bucket}/x"),
    ):
        with pytest.raises(StorageError, match=r"/x: access denied .*Check the credentials"):
            attempt()


def test_a_server_out_of_reach_is_given_up(s3_bucket, quick, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(StorageError, match=r"/x: the connection to http://127.0.0.1:9 failed"):
        storage.exists(f"{s3_bucket}/x")
    monkeypatch.setattr(s3, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(s3, "STALL_SECONDS", 0.1)
    # the system accepts, and nobody answers
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begin = time.monotonic()
        with pytest.raises(StorageError, match=r"/x: the connection to http://127.0.0.1:\d+ failed"):
            storage.exists(f"{s3_bucket}/x")
        assert s3.TRIES * 0.1 < time.monotonic() - begin < 5


def test_without_s3fs_one_line_says_what_to_install(s3_bucket, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    monkeypatch.setenv("AWS_NOTE", "another environment")
    with pytest.raises(StorageError, match=r'pip install "seqrec\[s3\]"'):
        storage.exists(f"{s3_bucket}/x")


def test_addresses_that_are_none(s3_bucket, monkeypatch):
    for wrong in ("s3://", "s3:///key", "s3://no bucket/key"):
        for attempt in (
            storage.exists,
            storage.is_folder,
            storage.names,
            storage.remove,
            content,
            lambda path: storage.write_text("x", path),
        ):
            with pytest.raises(DataError, match=r"expected s3://bucket/key\. Got .* as the bucket"):
                attempt(wrong)
    for attempt in (storage.remove, content, lambda path: storage.write_text("x", path)):
        with pytest.raises(DataError, match=r"expected the address of a file, s3://bucket/key"):
            attempt(f"{s3_bucket}/")
    path = f"{s3_bucket}/with blanks/ü#?x=1&y.txt"
    storage.write_text("x", path)
    assert content(path) == b"x"
    assert storage.files_below(s3_bucket) == [path]


def test_other_addresses_that_cannot_be_opened():
    with pytest.raises(StorageError, match=r"nothing://x: no such storage here"):
        storage.exists("nothing://x")
    with pytest.raises(DataError, match=r"pathlib has dropped a slash .*'s3://bucket/x'"):
        storage.exists(__import__("pathlib").Path("s3://bucket/x"))


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("503", ""),
        ("503", "GET"),
        ("503", "PUT"),
        ("cut request", "PUT"),
        ("cut answer", "GET"),
        ("lost answer", ""),
    ],
)
def test_faults_that_pass_are_outlasted(faulty, s3_bucket, kind, method):
    """Each is tried again until it succeeds, and nobody notices."""
    fault = faulty.inject(kind, times=3, method=method)
    data = bytes(range(256)) * 1000
    with storage.open_write(f"{s3_bucket}/x") as stream:
        stream.write(data)
    assert content(f"{s3_bucket}/x") == data
    assert storage.names(s3_bucket) == ["x"]
    assert fault.injected == 3


@pytest.mark.parametrize("kind", ["503", "cut request", "lost answer"])
def test_a_part_of_an_upload_is_tried_again(faulty, s3_bucket, kind):
    fault = faulty.inject(kind, times=2, part="partNumber=2")
    data = np.random.default_rng(1).bytes(MORE_THAN_A_PART)
    with storage.open_write(f"{s3_bucket}/x") as stream:
        stream.write(data)
    assert content(f"{s3_bucket}/x") == data
    assert fault.injected == 2


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("503", "partNumber=2"),
        ("cut request", "partNumber=2"),
        ("503", "uploadId"),
        ("cut request", "uploads"),
    ],
)
def test_an_upload_that_fails_for_good_leaves_what_was_there(faulty, s3_bucket, s3_server, kind, part):
    storage.write_text("old", f"{s3_bucket}/x")
    fault = faulty.inject(kind, times=1000, method="POST" if part == "uploads" else "PUT", part=part)

    def write() -> None:
        with storage.open_write(f"{s3_bucket}/x") as stream:
            stream.write(bytes(MORE_THAN_A_PART))

    with pytest.raises(StorageError, match=r"/x: "):
        write()
    assert fault.injected >= s3.TRIES
    assert content(f"{s3_bucket}/x") == b"old"
    assert storage.names(s3_bucket) == ["x"]
    assert b"<Upload>" not in uploads(s3_bucket, s3_server)


def test_a_server_that_goes_on_failing_is_named(faulty, s3_bucket):
    storage.write_text("x", f"{s3_bucket}/x.parquet")
    for kind in ("503", "cut request", "cut answer"):
        fault = faulty.inject(kind, times=1000, method="GET")
        for attempt in (
            lambda: content(f"{s3_bucket}/x.parquet"),
            lambda: seqrec.read_log(f"{s3_bucket}/x.parquet"),
        ):
            with pytest.raises(StorageError, match=r"x\.parquet: "):
                attempt()
        assert fault.injected >= 2 * s3.TRIES


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz"])
def test_a_log_is_read_through_faults_or_not_at_all(faulty, s3_bucket, monkeypatch, kind):
    """A cut is never taken for the end of the file, nor for a damaged one."""
    monkeypatch.setattr(s3, "AHEAD", 1 << 15)
    frame = pl.DataFrame(
        {
            "user_id": [f"u{i % 97}" for i in range(20_000)],
            "item_id": np.random.default_rng(0).integers(0, 99, 20_000),
        }
    )
    path = f"{s3_bucket}/log.{kind}"
    with storage.open_write(path) as stream:
        text = frame.write_csv().encode()
        stream.write(
            gzip.compress(text) if kind == "csv.gz" else text
        ) if kind != "parquet" else frame.write_parquet(stream)
    assert seqrec.read_log(path).frame["item_id"].to_list() == frame["item_id"].to_list()
    for fails in ("503", "cut answer"):
        fault = faulty.inject(fails, times=4, method="GET", part="log", after=1)
        assert seqrec.read_log(path).frame["item_id"].to_list() == frame["item_id"].to_list()
        assert fault.injected == 4
        faulty.inject(fails, times=1000, method="GET", part="log", after=1)
        with pytest.raises(StorageError, match=r"/log\."):
            seqrec.read_log(path)


@pytest.fixture(scope="module")
def two_models(ring):
    return Popularity().fit(ring), HRM(width=8, train={"epochs": 1}).fit(ring, progress=False)


def test_artifacts(s3_bucket, two_models):
    for model in (*two_models, two_models[0]):
        model.save(f"{s3_bucket}/model")
        again = seqrec.load(f"{s3_bucket}/model")
        assert again.recommend(users=["u3", "u0"]).equals(model.recommend(users=["u3", "u0"]))
        assert len(storage.names(f"{s3_bucket}/model")) == 5


def test_whenever_a_save_over_another_model_fails_a_whole_model_is_there(faulty, s3_bucket, two_models):
    """The n-th write fails for good, for every n: what loads is the old model until the new one is whole."""
    old, new = two_models
    loaded = []
    for n in (0, 3, 4, 5):
        folder = f"{s3_bucket}/model-{n}"
        old.save(folder)
        fault = faulty.inject("cut request", times=1000, method="PUT", part=f"/model-{n}/", after=n)
        try:
            new.save(folder)
            assert not fault.injected
        except StorageError:
            assert fault.injected >= s3.TRIES
        faulty.faults.clear()
        found = seqrec.load(folder)
        loaded.append(found.name)
        expected = old if found.name == old.name else new
        assert found.recommend(users=["u3"]).equals(expected.recommend(users=["u3"]))
        # the marker may have arrived: its files stay until the next save
        assert len(storage.names(folder)) <= 5 + (n == 4) * 4
    assert loaded == ["popularity"] * 3 + ["hrm"]  # four files and the marker
    new.save(f"{s3_bucket}/model-4")
    assert len(storage.names(f"{s3_bucket}/model-4")) == 5


def test_a_marker_that_arrives_though_its_answer_is_lost(faulty, s3_bucket, two_models):
    old, new = two_models
    old.save(f"{s3_bucket}/model")
    faulty.inject("lost answer", times=1000, method="PUT", part="model.json")
    with pytest.raises(StorageError):
        new.save(f"{s3_bucket}/model")
    assert seqrec.load(f"{s3_bucket}/model").recommend(users=["u3"]).equals(new.recommend(users=["u3"]))


def test_old_files_that_cannot_be_removed_do_no_harm(faulty, s3_bucket, two_models, caplog):
    old, new = two_models
    old.save(f"{s3_bucket}/model")
    faulty.inject("refuse", times=1000, method="DELETE")
    new.save(f"{s3_bucket}/model")
    assert "left over" in caplog.text
    assert seqrec.load(f"{s3_bucket}/model").name == "hrm"


def test_prepared_sequences(faulty, s3_bucket, ring):
    """Prepared again over others: those are there until the new ones are whole."""
    from conftest import ring_sequences

    # as many users and events: only the files themselves tell them apart
    other = ring_sequences(users=60, seed=1)
    for n in (0, 2, 5):
        folder = f"{s3_bucket}/prepared-{n}"
        ring.save(folder)
        faulty.inject("503", times=1000, method="PUT", part=f"/prepared-{n}/", after=n)
        with pytest.raises(StorageError):
            other.save(folder)
        faulty.faults.clear()
        found = seqrec.Sequences.load(folder)
        np.testing.assert_array_equal(found.items, ring.items)
        np.testing.assert_array_equal(found.times, ring.times)
    other.save(folder)
    np.testing.assert_array_equal(seqrec.Sequences.load(folder).items, other.items)
    assert len(storage.names(folder)) == 6  # five files and the marker


@pytest.mark.parametrize("tries", [1, 3])
def test_the_number_of_tries_comes_from_the_environment_if_it_says(faulty, s3_bucket, monkeypatch, tries):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", str(tries))
    fault = faulty.inject("503", times=1000)
    with pytest.raises(StorageError, match=r"/x: http://127.0.0.1:\d+ refused or failed"):
        storage.exists(f"{s3_bucket}/x")
    assert fault.injected == tries
