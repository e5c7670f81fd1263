"""Builds the wheel, installs it into an environment of its own, and does there what the README does.

    python benchmarks/install.py                           # or: make wheel-check PIP_OPTIONS="..."
    python benchmarks/install.py --pip "--extra-index-url URL" --keep FOLDER

It fails where the README's Python or its command does, and prints what was asked of an installation: the
wheel's size, the packages beside torch's own, and the processor seconds of ``import seqrec`` and of
``seqrec --help`` (the least of five).
"""

from __future__ import annotations

import argparse
import os
import random
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = ("src", "pyproject.toml", "README.md", "LICENSE")


def run(*command: object, cwd: Path, **variables: str) -> str:
    """What a command prints; an error with all of it if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{shlex.join(map(str, command))} failed:\n{done.stdout}")
    return done.stdout


def build(python: Path | str, folder: Path, *options: str) -> Path:
    """The wheel, built from a copy of the sources, so that the repository stays as it is."""
    copy = folder / "source"
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            copy.mkdir(exist_ok=True)
            shutil.copy(path, copy / name)
    run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", *options, "-w", folder, copy, cwd=folder)
    return next(folder.glob("seqrec-*.whl"))


def packages(python: Path, cwd: Path) -> set[str]:
    """What is installed, pip and setuptools aside."""
    listed = run(python, "-m", "pip", "list", "--format", "freeze", cwd=cwd)
    names = {line.partition("==")[0].lower() for line in listed.splitlines() if "==" in line}
    return names - {"pip", "setuptools", "wheel"}


def write_log(path: Path) -> None:
    """A log of the README's shape: on a ring of 20 items each is followed by the next."""
    draw = random.Random(0)
    with path.open("w") as log:
        log.write("user_id,item_id,timestamp\n")
        for user in range(100):
            first = draw.randrange(20)
            for step in range(10):
                log.write(f"u{user},i{(first + step) % 20},{1_700_000_000 + 3600 * step}\n")


def seconds(*command: object, cwd: Path) -> float:
    """Processor seconds, the least of five."""
    found = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(*command, cwd=cwd)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def blocks(language: str) -> list[str]:
    """The README's blocks of a language."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", readme, re.S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pip", default="", help="options for pip, in one argument")
    parser.add_argument("--keep", type=Path, help="a folder for the environment, which is then kept")
    options = parser.parse_args()
    pip = shlex.split(options.pip)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = options.keep or folder / "environment"
        venv.create(environment, with_pip=True)
        python, seqrec = environment / "bin" / "python", environment / "bin" / "seqrec"
        pins = ("--constraint", ROOT / "constraints.txt")
        wheel = build(sys.executable, folder, *pip)
        run(python, "-m", "pip", "install", "--quiet", *pip, *pins, "torch", cwd=folder)
        torchs = packages(python, folder)
        run(python, "-m", "pip", "install", "--quiet", *pip, *pins, wheel, cwd=folder)
        more = packages(python, folder) - torchs - {"seqrec"}

        work = folder / "work"
        work.mkdir()
        write_log(work / "events.csv")
        run(python, "-c", blocks("python")[0] + "\nprint(items)", cwd=work)
        of_models = next(block for block in blocks("sh") if "--save my-model" in block)
        for line in of_models.strip().splitlines():
            printed = run(environment / "bin" / line.split()[0], *shlex.split(line)[1:], cwd=work)
            assert "item_id" in printed, printed

        print(f"wheel: {wheel.stat().st_size / 1000:.0f} kB")
        print(f"packages beside torch's {len(torchs)}: {len(more)} ({', '.join(sorted(more))})")
        bare = seconds(python, "-c", "pass", cwd=work)
        print(
            f"import seqrec: {seconds(python, '-c', 'import seqrec', cwd=work) - bare:.2f} s of the processor"
        )
        print(f"seqrec --help: {seconds(seqrec, '--help', cwd=work):.2f} s of the processor")


if __name__ == "__main__":
    main()
