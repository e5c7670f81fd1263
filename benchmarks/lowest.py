"""Installs the oldest versions that pyproject.toml allows into their own environment, and runs tests there.

    python benchmarks/lowest.py --torch 2.13.0 -- tests                  # or: make lowest
    python benchmarks/lowest.py --extra serve --extra s3 -- tests/service tests/storage

uv finds the versions (``pip install uv``): the lowest of what pyproject.toml names, and the newest of what
these bring with them. torch is its lowest, too, unless ``--torch`` says otherwise: old ones come as wheels of
gigabytes. pytest and what else only the tests need are as in constraints.txt, but for what the package itself
uses.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOOLS = ("pandas", "pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "ir-measures")
"""What most tests need."""


def run(*command: object) -> str:
    """What a command prints; it ends the script if it fails."""
    print("$", shlex.join(map(str, command)), flush=True)
    return subprocess.run(
        [str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def lowest(extras: list[str], torch: str | None, folder: Path) -> list[str]:
    """The oldest versions that the ranges allow, as ``name==version``."""
    command: list[object] = [sys.executable, "-m", "uv", "pip", "compile", "--resolution", "lowest-direct"]
    command += ["--quiet", "--no-header", "--no-annotate", "--python-version", oldest_python()]
    command += [part for extra in extras for part in ("--extra", extra)]
    if torch is not None:
        override = folder / "torch.txt"
        override.write_text(f"torch=={torch}\n")
        command += ["--override", override]
    return run(*command, ROOT / "pyproject.toml").split()


def oldest_python() -> str:
    """As pyproject.toml requires."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return str(about["project"]["requires-python"]).removeprefix(">=")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", help="its version, in place of the lowest")
    parser.add_argument("--extra", action="append", default=[], help="an extra of the package; repeatable")
    parser.add_argument("--pip", default="", help="options for pip, in one argument")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "lowest", help="for the environment")
    parser.add_argument("tests", nargs="*", default=["tests"], help="what pytest is told")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    found = lowest(options.extra, options.torch, options.folder)
    print(" ".join(found))
    pins = options.folder / "lowest.txt"
    pins.write_text("\n".join(found) + "\n")

    environment = options.folder / "environment"
    venv.create(environment, with_pip=True, clear=True)
    python = environment / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", *shlex.split(options.pip), "--constraint", pins]
    extras = f"[{','.join(options.extra)}]" if options.extra else ""
    run(*pip, next(one for one in found if one.startswith("torch==")), *TOOLS)
    run(*pip, "--editable", f"{ROOT}{extras}")
    command = [str(python), "-m", "pytest", *options.tests]
    print("$", shlex.join(command), flush=True)
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode


if __name__ == "__main__":
    raise SystemExit(main())
