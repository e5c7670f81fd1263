"""The wheel holds the package and nothing else. ``make wheel-check`` also installs it into an
environment of its own and runs the README there, which takes a network and minutes."""

from __future__ import annotations

import email
import importlib.metadata
import importlib.util
import re
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import seqrec

ROOT = Path(__file__).parents[1]
MOST_BYTES = 720_000
"""All of it is source, a third of which is documentation. What does not belong there is soon heavier."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if int(importlib.metadata.version("setuptools").partition(".")[0]) < 77:
        pytest.skip("needs setuptools of at least 77 to build")
    spec = importlib.util.spec_from_file_location("install", ROOT / "benchmarks" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    install = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(install)
    return install.build(sys.executable, tmp_path_factory.mktemp("wheel"), "--no-build-isolation")


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    source = ROOT / "src"
    kept = (".py", ".yaml", ".html", ".typed")
    ours = {
        str(p.relative_to(source))
        for p in (source / "seqrec").rglob("*")
        if p.suffix in kept or p.name == "py.typed"
    }
    with zipfile.ZipFile(wheel) as file:
        found = {name for name in file.namelist() if ".dist-info/" not in name}
    assert found == ours
    assert wheel.stat().st_size < MOST_BYTES


def test_its_metadata_are_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        name = next(name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        about = email.message_from_bytes(file.read(name))
    assert about["Name"] == "seqrec"
    assert about["Version"] == seqrec.__version__
    assert f"version: {seqrec.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    tested = [
        one
        for one in about.get_all("Classifier", [])
        if one.startswith("Programming Language :: Python :: 3.")
    ]
    oldest = about["Requires-Python"].removeprefix(">=")
    assert tested[0].rpartition(" ")[2] == oldest
    core = [one for one in about.get_all("Requires-Dist", []) if "extra ==" not in one]
    assert len(core) <= 10


def test_the_licence_of_each_dependency_is_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {k: v for k, v in project["optional-dependencies"].items() if k not in ("all", "dev", "docs")}
    named = {
        re.split(r"[\[<>=]", one)[0].lower()
        for group in (project["dependencies"], *groups.values())
        for one in group
    }
    listed = set(re.findall(r"^\| \*\*(.*?)\*\*", (ROOT / "docs" / "licences.md").read_text(), re.M))
    assert listed == named, "make the page again: python benchmarks/licences.py docs/licences.md"
