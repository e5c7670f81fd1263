"""Settings: frozen, documented, and strict. An unknown key is an error that names its nearest neighbour."""

from __future__ import annotations

import re
import typing
from typing import Any, Self

import pydantic
from pydantic import BaseModel, ConfigDict

from seqrec.errors import SettingsError, did_you_mean, shown


class Settings(BaseModel):
    """Base of every group of settings: the same class behind Python arguments and a section of YAML."""

    # allow_inf_nan: JSON has neither, so what is trained with one could not be saved
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

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
    errors = error.errors()
    first, keys = errors[0], _keys(errors[0]["loc"])
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
    # one of several kinds of value: what each of them would have been
    same = [e["msg"] for e in errors if _keys(e["loc"]) == keys]
    expected = [text.removeprefix("Value error, ").removeprefix("Input should be ") for text in same]
    message = " or ".join(dict.fromkeys(expected))
    return f"{name}: expected {message}. Got {shown(first['input'])}."


def _keys(place: tuple[int | str, ...]) -> list[str]:
    """The keys of a place, without pydantic's names of the kinds of value that may stand there."""
    keys = [str(part) for part in place]
    while len(keys) > 1 and re.fullmatch(
        r"(str|int|float|bool|list|dict|constrained-\w+)(\[.*\])?", keys[-1]
    ):
        keys.pop()
    return keys
