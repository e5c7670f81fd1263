"""The pages of ``docs/`` whose blocks are commands: every block runs, in order, in one shell and an empty folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def run_page(name: str, folder: Path, **environment: str) -> str:
    """What the page's blocks print."""
    script = "\n".join(re.findall(r"```sh\n(.*?)```", (DOCS / name).read_text(), re.S))
    assert script, f"{name} has no blocks"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, "COLUMNS": "160", **environment},
        capture_output=True,
        text=True,
    )
    assert not done.returncode, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def metrics(folder: Path) -> dict[str, float]:
    rows = json.loads((folder / "metrics.json").read_text())["rows"]
    return {row["metric"]: row["value"]["mean"] for row in rows if isinstance(row["value"], dict)}


def test_your_own_csv(tmp_path: Path) -> None:
    printed = run_page("your-own-csv.md", tmp_path)
    ids, colours = metrics(tmp_path / "runs/ids"), metrics(tmp_path / "runs/colours")
    assert colours["recall@20"] > ids["recall@20"]
    assert "thing" in printed.splitlines()[-1]
