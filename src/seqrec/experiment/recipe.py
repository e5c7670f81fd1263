"""Which model: the sections of a run that describe it, and the untrained model that they make."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seqrec import models
from seqrec.errors import SettingsError, shown

if TYPE_CHECKING:  # it imports torch
    from seqrec.models.model import Model

SECTIONS = ("loss", "negatives", "train", "features", "prior", "item_table")
"""Of a model, beside ``model``."""


@dataclass(frozen=True)
class Recipe:
    """
    Attributes:
        model: the model's name and its own settings.
        loss, negatives, train, features, prior, item_table: sections of models that take them; None where
            nothing is said.
        selection: by what epochs are chosen where ``train`` does not say.
    """

    model: dict[str, Any]
    loss: Any = None
    negatives: Any = None
    train: Any = None
    features: Any = None
    prior: Any = None
    item_table: Any = None
    selection: dict[str, Any] = field(default_factory=dict)

    def make(self) -> Model:
        """A new, untrained model.

        Raises:
            SettingsError: no such model, a section that it does not take, or a wrong setting.
        """
        settings = dict(self.model)
        name = settings.pop("name", None)
        if name is None:
            raise SettingsError(f"model.name: missing. Known: {', '.join(models.MODELS)}.")
        if not isinstance(name, str):
            raise SettingsError(f"model.name: expected the name of a model. Got {shown(name)}.")
        cls = models.get(name)
        sections = {name: getattr(self, name) for name in SECTIONS}
        given = {section: value for section, value in sections.items() if value is not None}
        for section in given:
            if section not in cls.sections:
                raise SettingsError(
                    f"{section}: {name} is not trained by gradient and has no such section. Leave it out."
                )
        if self.selection and "train" in cls.sections:
            given["train"] = {**self.selection, **(self.train or {})}
        # of an ensemble or a rerank, each of which is trained by itself, where it is trained by gradient
        if isinstance(members := settings.get("members"), list):
            settings["members"] = [self._selecting(one) for one in members]
        for stage in ("retriever", "scorer"):
            if stage in settings and stage in cls.Settings.model_fields:
                settings[stage] = self._selecting(settings[stage])
        return cls(**given, **settings)

    def _selecting(self, one: Any) -> Any:
        """A model within another, which chooses its epochs as this one does where it does not say."""
        if not (self.selection and isinstance(one, dict) and _is_trained(one.get("name"))):
            return one
        return {**one, "train": {**self.selection, **(one.get("train") or {})}}


def _is_trained(name: Any) -> bool:
    """Whether a member of that name is trained by gradient; what is no name is refused later."""
    return isinstance(name, str) and "train" in models.get(name).sections
