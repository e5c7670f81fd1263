"""What a name stands for: something that the package ships, something that an installed package offers, or an
object of any module.

    gru4rec                   shipped
    mine                      an entry point of an installed package, in the group seqrec.models
    package.module:MyModel    the object of that name in that module, which is imported

The groups of entry points are ``seqrec.models``, ``seqrec.splits``, ``seqrec.losses`` and ``seqrec.metrics``.
A shipped name always means what is shipped.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Literal

from seqrec.errors import SettingsError, did_you_mean, shown

GROUPS = {
    "model": "seqrec.models",
    "split": "seqrec.splits",
    "loss": "seqrec.losses",
    "metric": "seqrec.metrics",
}
Kind = Literal["model", "split", "loss", "metric"]


def resolve(kind: Kind, name: str, shipped: Mapping[str, Any]) -> Any:
    """The object that a name stands for.

    Args:
        shipped: name -> the object, or where it is as ``package.module:Name``.

    Raises:
        SettingsError: there is nothing of that name, or it cannot be imported.
    """
    place, name = isinstance(name, str) and ":" in name, str(name)
    if name in shipped:
        found = shipped[name]
        return _import(kind, found) if isinstance(found, str) else found
    if place:
        return _import(kind, name)
    offered = check(kind, name, shipped)
    return _import(kind, offered[name], f"{name} ({offered[name]})")


def check(kind: Kind, name: str, shipped: Mapping[str, Any]) -> dict[str, str]:
    """Checks, without importing anything, that something is shipped or offered under a name.

    Returns:
        what installed packages offer: name -> ``package.module:Name``.

    Raises:
        SettingsError: there is nothing of that name.
    """
    offered = {point.name: point.value for point in entry_points(group=GROUPS[kind])}
    if name in shipped or name in offered:
        return offered
    hint = did_you_mean(name, [*shipped, *offered])
    if not hint.startswith(" Did"):
        hint += " One from outside the package is named package.module:Name."
    raise SettingsError(f"unknown {kind} {shown(name)}.{hint}")


def reference(found: Any) -> str:
    """``package.module:Name`` of a class or function, by which ``resolve`` finds it again (of another object,
    that of its class)."""
    named = found if hasattr(found, "__qualname__") else type(found)
    return f"{named.__module__}:{named.__qualname__}"


def _import(kind: str, place: str, where: str | None = None) -> Any:
    module, _, path = place.partition(":")
    where = where or shown(place, str)
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever a module does when it is imported
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise SettingsError(
            f"{kind} {where}: the module {shown(module)} cannot be imported ({why}). Install its package, or "
            "put its folder on PYTHONPATH."
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            known = [name for name in vars(found) if not name.startswith("_")]
            near = did_you_mean(part, known)
            near = near if near.startswith(" Did") else ""
            raise SettingsError(f"{kind} {where}: {shown(module, str)} has no {shown(path)}.{near}")
        found = getattr(found, part)
    return found
