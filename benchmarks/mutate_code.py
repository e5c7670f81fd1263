"""Puts one bug at a time into a copy of the code, and asks the tests: a bug that none sees is unguarded.

    python benchmarks/mutate_code.py --deliberate         # bugs that once went unseen
    python benchmarks/mutate_code.py --count 70 --seed 0  # drawn from the core

A bug is a text that is replaced in a file. Those that are drawn change a comparison, an operator, a number,
a condition or the order of arguments, or leave out a statement, an argument, a call or a decorator. The
nearest tests come first: the file that mirrors the code's, those that import it, then (unless ``--near``) the
rest. The first test that fails ends it, if it passes without the bug; a hang fails.

All bugs are in ``mutants.json`` with what became of them, written after each; the same command goes on where
it was stopped. ``--again`` asks anew about survivors, ``--anew`` about all, and draws those of a seed anew,
which it must when their code has changed. Whoever sees that a survivor changes nothing that can be observed
writes ``"equivalent": "because ..."`` to it.
"""

from __future__ import annotations

import argparse
import ast
import copy
import difflib
import gc
import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

IMPORTED = (
    *("_hypothesis_pytestplugin", "hypothesis", "ir_measures", "numpy.testing", "polars", "pyarrow.parquet"),
    *(
        "pydantic.fields",
        "pydantic.main",
        "pydantic.types",
        "rich.table",
        "safetensors.torch",
        "typer.testing",
    ),
    *("yaml", "fsspec"),
)
for name in IMPORTED:  # they take long, and are here when a test asks for them
    importlib.import_module(name)

ROOT = Path(__file__).parents[1]
CORE = (
    *("scoring.py", "evaluation/*.py", "splitting/*.py", "samples/*.py", "nn/*.py", "training/*.py"),
    *("storage/*.py", "serving/artifact.py", "models/*.py"),
)
RESULTS = Path(__file__).with_name("mutants.json")
SOUND: set[str] = set()  # tests that pass without a bug
LEFT_OUT: list[str] = []  # tests that fail without one, too: on a busy machine they may
SECONDS = {"near": 1800, "rest": 3600}
SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or,
    ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}  # fmt: skip


