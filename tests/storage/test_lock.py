import errno
import os
import subprocess
import sys
import time

import pytest

from seqrec.errors import StorageError
from seqrec.storage import lock

HOLD = """
import sys, time
from seqrec.storage import lock
with lock.held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_has_one_writer_who_is_named(tmp_path):
    folder = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"held\n"
            with (
                pytest.raises(StorageError, match=rf"is being written by process {other.pid} on .*, since"),
                lock.held(folder),
            ):
                pass
        finally:
            other.kill()
    begin = time.monotonic()
    with lock.held(folder):  # which the killed one has left behind
        assert (folder / lock.NAME).exists()
    assert time.monotonic() - begin < 5
    assert not list(folder.iterdir())


def test_a_remote_folder_is_not_held():
    with lock.held("memory://bucket/out"), lock.held("memory://bucket/out"):
        pass


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError) as refused, lock.held(tmp_path / "out"):
        pass
    assert str(refused.value).startswith(f"{tmp_path / 'out'}: cannot be written (No space left on device).")
    assert not list((tmp_path / "out").iterdir())
