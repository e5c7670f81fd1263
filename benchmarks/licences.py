"""Lists the licences of what seqrec depends on, directly or not, as the installed packages state them.

    python benchmarks/licences.py docs/licences.md    # in an environment with seqrec[all]

What an extra brings is listed under it, but for what the core has already.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LONGEST = 60
"""Characters of a licence's name; what is longer is its whole text."""
HEAD = """# Licences of the dependencies

As the installed packages state them, in the versions of `constraints.txt`, on Linux; made by
`python benchmarks/licences.py docs/licences.md`. seqrec itself is Apache-2.0, and contains
none of them. In bold what it names itself; the others come with those.

torch's default wheel for Linux also brings NVIDIA's CUDA libraries, under their terms; a wheel for CPUs does
not.
"""


def licence(name: str) -> str:
    """What a package states: the SPDX expression, its classifiers, or a short free text."""
    about = metadata.metadata(name)
    if expression := about.get("License-Expression"):
        return expression
    classes = [one for one in about.get_all("Classifier") or () if one.startswith("License :: ")]
    named = sorted({one.rpartition(" :: ")[2] for one in classes} - {"OSI Approved"})
    text = " ".join((about.get("License") or "").split())
    if named:
        return ", ".join(named)
    return text if 0 < len(text) <= LONGEST else "see the package"


def needed(requirements: list[str], known: set[str]) -> set[str]:
    """The names of the installed packages that some requirements bring, those that are known aside."""
    found: set[str] = set()
    waiting = [Requirement(one) for one in requirements]
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        extras = sorted(one.extras) or [""]
        if one.marker is not None and not any(one.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        if (name in found and not one.extras) or name in known or name == "seqrec":
            continue
        found.add(name)
        for more in metadata.requires(name) or ():
            inner = Requirement(more)
            if inner.marker is None or any(
                inner.marker.evaluate({"extra": extra}) for extra in ["", *extras]
            ):
                inner.marker = None
                waiting.append(inner)
    return found


def page() -> str:
    """The list as Markdown."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known: set[str] = set()
    parts = [HEAD]
    groups = {"core": project["dependencies"]}
    groups |= {k: v for k, v in project["optional-dependencies"].items() if k not in ("all", "dev", "docs")}
    for group, requirements in groups.items():
        found = needed(requirements, known)
        if group == "core":
            known = found
        direct = {canonicalize_name(Requirement(one).name) for one in requirements}
        rows = [
            f"| {shown} | {version} | {licence(name)} |"
            for name in sorted(found)
            for shown in [f"**{name}**" if name in direct else name]
            for version in [metadata.version(name).partition("+")[0]]
        ]
        title = "Core" if group == "core" else f"Extra `{group}`"
        parts.append(
            f"## {title}\n\n| package | version | licence |\n|---|---|---|\n" + "\n".join(rows) + "\n"
        )
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.parse_args().output.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
