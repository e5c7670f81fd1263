"""Every public name says what it is, which of our errors it raises, and the shapes of its arrays.

A finding reads ``module:name: what is missing``.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

import seqrec
from seqrec import errors
from seqrec.models.model import Model
from seqrec.settings.base import Settings

ELEMENT = r"(?:\d+ )?[\w.]+(?: ?(?:[-+*/]|or) ?[\w.]+)*"
SHAPE = re.compile(rf"\((?:\.\.\.|{ELEMENT},(?: {ELEMENT},?)*)\)")
"""``(rows,)``, ``(positions, width)`` or, of any shape, ``(...)``."""
ARRAY = re.compile(r"\b(?:ndarray|Tensor)\b")
SECTION = r"^{name}:\n(.*?)(?=^\S|\Z)"
HELP = "seqrec.cli."
"""The docstring of a command is its help, which has no section for errors."""
DOCUMENTED_ELSEWHERE = ("overload", "setter", "deleter")


def test_everything_public_is_documented() -> None:
    below = [module.name for module in pkgutil.walk_packages(seqrec.__path__, "seqrec.")]
    names = ["seqrec", *(name for name in below if not name.endswith("__main__"))]  # which runs when imported
    found = [finding for name in names for finding in findings(importlib.import_module(name))]
    assert not found, f"{len(found)} findings:\n" + "\n".join(found)


def findings(module: Any) -> Iterator[str]:
    """What is missing in a module, a line each."""
    name, text = module.__name__, module.__doc__ or ""
    if not text.strip():
        yield f"{name}: a docstring"
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef) and public(node):
            yield from in_class(node, getattr(module, node.name), f"{name}:{node.name}")
        elif isinstance(node, ast.FunctionDef) and public(node):
            legend = text if "Legend:" in text else ""
            yield from in_function(node, ast.get_docstring(node) or "", legend, f"{name}:{node.name}")


def in_class(node: ast.ClassDef, kind: type, where: str) -> Iterator[str]:
    # a model without one has that of its file: see seqrec.models.signature
    text = inspect.cleandoc(kind.__doc__ or "") if issubclass(kind, Model) else ast.get_docstring(node) or ""
    if not text:
        yield f"{where}: a docstring"
    fields = is_record(node, kind)
    documented = section(text, "Attributes")
    for statement, after in zip(node.body, [*node.body[1:], None]):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            field, own = statement.target.id, string(after)
            if not fields or field.startswith("_") or field == "model_config":
                continue
            if not own and field not in documented:
                yield f"{where}.{field}: a docstring of the field, or a line in Attributes:"
            if ARRAY.search(ast.unparse(statement.annotation)) and not SHAPE.search(own + text):
                yield f"{where}.{field}: a shape such as (rows,)"
        elif isinstance(statement, ast.ClassDef) and public(statement):
            yield from in_class(statement, kind.__dict__[statement.name], f"{where}.{statement.name}")
        elif isinstance(statement, ast.FunctionDef) and statement.name in ("__init__", "__post_init__"):
            own = f"{text}\n{ast.get_docstring(statement) or ''}"
            yield from in_function(statement, own, "", where)
        elif isinstance(statement, ast.FunctionDef) and public(statement):
            inherited = [
                inspect.cleandoc(method.__doc__)
                for parent in kind.__mro__[1:]
                if (method := parent.__dict__.get(statement.name)) is not None and method.__doc__
            ]
            own = "\n".join([ast.get_docstring(statement) or "", *inherited]).strip()
            yield from in_function(statement, own, text, f"{where}.{statement.name}")


def in_function(node: ast.FunctionDef, text: str, around: str, where: str) -> Iterator[str]:
    """Findings of a function whose docstring is ``text``, with the docstring of its class, or its module's
    legend, around it."""
    if any(ast.unparse(d).rpartition(".")[2] in DOCUMENTED_ELSEWHERE for d in node.decorator_list):
        return
    if not text:
        yield f"{where}: a docstring"
    listed = section(text, "Raises")
    for name in sorted(set(raised(node))) if not where.startswith(HELP) else ():
        parents = {kind.__name__ for kind in getattr(errors, name).__mro__}
        if not listed & parents:
            yield f"{where}: {name} in Raises:"
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    annotations = [a.annotation for a in arguments] + [node.returns]
    arrays = any(a is not None and ARRAY.search(ast.unparse(a)) for a in annotations)
    if arrays and not SHAPE.search(text + around):
        yield f"{where}: a shape such as (rows,)"


def public(node: ast.ClassDef | ast.FunctionDef) -> bool:
    return not node.name.startswith("_")


def is_record(node: ast.ClassDef, kind: type) -> bool:
    """Whether the annotations of a class are fields that a caller gives: of settings or a dataclass."""
    return issubclass(kind, Settings) or "__dataclass_fields__" in kind.__dict__ or hasattr(kind, "_fields")


def string(node: ast.stmt | None) -> str:
    """The text of a statement that is nothing but a string."""
    value = node.value if isinstance(node, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def section(text: str, name: str) -> set[str]:
    """The names that a section of a docstring tells of: what stands before the colons."""
    found = re.search(SECTION.format(name=name), text, re.MULTILINE | re.DOTALL)
    lines = textwrap.dedent(found[1]).splitlines() if found else []
    heads = [line.partition(":")[0] for line in lines if line and not line.startswith(" ")]
    return {word.strip() for head in heads for word in head.split(",")}


def raised(node: ast.AST) -> Iterator[str]:
    """Names of our errors that the body of a function raises itself, not the functions defined in it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
            name = ast.unparse(child.exc.func).rpartition(".")[2]
            if inspect.isclass(getattr(errors, name, None)):
                yield name
        yield from raised(child)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(rows,) float32", True),
        ("(positions, width): the states", True),
        ("(2, ..., steps, size / 2) cosines", True),
        ("(C, D or D + 1) of the distinct items", True),
        ("(...): an array of any shape", True),
        ("a bad rating (see above)", False),
        ("an event (a bad rating, say)", False),
    ],
)
def test_a_shape_is_told_from_a_remark(text: str, expected: bool) -> None:
    assert bool(SHAPE.search(text)) is expected


EXAMPLE = '''
def f(x: np.ndarray, y: int):
    """Says what."""
    if y < 0:
        raise SettingsError("y")
    raise ValueError("x")


def g(x: np.ndarray):
    """Says what.

    Args:
        x: (rows,) float32.

    Raises:
        SeqrecError: always.
    """
    raise DataError("x")
'''


def test_findings_name_what_is_missing() -> None:
    f, g = ast.parse(EXAMPLE).body
    assert isinstance(f, ast.FunctionDef)
    assert isinstance(g, ast.FunctionDef)
    assert list(in_function(f, ast.get_docstring(f) or "", "", "m:f")) == [
        "m:f: SettingsError in Raises:",
        "m:f: a shape such as (rows,)",
    ]
    assert list(in_function(g, ast.get_docstring(g) or "", "", "m:g")) == []
