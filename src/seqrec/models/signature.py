"""What ``help`` and ``inspect`` show of a model: the fields of its settings, written out as keywords."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Mapping
from inspect import Parameter, Signature

from pydantic import BaseModel


def signature_of(init: Signature, settings: type[BaseModel]) -> Signature:
    """The signature of a constructor with the fields of the settings in place of ``**settings``."""
    _, *own = init.parameters.values()  # without self
    if all(p.kind is not Parameter.VAR_KEYWORD for p in own):
        return init.replace(parameters=own)
    fields = [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.is_required() else field.get_default(call_default_factory=True),
            annotation=field.annotation,
        )
        for name, field in settings.model_fields.items()
    ]
    positional = [p for p in own if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
    keywords = [p for p in own if p.kind is Parameter.KEYWORD_ONLY]
    return Signature([*positional, *fields, *keywords])


def documentation_of(cls: type, settings: type[BaseModel], sections: Mapping[str, str]) -> str | None:
    """The class's docstring (of a shipped model that of its file), and what each argument means."""
    own = cls.__dict__.get("__doc__")
    if own is None and cls.__module__.startswith("seqrec."):
        own = sys.modules[cls.__module__].__doc__
    about = inspect.cleandoc(own or "")
    arguments = {name: field.description or "" for name, field in settings.model_fields.items()} | dict(
        sections
    )
    if "Args:" in about or not arguments:
        return about or None
    lines = [
        textwrap.fill(
            f"{name}: {' '.join(text.split())}", 100, initial_indent="    ", subsequent_indent="        "
        )
        for name, text in arguments.items()
    ]
    return "\n".join([about, "", "Args:", *lines]).lstrip()
