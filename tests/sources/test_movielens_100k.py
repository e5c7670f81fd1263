import errno
import os
import shutil
import zipfile

import pytest

from seqrec import read_log, sources, storage
from seqrec.errors import DataError, DownloadError
from seqrec.sources import fetch, movielens_100k
from seqrec.splitting.leave_one_out import leave_one_out

U_DATA = "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t302\t1\t881250949\n"
INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + U_DATA


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network, no data or cache of the machine's own."""

    def refuse(url, timeout):
        raise OSError("no network in tests")

    monkeypatch.setattr(fetch.urllib.request, "urlopen", refuse)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("SEQREC_DATA", raising=False)
    monkeypatch.setenv("SEQREC_CACHE", str(tmp_path / "cache"))


def find(md5=movielens_100k.MD5, **options):
    """As ``movielens_100k.load`` looks for its files."""
    return fetch.find("ml-100k", ["u.data"], None, None, url=movielens_100k.URL, md5=md5, **options)


def test_the_real_files(ml_100k_interactions):
    log = ml_100k_interactions
    s = log.sequences()
    assert (s.events, s.users, len(s.item_catalogue)) == (100_000, 943, 1_682)
    assert "research use" in log.terms
    titles = s.item_catalogue.attributes
    star_wars = int(s.item_catalogue.encode([50])[0])
    assert titles["title"][star_wars] == "Star Wars (1977)"
    assert titles["genres"][star_wars] == "Action|Adventure|Romance|Sci-Fi|War"
    assert titles.null_count().select("title", "genres").row(0) == (0, 0)
    assert s.user_catalogue.attributes.row(int(s.user_catalogue.encode([1])[0])) == (
        24,
        "M",
        "technician",
        "85711",
    )


def test_the_copy_in_recboles_wheel_gives_the_same_split(ml_100k_interactions, tmp_path, monkeypatch):
    """Its rows are those of u.data in the same order, so that ties fall alike."""
    monkeypatch.delenv("PIP_NO_INDEX")
    try:
        source = movielens_100k.from_wheel(tmp_path)
    except DownloadError as error:
        pytest.skip(f"needs a package index: {error}")
    assert "recbole==1.2.1" in source
    copy, original = movielens_100k.read(tmp_path), ml_100k_interactions
    assert copy.frame.equals(original.frame.select(copy.frame.columns))
    assert leave_one_out(copy.sequences()).hash == leave_one_out(original.sequences()).hash
    a, b = (log.sequences().item_catalogue.attributes for log in (copy, original))
    assert (a["title"] != b["title"]).sum() == 0
    assert (a["genres"] != b["genres"]).sum() == 0


def test_where_it_is_looked_for_first(tmp_path, monkeypatch):
    root = tmp_path / "data"
    (root / "ml-100k").mkdir(parents=True)
    (root / "ml-100k" / "u.data").write_text(U_DATA)
    assert len(sources.load("ml-100k", data_dir=root)) == 3
    log = sources.load("ml-100k", data_dir=root / "ml-100k")
    assert log.source == str(root / "ml-100k")
    monkeypatch.setenv("SEQREC_DATA", str(root))
    assert len(sources.load("ml-100k")) == 3
    home = tmp_path / "other"
    (home / "ml-100k").mkdir(parents=True)
    (home / "ml-100k" / "ml-100k.inter").write_text(INTER)
    monkeypatch.delenv("SEQREC_DATA")
    log = sources.load("ml-100k", cache=home)
    assert log.frame["item_id"].to_list() == [242, 302, 302]
    assert "the cache" in log.source


def test_the_publishers_archive_is_checked_and_cached(tmp_path, monkeypatch):
    archive = tmp_path / "ml-100k.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("ml-100k/u.data", U_DATA)
        made.writestr("ml-100k/../../evil", "x")
        made.writestr("ml-100k/README", "terms")
    monkeypatch.setattr(fetch.urllib.request, "urlopen", lambda url, timeout: archive.open("rb"))
    with pytest.raises(
        DownloadError, match=r"ml-100k\.zip \(MD5 .*, expected 0e33842e24a9c977be4e0107933c0723: damaged"
    ):
        find()
    assert list((tmp_path / "cache").iterdir()) == []
    assert (
        find(fetch.checksum(archive)).source
        == "the publisher's https://files.grouplens.org/datasets/movielens/ml-100k.zip"
    )
    assert sorted(p.name for p in (tmp_path / "cache" / "ml-100k").iterdir()) == [
        "README",
        "source.json",
        "u.data",
    ]
    assert "from the publisher's" in sources.load("ml-100k").source  # now from the cache
    monkeypatch.setenv("SEQREC_CACHE", str(tmp_path / "cache 2"))
    monkeypatch.setenv("SEQREC_DATA", str(tmp_path))  # a zip where the user says
    assert "unpacked in" in find(fetch.checksum(archive)).source


