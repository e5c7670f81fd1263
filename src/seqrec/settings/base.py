"""Settings: frozen, documented, and strict. An unknown key is an error that names its nearest neighbour."""

from __future__ import annotations

import typing
from typing import Any, Self

import pydantic
from pydantic import BaseModel, ConfigDict

from seqrec.errors import SettingsError, did_you_mean


class Settings(BaseModel):
    """Base of every group of settings: the same class behind Python arguments and a section of YAML."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def of(cls, values: Self | dict[str, Any] | None, section: str) -> Self:
        """Validated settings from a dictionary; settings pass as they are, None gives the defaults.

        Raises:
            SettingsError: an unknown key or a value out of range; names the section, the key, what was
                expected and what came.
        """
        if isinstance(values, cls):
            return values
        try:
            return cls.model_validate(values or {})
        except pydantic.ValidationError as error:
            raise SettingsError(explain(error, cls, section)) from error


def explain(error: pydantic.ValidationError, cls: type[BaseModel], section: str) -> str:
    """One line for the first thing that is wrong."""
    first = error.errors()[0]
    keys = [str(part) for part in first["loc"]]
    name = ".".join([section, *keys]) if section else ".".join(keys)
    if first["type"] == "extra_forbidden":
        owner: Any = cls
        for part in keys[:-1]:
            field = owner.model_fields.get(part) if hasattr(owner, "model_fields") else None
            # one, or as in ``TableSettings | None``
            kinds = typing.get_args(field.annotation) or (field.annotation,) if field else ()
            owner = next((kind for kind in kinds if hasattr(kind, "model_fields")), None)
        known = owner.model_fields if hasattr(owner, "model_fields") else ()
        return f"{name}: unknown setting.{did_you_mean(keys[-1], known)}"
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, SettingsError):  # which says all that there is to say
        return f"{name}: {cause}"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{name}: expected {message}. Got {first['input']!r}."
