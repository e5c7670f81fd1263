"""The site builds strictly: no broken link, a page for each model, each public name in the reference."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import seqrec
from seqrec import models

ROOT = Path(__file__).parents[2]


def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings")
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
    assert {path.name for path in (tmp_path / "models").iterdir()} == set(models.MODELS)
    reference = (tmp_path / "python" / "index.html").read_text()
    names = [name for name in seqrec.__all__ if not name.startswith("__")]
    assert not [name for name in names if f'id="seqrec.{name}"' not in reference]
    shown = {path.parent.name: path.read_text() for path in (tmp_path / "notebooks").glob("*/index.html")}
    assert set(shown) == {path.stem for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
    assert all('<table border="1" class="dataframe">' in page for page in shown.values())
    page = (tmp_path / "index.html").read_text()
    assert "fonts.googleapis" not in page
