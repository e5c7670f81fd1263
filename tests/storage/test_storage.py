import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from seqrec import storage
from seqrec.errors import DataError, StorageError


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    storage.write_text("old", target)

    def write_half() -> None:
        with storage.open_write(target) as stream:
            stream.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert target.read_text() == "old"
    assert storage.names(tmp_path / "deep") == ["file.txt"]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """After a power cut there is the old file or the new one, and not an empty one."""
    target, synced = tmp_path / "file.txt", []
    sync = os.fsync

    def fsync(file):
        sync(file)
        synced.append((os.fstat(file).st_size, target.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    storage.write_text("content", target)
    assert synced == [(len("content"), False)]
    assert target.read_text() == "content"


def test_round_trips(tmp_path):
    frame = pl.DataFrame({"a": [1, 2]})
    storage.write_parquet(frame, tmp_path / "f.parquet")
    assert storage.read_parquet(tmp_path / "f.parquet").equals(frame)
    storage.write_json({"a": [1, None]}, tmp_path / "f.json")
    assert storage.read_json(tmp_path / "f.json") == {"a": [1, None]}
    array = np.arange(6).reshape(2, 3)
    storage.write_array(array, tmp_path / "f.npy")
    np.testing.assert_array_equal(storage.read_array(tmp_path / "f.npy"), array)


def test_remote_paths_take_the_same_way():
    folder = "memory://bucket/folder"
    storage.write_json({"a": 1}, storage.join(folder, "x.json"))
    storage.write_array(np.arange(3), storage.join(folder, "y.npy"))
    assert storage.is_remote(folder)
    assert storage.is_folder(folder)
    assert not storage.is_folder(storage.join(folder, "x.json"))
    assert storage.names(folder) == ["x.json", "y.npy"]
    assert storage.exists(storage.sibling(storage.join(folder, "y.npy"), "x.json"))
    assert storage.read_array(storage.join(folder, "y.npy")).tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="no such file"), storage.open_read(storage.join(folder, "z")):
        pass


def test_what_is_missing_or_broken_is_named(tmp_path):
    with (
        pytest.raises(DataError, match=r"nothing\.txt: no such file"),
        storage.open_read(tmp_path / "nothing.txt"),
    ):
        pass
    with pytest.raises(DataError, match="no such file"):
        storage.read_array(tmp_path / "nothing.npy")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        storage.read_json(tmp_path / "broken.json")


def test_a_file_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(StorageError, match="file/below: cannot be written"):
        storage.write_text("new", tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "kept"


FULL = """
import resource, sys
import numpy as np
import polars as pl
from seqrec import storage
from seqrec.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    if sys.argv[1].endswith("npy"):
        storage.write_array(np.zeros(10_000), sys.argv[1])
    else:
        storage.write_parquet(pl.DataFrame({"a": np.random.default_rng(0).random(10_000)}), sys.argv[1])
except StorageError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["a.npy", "a.parquet"])
def test_a_full_disk_names_the_path_and_leaves_nothing(tmp_path, name):
    path = tmp_path / name
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: cannot be written (")
    assert "Free some space" in done.stdout
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from seqrec import storage
with storage.open_write(sys.argv[1]) as stream:
    stream.write(b"half")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_removed_by_the_next_and_what_a_living_one_writes_is_not(tmp_path):
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a.txt")], check=False)
        assert done.returncode == -9
    assert len(storage.names(tmp_path)) == 1  # the second removed what the first had left
    (tmp_path / ".notes.txt.mine").write_text("mine")
    with storage.open_write(tmp_path / "b.txt") as one:
        storage.write_text("c", tmp_path / "c.txt")
        one.write(b"b")
    assert storage.names(tmp_path) == [".notes.txt.mine", "b.txt", "c.txt"]


def test_a_device_is_no_file(tmp_path):
    with pytest.raises(DataError, match="a pipe or a device"):
        storage.read_array("/dev/zero")


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00\xff\xff{", b"PK\x03\x04"])
def test_what_is_no_array_is_refused(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match="not an array of NumPy"):
        storage.read_array(tmp_path / "a.npy")
