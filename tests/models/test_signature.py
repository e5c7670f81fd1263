"""``help`` and ``inspect`` show the real settings of every model."""

from __future__ import annotations

import inspect
import pydoc
from typing import Literal

import polars as pl
import pytest

import seqrec
from seqrec import models
from seqrec.errors import SettingsError
from seqrec.models.markov import Markov, MarkovSettings
from seqrec.splitting import SPLITS
from seqrec.splitting.arguments import arguments_of

SECTIONS = ["loss", "negatives", "train", "features", "prior", "item_table"]


@pytest.mark.parametrize("name", models.MODELS)
def test_the_signature_has_every_setting(name):
    cls = models.get(name)
    parameters = inspect.signature(cls).parameters
    fields = cls.Settings.model_fields
    assert list(parameters) == [*fields, *cls.sections]
    assert list(cls.sections) in ([], SECTIONS)
    for key, field in fields.items():
        assert parameters[key].default == field.get_default(call_default_factory=True)
        assert parameters[key].annotation == field.annotation
        assert parameters[key].kind is inspect.Parameter.KEYWORD_ONLY
    assert cls(**{key: parameters[key].default for key in fields}).configuration() == cls().configuration()


@pytest.mark.parametrize("name", models.MODELS)
def test_help_says_what_every_argument_means(name):
    cls = models.get(name)
    page = " ".join(pydoc.plain(pydoc.render_doc(cls)).replace("|", " ").split())
    for key, field in cls.Settings.model_fields.items():
        assert field.description, f"{key} has no docstring"
        assert f"{key}: {' '.join(field.description.split())}".replace("|", " ") in page
    for key, text in cls.sections.items():
        assert f"{key}: {text}".replace("|", " ") in page
    assert inspect.getdoc(cls).splitlines()[0] == inspect.getmodule(cls).__doc__.splitlines()[0]


def test_the_signature_of_gru4rec():
    shown = str(inspect.signature(seqrec.GRU4Rec))
    assert "width: int = 64" in shown
    assert "embedding: Literal['shared', 'separate', 'none'] = 'shared'" in shown
    assert "loss: 'str" in shown
    assert "**settings" not in shown


def test_models_from_outside():
    class LoudSettings(MarkovSettings):
        how: Literal["very", "not"]
        """How loud."""

    class Loud(Markov):
        """Markov, but loud."""

        name = "loud"
        Settings = LoudSettings

    assert inspect.signature(Loud).parameters["how"].default is inspect.Parameter.empty
    assert "how: How loud." in Loud.__doc__
    assert Loud.__doc__.startswith("Markov, but loud.")

    class Fixed(Markov):
        def __init__(self, items: int, /, level: float = 0.5, **settings):
            super().__init__(**settings)

    assert list(inspect.signature(Fixed).parameters) == ["items", "level", *MarkovSettings.model_fields]

    class Closed(Markov):
        """It takes one thing.

        Args:
            items: how many.
        """

        def __init__(self, items: int):
            super().__init__()

    assert list(inspect.signature(Closed).parameters) == ["items"]
    assert Closed.__doc__.count("Args:") == 1


@pytest.mark.parametrize("name", SPLITS)
def test_the_signature_of_a_split_has_its_arguments(name):
    sequences, *arguments = inspect.signature(SPLITS[name]).parameters.values()
    assert sequences.name == "sequences"
    fields = arguments_of(SPLITS[name]).model_fields
    assert {p.name: p.default for p in arguments} == {
        key: inspect.Parameter.empty if field.is_required() else field.default
        for key, field in fields.items()
    }
    assert all(p.name in inspect.getdoc(SPLITS[name]) for p in arguments)


def test_a_frame_with_other_names_is_fitted():
    frame = pl.DataFrame({"client": [1, 1, 2, 2], "sku": ["a", "b", "a", "b"], "when": [1, 2, 1, 2]})
    columns = {"user_id": "client", "item_id": "sku", "timestamp": "when"}
    model = seqrec.Markov().fit(frame, columns=columns)
    assert model.recommend([["a"]], k=1)["item_id"].to_list() == ["b"]
    with pytest.raises(SettingsError, match="columns: expected a frame"):
        seqrec.Markov().fit(seqrec.Interactions.from_frame(frame, columns), columns=columns)


def test_dir_shows_the_public_names():
    assert set(dir(seqrec)) == set(seqrec.__all__)