def code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below one that are code: no annotations, no text and no messages of errors."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "exc", "msg"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                yield child
                yield from code(child)


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST, str]]:
    """What can be changed about a node: the kind of change, what is replaced, and by what."""

    def changed(kind: str, **fields: Any) -> tuple[str, ast.AST, str]:
        other = copy.copy(node)
        for name, value in fields.items():
            setattr(other, name, value)
        return kind, node, f"({ast.unparse(other)})"

    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                yield changed("comparison", ops=[*ops[:i], SWAPPED[type(op)](), *ops[i + 1 :]])
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in SWAPPED:
            yield changed("operator", op=SWAPPED[type(op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            yield "operator left out", node, f"({ast.unparse(node.operand)})"
        case ast.Constant(value=bool(value)):
            yield "constant", node, str(not value)
        case ast.Constant(value=int(value)):
            yield "constant", node, str(value + 1)
        case ast.Constant(value=float(value)):
            yield "constant", node, str(2 * value + (value == 0))
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield "condition", test, f"(not ({ast.unparse(test)}))"
        case ast.Call(func=func, args=args, keywords=keywords):
            alike = ast.unparse(func).rsplit(".", 1)[-1] in ("max", "min", "maximum", "minimum")
            alike |= len(args) < 2 or ast.dump(args[0]) == ast.dump(args[1])
            if not alike and not any(isinstance(a, ast.Starred) for a in args[:2]):
                yield changed("arguments swapped", args=[args[1], args[0], *args[2:]])
            for i, keyword in enumerate(keywords):
                if keyword.arg is not None:
                    yield changed("argument left out", keywords=[*keywords[:i], *keywords[i + 1 :]])
            if isinstance(func, ast.Attribute) and not args and not keywords:
                yield "call left out", node, f"({ast.unparse(func.value)})"
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.AugAssign() | ast.Continue() | ast.Break():
            yield "statement left out", node, "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "statement left out", node, "pass"
        case ast.FunctionDef(decorator_list=decorators) | ast.ClassDef(decorator_list=decorators):
            for decorator in decorators:
                yield "decorator left out", decorator, ""


def bugs_of(path: Path) -> Iterator[dict[str, Any]]:
    """All bugs that can be drawn from a file, each as the lines that are replaced, and by which."""
    source = path.read_text()
    lines = [line.encode() for line in source.splitlines(keepends=True)]
    for node in code(ast.parse(source)):
        for kind, place, new in changes(node):
            first, last = place.lineno - 1, place.end_lineno - 1
            begin = place.col_offset - (kind == "decorator left out")  # its @
            after = lines[first][:begin] + new.encode() + lines[last][place.end_col_offset :]
            old = b"".join(lines[first : last + 1])
            begins = first
            while source.count(old.decode()) > 1:  # with as much before it as makes it one place
                begins -= 1
                old, after = lines[begins] + old, lines[begins] + after
            file = str(path.relative_to(ROOT / "src" / "seqrec"))
            yield {
                "name": f"{file}:{first + 1} {kind}",
                "file": file,
                "old": old.decode(),
                "new": after.decode(),
            }


def tests_of(file: str, root: Path) -> tuple[list[str], ...]:
    """The test files that mirror a file of the code, those near it, and the others."""
    module = "seqrec." + file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    everything = sorted((root / "tests").rglob("test_*.py"))
    package, stem = module.rsplit(".", 1)
    parts = package.removeprefix("seqrec").removeprefix(".")
    imports = re.compile(
        rf"(from|import) {re.escape(module)}\b|from {re.escape(package)} import [^\n]*\b{stem}\b"
        + (rf"|from seqrec import [^\n]*\b{parts}\b" if parts else "")
    )
    mirror = root / "tests" / Path(file).parent
    distance: dict[Path, int] = {}
    for path in everything:
        imported = imports.search(path.read_text())
        named = path.parent == mirror and stem in path.stem
        distance[path] = 0 if named else 1 if imported and path.parent == mirror else 2 if imported else 3
        if distance[path] == 3 and path.parent == mirror and mirror.name != "tests":
            distance[path] = 2
    everything.sort(key=lambda path: distance[path])
    names = {path: str(path.relative_to(root)) for path in everything}
    return tuple([names[path] for path in everything if distance[path] in of] for of in ((0,), (1, 2), (3,)))


def failed(tests: list[str], root: Path, seconds: int) -> str | None:
    """The first of the tests that fails, in their order; None if all pass.

    They run in a fork of this process, which has imported what takes long.
    """
    said = root / "said.txt"
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        with said.open("w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        os.chdir(root)
        sys.path.insert(0, str(root / "src"))
        os.environ["PYTHONPATH"] = sys.path[0]
        os.environ.setdefault("SEQREC_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
        options = ["-x", "-q", "--tb=no", "-rfE", "--hypothesis-seed=0"]
        options += [
            f"-pno:{plugin}" for plugin in ("cacheprovider", "unraisableexception", "threadexception")
        ]
        code = 70
        try:
            code = int(pytest.main([*options, *(f"--deselect={test}" for test in LEFT_OUT), *tests]))
            sys.stdout.flush()
        finally:
            os._exit(code)
    end = time.monotonic() + seconds
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"{tests[0]} and more: a hang"
        time.sleep(0.1)
    code = os.waitstatus_to_exitcode(ended[1])
    if code in (0, 5):  # 5: no test among them
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+?\.py(?:::.*?)?)(?: - .*)?$", said.read_text(), re.MULTILINE)
    return found[1] if found else f"{tests[0]} and more: pytest ends with {code}"


def ask(bug: dict[str, Any], root: Path, near_only: bool) -> dict[str, str]:
    """What the tests say of a bug: ``{"killed": test}``, or ``{"survived": "near" or "all"}``; nothing of one
    whose code has changed."""
    path = root / "src" / "seqrec" / bug["file"]
    source = path.read_text()
    if source.count(bug["old"]) != 1:
        print(f"{bug['name']}: its text is not there once any more: change it, or draw anew", flush=True)
        return {}
    mirror, near, rest = tests_of(bug["file"], root)
    for name, tests in [("near", mirror), ("near", near), ("rest", rest)][: 2 if near_only else 3]:
        while tests:
            path.write_text(source.replace(bug["old"], bug["new"]))
            test = failed(tests, root, SECONDS[name])
            path.write_text(source)
            if test is None:
                break
            if ": " in test or test in SOUND or not failed([test], root, SECONDS[name]):
                SOUND.add(test)
                return {"killed": test}
            print(f"{test} fails without the bug, too: it is left out", flush=True)
            LEFT_OUT.append(test)
    return {"survived": "near" if near_only else "all"}


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def copied(folder: Path) -> Path:
    """A copy of the working tree, as git sees it, in which the tests find their package."""
    for name in git("ls-files", "-co", "--exclude-standard", "-z").split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def shown(bug: dict[str, Any]) -> str:
    """A bug as a diff."""
    old, new = (bug[x].splitlines() for x in ("old", "new"))
    return "\n".join([bug["name"], *list(difflib.unified_diff(old, new, n=0, lineterm=""))[3:]])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--deliberate", action="store_true", help="the bugs listed in this file")
    parser.add_argument("--count", type=int, default=70)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--near", action="store_true", help="only the nearest tests")
    parser.add_argument("--again", action="store_true", help="also survivors")
    parser.add_argument("--anew", action="store_true", help="all bugs")
    parser.add_argument("--only", default="", help="only bugs with this in their name")
    parser.add_argument("--deselect", action="append", default=[], help="a test to leave out")
    options = parser.parse_args()
    LEFT_OUT.extend(options.deselect)
    records = json.loads(RESULTS.read_text())
    key = "deliberate" if options.deliberate else f"seed {options.seed}"
    if not options.deliberate and (
        options.anew or len(records.get(key, {"bugs": []})["bugs"]) != options.count
    ):
        files = sorted({path for pattern in CORE for path in (ROOT / "src" / "seqrec").glob(pattern)})
        drawn = [bug for path in files for bug in bugs_of(path)]
        print(f"{len(drawn):,} bugs in {len(files)} files, of which {options.count} are drawn", flush=True)
        some = random.Random(options.seed).sample(drawn, options.count)
        records[key] = {"commit": git("rev-parse", "HEAD").strip(), "bugs": some}
        RESULTS.write_text(json.dumps(records, indent=1) + "\n")
    skipped = [] if options.anew else ["killed", "equivalent", *([] if options.again else ["survived"])]
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]).step()  # imports more
    gc.freeze()
    with tempfile.TemporaryDirectory() as folder:
        root = copied(Path(folder))
        for i in range(len(records[key]["bugs"])):
            bug = json.loads(RESULTS.read_text())[key]["bugs"][i]
            if any(x in bug for x in skipped) or options.only not in bug["name"]:
                continue
            found = ask(bug, root, options.near)
            records = json.loads(RESULTS.read_text())  # again: someone may have written to it meanwhile
            bug = records[key]["bugs"][i]
            bug.pop("killed", None)
            if bug.pop("survived", None) and "killed" in found:
                found["note"] = "by a test written for it"
            bug.update(found)
            RESULTS.write_text(json.dumps(records, indent=1) + "\n")
            print(f"SURVIVED {shown(bug)}" if "survived" in found else f"{bug['name']}: {found}", flush=True)
    bugs = json.loads(RESULTS.read_text())[key]["bugs"]
    left = [bug for bug in bugs if "survived" in bug and "equivalent" not in bug]
    killed, equivalent = (sum(x in bug for bug in bugs) for x in ("killed", "equivalent"))
    print(f"\n{len(bugs)} bugs: {killed} killed, {equivalent} equivalent, {len(left)} unguarded")
    print("\n\n".join(shown(bug) for bug in left))
    return int(bool(left))


if __name__ == "__main__":
    sys.exit(main())