def test_a_failure_is_one_line_that_says_what_to_do(tmp_path):
    with pytest.raises(DownloadError) as error:
        sources.load("ml-100k", data_dir=tmp_path)
    message = str(error.value)
    assert "\n" not in message
    for part in (
        "Tried data_dir",
        "the cache",
        "unreachable: no network in tests",
        "pip download recbole",
        "give its folder with data_dir",
    ):
        assert part in message
    with pytest.raises(DataError, match=r"data_dir: expected a folder"):
        sources.load("ml-100k", data_dir=tmp_path / "absent")
    with pytest.raises(DataError, match=r"'ml-100' is not known\. Did you mean 'ml-100k'\?"):
        sources.load("ml-100")


def test_a_publisher_that_does_not_answer_is_given_up(monkeypatch):
    import threading
    import time

    silent = threading.Event()
    monkeypatch.setattr(fetch.urllib.request, "urlopen", lambda url, timeout: silent.wait(30))
    started = time.monotonic()
    with pytest.raises(DownloadError, match=r"unreachable: no answer within 0\.1 s"):
        find(connect_seconds=0.1)
    silent.set()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("echo 'No module named pip' >&2; exit 1", "this Python has no pip; `python -m ensurepip` adds it"),
        (
            "echo noise >&2; echo 'ERROR: No matching distribution found' >&2; exit 1",
            r"\(No matching distribution found\)",
        ),
        ("exit 3", "exit status 3"),
        ("sleep 30", "no end after 1 s"),
    ],
)
def test_what_pip_says_is_passed_on(tmp_path, program, message):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{program}\n")
    python.chmod(0o755)
    with pytest.raises(DownloadError, match=message):
        movielens_100k.from_wheel(tmp_path, str(python), seconds=1)


def test_a_cache_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="name another with SEQREC_CACHE"):
        sources.load("ml-100k", cache=tmp_path / "file")


def test_read_takes_the_folder_or_the_file(tmp_path):
    (tmp_path / "u.data").write_text(U_DATA)
    for path in (tmp_path, tmp_path / "u.data"):
        assert read_log(path).frame.columns == ["user_id", "item_id", "timestamp", "rating"]


@pytest.mark.parametrize("where", ["the archive", "what is in it"])
def test_a_full_disk_is_no_unreachable_publisher(tmp_path, monkeypatch, where):
    archive = tmp_path / "ml-100k.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("ml-100k/u.data", U_DATA)
    copy, copies = shutil.copyfileobj, []

    def full(source, target, *size):
        copies.append(target.name)
        if len(copies) == (1 if where == "the archive" else 2):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        copy(source, target, *size)

    monkeypatch.setattr(fetch.shutil, "copyfileobj", full)
    monkeypatch.setattr(fetch.urllib.request, "urlopen", lambda url, timeout: archive.open("rb"))
    with pytest.raises(DownloadError) as refused:
        find(fetch.checksum(archive))
    assert f"the cache {tmp_path / 'cache'} cannot be written (No space left on device)" in str(refused.value)
    assert "unreachable" not in str(refused.value)
    assert not list((tmp_path / "cache").iterdir())


def test_what_a_killed_download_left_is_removed_by_the_next(tmp_path, monkeypatch):
    archive = tmp_path / "ml-100k.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("ml-100k/u.data", U_DATA)
    left = storage.temporary(tmp_path / "cache" / "ml-100k")
    left = left.with_name(left.name.replace(f"-{os.getpid()}-", "-99999999-"))  # no such process
    left.mkdir(parents=True)
    (left / "download").write_text("half")
    monkeypatch.setattr(fetch.urllib.request, "urlopen", lambda url, timeout: archive.open("rb"))
    find(fetch.checksum(archive))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["ml-100k"]
