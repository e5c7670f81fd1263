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
