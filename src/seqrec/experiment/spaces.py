"""What a search for settings tries: the values of each setting, by model.

A key is a setting as ``--set`` of a run has it, ``model.dropout``. The first trial of a search has none of
them: it is the model, or the run file, as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from seqrec.errors import SettingsError


@dataclass(frozen=True)
class Range:
    """Every number between two; whole ones, where both are.

    Attributes:
        low, high: the ends, which belong to it.
        log: each factor is as likely as the next, rather than each difference.
    """

    low: float
    high: float
    log: bool = False


Space = Mapping[str, Range | tuple[Any, ...]]
"""Key -> values: a range, or some to choose from."""

RATE = {"train.learning_rate": Range(3e-4, 1e-2, log=True)}
WIDTH = {"model.width": (32, 64, 128, 192)}
DROPOUT = {"model.dropout": Range(0.0, 0.6)}
WINDOWED: Space = {**WIDTH, **DROPOUT, **RATE, "model.blocks": (1, 2, 3)}

SPACES: dict[str, Space] = {
    "recent_popularity": {"model.share": Range(0.003, 1.0, log=True)},
    "markov": {"model.strength": Range(0.1, 100.0, log=True), "model.window": (1, 2, 3, 5)},
    "item_knn": {
        "model.neighbours": (20, 50, 100, 200, 400),
        "model.shrinkage": Range(0.0, 100.0),
        "model.decay": Range(0.1, 1.0),
    },
    "vsknn": {"model.neighbours": (50, 100, 200, 500), "model.recent": (2, 5, 10, 20)},
    "personal_top": {"model.recent": (None, 1, 3, 10)},
    "tifu_knn": {
        "model.neighbours": (100, 300, 900),
        "model.within_decay": Range(0.5, 1.0),
        "model.group_decay": Range(0.3, 1.0),
        "model.personal": Range(0.0, 1.0),
        "model.groups": (3, 7, 15),
    },
    "up_cf": {
        "model.recent": (None, 3, 10, 30),
        "model.asymmetry": (0.0, 0.25, 0.5, 0.75, 1.0),
        "model.locality": (1.0, 5.0, 10.0, 30.0),
    },
    "taiw": {
        "model.neighbours": (30, 100, 300),
        "model.personal": Range(0.0, 1.0),
        "model.learning_rate": Range(1e-3, 1e-1, log=True),
        "model.weeks": (1, 3, 10),
    },
    "fpmc": {**WIDTH, **RATE},
    "hrm": {
        **WIDTH,
        **DROPOUT,
        **RATE,
        "model.recent": (1, 2, 3, 5, 10),
        "model.pool_items": ("max", "average"),
        "model.pool_user": ("max", "average"),
    },
    "gru4rec": {
        **WIDTH,
        **RATE,
        "model.hidden": (64, 128, 256, 384),
        "model.dropout_embedding": Range(0.0, 0.6),
        "model.dropout_hidden": Range(0.0, 0.6),
    },
    "sasrec": {
        **WIDTH,
        **DROPOUT,
        **RATE,
        "model.blocks": (1, 2, 3),
        "model.heads": (1, 2, 4),
        "model.gated": (False, True),
        "model.positions": ("learned", "rotary"),
    },
    "esasrec": WINDOWED,
    "hstu": WINDOWED,
    "fuxi": WINDOWED,
    "lrurec": WINDOWED,
    "fmlp": WINDOWED,
    "bsarec": WINDOWED,
    "bert4rec": WINDOWED,
    "dssm": {**WIDTH, **DROPOUT, **RATE, "model.hidden": (64, 128, 256), "model.recent": (1, 2, 3, 5, 10)},
    "din": {**WIDTH, **DROPOUT, **RATE, "model.attention": (16, 32, 64), "model.recent": (5, 10, 20, 50)},
    "bst": {**WIDTH, **DROPOUT, **RATE, "model.blocks": (1, 2), "model.recent": (5, 10, 20, 50)},
    "rerank": {"model.candidates": (50, 100, 200, 500)},
}
"""Model -> what is tried."""

FILTERED: Space = {"loss.seen": ("keep", "mask")}
"""Of every neural model, where the history is filtered."""
NEURAL: Space = {"prior": (None, "markov")}
"""Of every neural model."""


def space_of(model: str, neural: bool, filter_seen: bool) -> dict[str, Range | tuple[Any, ...]]:
    """What is tried of a model.

    Args:
        neural: whether it is trained by gradient.
        filter_seen: whether the history is filtered.
    """
    space = dict(SPACES.get(model, RATE if neural else {}))
    if neural:
        space |= NEURAL
    if neural and filter_seen:
        space |= FILTERED
    return space


def parse(pairs: Iterable[str]) -> dict[str, Range | tuple[Any, ...]]:
    """A space as the command line has it: ``model.width=32,64,128``, ``model.dropout=0..0.5``, or
    ``train.learning_rate=1e-4..1e-2`` (logarithmic, since it spans more than a factor of ten).

    Raises:
        SettingsError: it is neither.
    """
    found: dict[str, Range | tuple[Any, ...]] = {}
    for pair in pairs:
        key, equals, values = pair.partition("=")
        section = key.partition(".")[0]
        name = key.partition(".")[2]
        known = section in ("model", "loss", "negatives", "train", "prior") and (name or section == "prior")
        if not equals or not values or not known:
            raise SettingsError(
                "--search: expected KEY=VALUE,VALUE,... or KEY=LOW..HIGH, where KEY is a setting of model, "
                f"loss, negatives, train or prior, as model.dropout=0..0.5. Got {pair!r}."
            )
        if span := re.fullmatch(r"(\S+?)\.\.(\S+)", values):
            low, high = (_number(key, end) for end in span.groups())
            if not low < high:
                raise SettingsError(
                    f"--search {key}: expected LOW..HIGH with LOW below HIGH. Got {values!r}."
                )
            if high - low <= 1:  # a share: its ends are whole numbers by chance
                low, high = float(low), float(high)
            found[key] = Range(low, high, log=low > 0 and high > 10 * low)
        else:
            try:
                found[key] = tuple(yaml.safe_load(value) for value in values.split(","))
            except yaml.YAMLError as error:
                raise SettingsError(
                    f"--search {key}: expected values with commas. Got {values!r}."
                ) from error
    return found


def _number(key: str, text: str) -> float:
    try:
        return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
    except ValueError as error:
        raise SettingsError(f"--search {key}: expected a number. Got {text!r}.") from error
