"""Local folders here; S3 in test_storage_s3.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ring_sequences

import seqrec
from seqrec import storage
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError
from seqrec.models.markov import Markov
from seqrec.models.popularity import Popularity
from seqrec.storage import snapshot

PARTS = ("a.txt", "b.txt")


def save(folder: Path, text: str, parts: tuple[str, ...] = PARTS) -> None:
    with snapshot.write(folder, "marker.json", PARTS, {"of": text}) as files:
        for part in parts:
            storage.write_text(text, files.path(part))


def load(folder: Path) -> dict[str, str]:
    about = storage.read_json(folder / "marker.json")
    return {"of": about["of"]} | {part: (folder / name).read_text() for part, name in about["files"].items()}


def test_the_last_state_is_what_is_there_and_other_files_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "a-note.txt").write_text("mine")
    for text, parts in (("first", PARTS), ("second", PARTS[:1]), ("third", PARTS)):
        save(tmp_path, text, parts)
        assert load(tmp_path) == {"of": text} | dict.fromkeys(parts, text)
        assert len(storage.names(tmp_path)) == 3 + len(parts)


@pytest.mark.parametrize("operation", ["replace", "unlink"])
@pytest.mark.parametrize("n", range(4))
def test_stopped_at_any_step_one_whole_state_is_there(tmp_path, monkeypatch, operation, n):
    """Killed at the n-th file that is put in place or removed: nothing after it happens, cleaning up
    included."""
    save(tmp_path, "old")
    steps = []

    def stopping(real):
        def step(*arguments, **options):
            steps.append(arguments)
            if len(steps) > n:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        return step

    with monkeypatch.context() as patch:
        if operation == "replace":
            patch.setattr("os.replace", stopping(storage.os.replace))
            patch.setattr(snapshot, "_remove", lambda *_: None)
        else:
            patch.setattr(storage, "remove", stopping(storage.remove))
        try:
            save(tmp_path, "new")
            assert len(steps) <= n
        except KeyboardInterrupt:
            assert len(steps) == n + 1
    text = "old" if operation == "replace" and n < 3 else "new"  # two parts and the marker
    assert load(tmp_path) == {"of": text} | dict.fromkeys(PARTS, text)
    save(tmp_path, "next")
    assert len(storage.names(tmp_path)) == 3


def test_a_failed_save_leaves_no_files(tmp_path):
    save(tmp_path, "old")
    before = storage.names(tmp_path)

    def fails() -> None:
        with snapshot.write(tmp_path, "marker.json", PARTS, {}) as files:
            storage.write_text("new", files.path("a.txt"))
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fails()
    assert storage.names(tmp_path) == before


def with_fixed_names(folder: Path, marker: str) -> dict:
    """A folder as it was before files had names of their own."""
    about = json.loads((folder / marker).read_text())
    del about["digest"]
    for part, name in about.pop("files").items():
        (folder / name).rename(folder / part)
    return about | {"format": 1}


def test_models_of_format_1_are_read_and_replaced(ring, tmp_path):
    model = Popularity().fit(ring)
    model.save(tmp_path)
    about = with_fixed_names(tmp_path, "model.json")
    storage.write_json(about | {"files": about.pop("sha256")}, tmp_path / "model.json")
    assert storage.names(tmp_path) == [
        "histories.safetensors",
        "items.parquet",
        "model.json",
        "users.parquet",
        "weights.safetensors",
    ]
    assert seqrec.load(tmp_path).recommend(users=["u3"]).equals(model.recommend(users=["u3"]))
    (tmp_path / "items.parquet").write_bytes(b"")
    with pytest.raises(DataError, match="size differs"):
        seqrec.load(tmp_path)
    Markov().fit(ring).save(tmp_path)
    assert seqrec.load(tmp_path).name == "markov"
    assert len(storage.names(tmp_path)) == 5


def test_sequences_of_format_1_are_read_and_replaced(ring, tmp_path):
    ring.save(tmp_path)
    storage.write_json(with_fixed_names(tmp_path, "sequences.json"), tmp_path / "sequences.json")
    loaded = Sequences.load(tmp_path)
    np.testing.assert_array_equal(loaded.items, ring.items)
    other = ring_sequences(seed=1)
    other.save(tmp_path)
    np.testing.assert_array_equal(Sequences.load(tmp_path).items, other.items)
    np.testing.assert_array_equal(loaded.items, ring.items)  # who has the old ones open keeps them
    assert len(storage.names(tmp_path)) == 6
    storage.write_json({"format": 9}, tmp_path / "sequences.json")
    with pytest.raises(DataError, match="expected format 1 or 2"):
        Sequences.load(tmp_path)
