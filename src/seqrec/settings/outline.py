"""The keys of settings classes, read from their source and not imported.

A model's file imports torch, which takes longer than all the rest of a command's start: a mistyped key is
refused before that.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def classes(module: str) -> dict[str, ast.ClassDef]:
    """Name -> definition of the classes of a module; none where its source cannot be had."""
    package, _, name = module.rpartition(".")
    spec = find_spec(package)  # imports the package, and not the module
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    path = next((p for place in places if (p := Path(place) / f"{name}.py").is_file()), None)
    if path is None:
        return {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def keys(module: str, name: str) -> list[str] | None:
    """The fields of a settings class in their order; None where only an import could tell."""
    known = classes(module)
    if name not in known:
        return None
    own = [
        node.target.id
        for node in known[name].body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and not ast.unparse(node.annotation).startswith("ClassVar")
    ]
    inherited: list[str] = []
    for base in map(ast.unparse, known[name].bases):
        if base in ("Settings", "ABC"):
            continue
        found = keys(module, base)
        if found is None:
            return None
        inherited += found
    return [*inherited, *own]


def attribute(module: str, name: str, of: str) -> ast.expr | None:
    """What a class's body assigns to a name."""
    node = classes(module).get(name)
    for statement in node.body if node is not None else ():
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == of:
            return statement.value
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == of:
            return statement.value
    return None
