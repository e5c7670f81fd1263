"""The rule of the house: a stage knows the stages before it and nothing after, and imports go in no circle.

All imports count: those within functions, and those for types alone. Only the top package's own
``if TYPE_CHECKING`` does not, which stands for its lazy table of public names. Tables of names
(``models.MODELS``, ``sources.FORMATS``) are no imports.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import seqrec

ROOT = Path(seqrec.__file__).parent

LAYERS = (
    "errors",
    "storage",
    "tables",
    "settings",
    "processes",
    "data",
    "sources",
    "features",
    "splitting",
    "samples",
    "topk",
    "scoring",
    # Before training, which chooses epochs by a metric; evaluation knows scorers, not what they learned by.
    "evaluation",
    "nn",
    "training",
    "serving",
    "models",
    "testing",  # the contract suite of models
    "experiment",
    "spark",
    "migrate",
    "benchmark",
    "report",
    "service",
    "cli",
    "__main__",
)
"""Each may import those above it, and the top package for its version."""


def modules(root: Path) -> dict[str, Path]:
    """Name -> file of every module and package below ``root``, which is the package seqrec."""
    found = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(("seqrec", *(part for part in parts if part != "__init__")))] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules that a module imports. Whoever imports a module of another package runs that package's
    ``__init__`` too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if name == "seqrec":
        tree.body = [
            node
            for node in tree.body
            if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        ]
    for node in ast.walk(tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{path}, line {node.lineno}: a relative import. Name the package in full."
            )
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = [one if one in known else str(node.module) for one in inner]
        for target in targets:
            if target.split(".")[0] != "seqrec":
                continue
            assert target in known, f"{path}, line {node.lineno}: no module {target}."
            yield target
            parts = target.split(".")
            for parent in (".".join(parts[:length]) for length in range(2, len(parts))):
                if not f"{name}.".startswith(f"{parent}."):
                    yield parent


def graph(root: Path) -> dict[str, set[str]]:
    """Module -> the modules that it imports."""
    known = modules(root)
    return {name: set(imports(name, path, known)) for name, path in known.items()}


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Modules each of which imports the next, the last of them the first again; empty if there is none."""
    done: set[str] = set()
    way: list[str] = []

    def walk(name: str) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        way.append(name)
        for target in sorted(edges[name]):
            if found := walk(target):
                return found
        done.add(way.pop())
        return []

    return next((found for name in sorted(edges) if (found := walk(name))), [])


def upward(edges: dict[str, set[str]]) -> list[str]:
    """Imports of a later stage, ``seqrec.data.interactions -> seqrec.sources``."""
    stage = lambda name: LAYERS.index(name.split(".")[1])  # noqa: E731
    return [
        f"{name} -> {target}"
        for name in sorted(edges)
        for target in sorted(edges[name])
        if target != "seqrec" and (name == "seqrec" or stage(target) > stage(name))
    ]


def test_imports_go_in_no_circle():
    assert not (found := circle(graph(ROOT))), " -> ".join(found)


def test_no_stage_knows_a_later_one():
    assert not (found := upward(graph(ROOT))), "\n".join(found)


def test_every_module_has_its_stage():
    assert {name.split(".")[1] for name in modules(ROOT) if name != "seqrec"} == set(LAYERS)


@pytest.mark.parametrize(
    ("files", "expected_circle", "expected_upward"),
    [
        ({"data/frames.py": "import numpy\nfrom seqrec import errors, __version__"}, [], []),
        (
            {
                "data/frames.py": "def f():\n    from seqrec.sources import read",
                "sources/__init__.py": "import seqrec.data.frames\ndef read(): ...",
            },
            ["seqrec.data.frames", "seqrec.sources", "seqrec.data.frames"],
            ["seqrec.data.frames -> seqrec.sources"],
        ),
        (  # a package's own __init__ runs before any of its modules
            {
                "data/__init__.py": "import seqrec.storage.s3",
                "storage/s3.py": "import seqrec.data.frames",
                "data/frames.py": "",
            },
            ["seqrec.data", "seqrec.storage.s3", "seqrec.data"],
            ["seqrec.storage.s3 -> seqrec.data", "seqrec.storage.s3 -> seqrec.data.frames"],
        ),
        (
            {"__init__.py": "if TYPE_CHECKING:\n    from seqrec.data import frames", "data/frames.py": ""},
            [],
            [],
        ),
        (
            {
                "__init__.py": "def f():\n    import seqrec.errors",
                "errors.py": "from seqrec import __version__",
            },
            ["seqrec", "seqrec.errors", "seqrec"],
            ["seqrec -> seqrec.errors"],
        ),
    ],
)
def test_circles_and_imports_of_later_stages_are_found(tmp_path, files, expected_circle, expected_upward):
    for name in (
        "__init__.py",
        "errors.py",
        *(f"{stage}/__init__.py" for stage in ("storage", "data", "sources")),
    ):
        files = {name: ""} | files
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    edges = graph(tmp_path)
    assert circle(edges) == expected_circle
    assert upward(edges) == expected_upward
