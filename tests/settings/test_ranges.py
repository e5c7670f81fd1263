"""What numbers the settings of models, losses, negatives and training take, by what they mean."""

from __future__ import annotations

import math
from types import UnionType
from typing import Annotated, Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from seqrec import models
from seqrec.training.loss import LOSSES
from seqrec.training.negatives import NegativesSettings
from seqrec.training.settings import TableSettings, TrainSettings

CLASSES = [
    *(models.get(name).Settings for name in models.MODELS),
    *LOSSES.values(),
    NegativesSettings,
    TrainSettings,
    TableSettings,
]
TINY = 1e-9
# by kind: the names, values that are taken, values that are refused
COUNTS = (
    "width hidden layers blocks heads steps longest length recent neighbours sample epochs batch_positions "
    "streams validate_every patience most_items low groups window horizontal vertical attention candidates"
)
SHARES = (
    "dropout dropout_embedding dropout_hidden dropout_between dropout_item smoothing momentum warmup average "
    "radius_min prefixes_from"
)
KINDS: dict[str, tuple[str, list[float], list[float]]] = {
    "from 1": (COUNTS, [1, 2], [0, -1, 1.5]),
    "from 0": ("count top baskets", [0, 1], [-1, 0.5]),
    "share, not all": (SHARES, [0.0, 0.5, 1 - TINY], [-TINY, 1.0, math.nan]),
    "share": ("t logq filter_share asymmetry personal weight", [0.0, 0.5, 1.0], [-TINY, 1 + TINY]),
    "share, not none": ("decay share within_decay group_decay", [TINY, 1.0], [0.0, 1 + TINY]),
    "from 0, any number": (
        "shrinkage regularisation elu clip weight_decay l1 l2 beta",
        [0.0, TINY, 1.0, 100.0],
        [-TINY, math.inf, math.nan],
    ),
    "above 0": (
        "temperature initial_std learning_rate strength days minutes feedforward expansion locality weeks",
        [TINY, 1.0, 10.0],
        [0.0, -1.0, math.inf, math.nan],
    ),
    "share, neither": ("radius_max hide", [TINY, 0.99, 1 - TINY], [0.0, 1.0]),
    "power": ("alpha", [0.0, 0.75, 2.0], [-TINY, 2 + TINY]),
}
FIELDS = [
    (cls, name, info)
    for cls in CLASSES
    for name, info in cls.model_fields.items()
    if {int, float}
    & set(get_args(info.annotation) if isinstance(info.annotation, UnionType) else [info.annotation])
]


@pytest.mark.parametrize(
    ("cls", "name", "info"), FIELDS, ids=lambda x: getattr(x, "__name__", None) or str(x)[:20]
)
def test_numbers_are_taken_by_what_they_mean(cls: Any, name: str, info: Any):
    (kind,) = (kind for kind, (of_kind, *_) in KINDS.items() if name in of_kind.split())
    _, taken, refused = KINDS[kind]
    adapter = TypeAdapter(Annotated[info.annotation, *info.metadata], config=cls.model_config)
    for value in taken:
        assert adapter.validate_python(value) == value
    for value in refused:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)
