"""The pages of ``docs/`` whose blocks are commands: every block runs, in order, in one shell and an empty
folder."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from warm_seqrec import warm_seqrec

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The commands of the pages start at once."""
    with warm_seqrec(tmp_path_factory.mktemp("bin")) as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "PATH", f"{folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        )
        yield


def run_page(name: str, folder: Path, **environment: str) -> str:
    """What the page's blocks print."""
    script = "\n".join(re.findall(r"```sh\n(.*?)```", (DOCS / name).read_text(), re.S))
    assert script, f"{name} has no blocks"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "COLUMNS": "160", **environment},
        capture_output=True,
        text=True,
    )
    assert not done.returncode, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def metrics(folder: Path) -> dict[str, float]:
    rows = json.loads((folder / "metrics.json").read_text())["rows"]
    return {row["metric"]: row["value"]["mean"] for row in rows if isinstance(row["value"], dict)}


def test_ten_minutes(tmp_path: Path) -> None:
    printed = run_page("tutorial.md", tmp_path)
    assert "Order matters" in printed
    assert "lesson-6" in printed
    assert (tmp_path / "chosen").is_dir()


def test_your_own_csv(tmp_path: Path) -> None:
    printed = run_page("your-own-csv.md", tmp_path)
    ids, colours = metrics(tmp_path / "runs/ids"), metrics(tmp_path / "runs/colours")
    assert colours["recall@20"] > ids["recall@20"]
    assert re.search(r"a6[01] .*thing", printed), "no item without an event was recommended"
    assert "thing" in printed.splitlines()[-1]


def test_a_protocol_of_ones_own(tmp_path: Path) -> None:
    printed = run_page("own-protocol.md", tmp_path)
    assert "refused: other data" in printed
    tables = re.findall(r"split `(\w+)`", printed)
    assert len(tables) == 2
    assert tables[0] != tables[1]


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    printed = run_page("your-own-model.md", tmp_path)
    found = metrics(tmp_path / "runs/sharp")
    assert found["shop_parts:found_first@1"] == found["recall@1"] > 0.5
    assert printed.count("shop_parts:found_first@1") == 2
    assert "i4" in printed
    assert printed.endswith("refused: no such module\n")


def test_a_model_without_torch(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    printed = run_page("onnx.md", tmp_path)
    by_seqrec = re.findall(r"^ +0 +(l\d+) +([\d.]+) +\d +model +(Lesson \d+) *$", printed, re.M)
    alone = re.findall(r"^(l\d+) (Lesson \d+) ([\d.]+)$", printed, re.M)
    assert [one[0] for one in by_seqrec] == [one[0] for one in alone]
    assert by_seqrec[0][2] == alone[0][1] == "Lesson 6"
    assert float(by_seqrec[0][1]) == pytest.approx(float(alone[0][2]), abs=1e-2)
    assert "(30, 16)" in printed


def test_production(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    printed = run_page("production.md", tmp_path, PORT=port)
    answers = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    known, users, accepted, new = answers
    assert known["results"][0]["items"][0] == "t5"
    assert [one["source"] for one in users["results"]] == ["model", "popularity"]
    assert accepted == {"accepted": 1}
    assert (new["results"][0]["source"], new["results"][0]["items"]) == ("model", ["t9"])
    assert (tmp_path / "runs/next/serving/model.json").exists()


def first_users(shared_data: Path, folder: Path, users: int) -> Path:
    """MovieLens-1M with its first users only."""
    folder.mkdir()
    with (
        gzip.open(shared_data / "ml-1m/sequences.tsv.gz", "rt") as whole,
        gzip.open(folder / "sequences.tsv.gz", "wt") as part,
    ):
        part.writelines(
            itertools.takewhile(
                lambda line: not line[0].isdigit() or int(line.split("\t")[0]) <= users, whole
            )
        )
    for name in ("movies.dat", "users.dat"):
        shutil.copy(shared_data / "ml-1m" / name, folder)
    return folder


def test_the_origins_workflow(shared_data: Path, tmp_path: Path) -> None:
    """Everything is on S3, nothing is written beside the page's own files, and the metrics are those of local
    files.

    SEQREC_TUTORIAL_USERS=2999 takes all users whose ratings are known here, and some twenty minutes.
    """
    pytest.importorskip("moto")
    users = int(os.environ.get("SEQREC_TUTORIAL_USERS", 40))
    source, page, local = (
        first_users(shared_data, tmp_path / "ml-1m", users),
        tmp_path / "page",
        tmp_path / "local",
    )
    page.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    printed = run_page("origin-workflow.md", page, ML_1M=str(source), S3_PORT=port)
    assert {path.name for path in page.iterdir()} == {
        "prepare.yaml",
        "schema",
        "hrm_bce_neg10_ml_1m.yaml",
        "hrm.yaml",
        "gru4rec_batch_neg_bpr_ml_1m.yaml",
    }

    shutil.copytree(source, local / "movielens/ml-1m")
    measured: list[str] = []
    for command in (
        "prepare --conf prepare.yaml",
        f"prepare --conf prepare.yaml samples.kind=prob samples.folder={local}/movielens/1m/negsample/prob",
        "train --conf hrm.yaml",
        "train --conf gru4rec_batch_neg_bpr_ml_1m.yaml",
    ):
        environment = {**os.environ, "MY_S3_BUCKET": str(local), "COLUMNS": "160"}
        done = subprocess.run(
            ["seqrec", *command.split()],
            cwd=page,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert not done.returncode, done.stderr
        measured += re.findall(r"^\w+@20 .*", done.stdout, re.M)
    assert len(measured) == 8
    assert re.findall(r"^\w+@20 .*", printed, re.M) == measured
    print("\n".join(measured))
