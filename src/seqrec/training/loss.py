"""The losses as settings: a class each, with its options and how it compares a target with other items.

The formulas are in ``seqrec.training.losses``. A loss says what it compares by what it overrides:

    of_catalogue   the target with all items: softmax
    of_draws       the target with drawn negatives, a score each: all others
    of_distinct    the same, where all positions share their negatives, each distinct item scored once:
                   faster, and equal up to rounding
"""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from seqrec.errors import SettingsError
from seqrec.settings import names
from seqrec.settings.base import Settings
from seqrec.training import losses
from seqrec.training.negatives import Distinct, NegativesSettings
from seqrec.training.own_items import Seen


class Loss(Settings, ABC):
    """What training minimises, a mean over the positions of a batch. A loss of your own is a subclass that
    overrides ``of_catalogue`` or ``of_draws``.

    Attributes:
        uses_disliked: whether positions whose target is disliked count (as negatives); else they are left
            out.
    """

    uses_disliked: ClassVar[bool] = False
    name: str = ""
    """Which loss."""
    seen: Literal["keep", "mask"] = "keep"
    """Whether a position is compared with items of its own history (all of it, the target apart) or not:
    mask, for models whose recommendations leave those out, which then need not learn to score them low. Needs
    ``train.filter_seen``, and lowers unfiltered accuracy."""

    def described(self) -> dict[str, Any]:
        """Name and options as JSON values, from which ``loss_of`` makes it again."""
        of_own = type(self) not in LOSSES.values()
        return self.model_dump(mode="json") | ({"name": names.reference(type(self))} if of_own else {})

    @property
    def draws(self) -> bool:
        """Whether it compares with drawn negatives, and not with the whole catalogue."""
        return type(self).of_catalogue is Loss.of_catalogue

    def scores_distinct(self, negatives: NegativesSettings) -> bool:
        """Whether ``of_distinct`` is used for negatives of these settings."""
        return negatives.shared and not negatives.top and type(self).of_distinct is not Loss.of_distinct

    def of_catalogue(
        self,
        states: Tensor,
        item_vectors: Tensor,
        targets: Tensor,
        bfloat16: bool = False,
        seen: Seen | None = None,
    ) -> Tensor:
        """The loss of (N, D) states with (C, D or D + 1) vectors of all items and (N,) targets.

        Args:
            seen: the histories of the positions, with ``seen: mask`` (else it is not given).
        """
        raise AssertionError(f"{self.name} compares with drawn negatives")

    def of_sets(
        self, states: Tensor, item_vectors: Tensor, targets: Tensor, of: Tensor, bfloat16: bool = False
    ) -> Tensor:
        """``of_catalogue`` where a state may have several targets, such as the items of a basket: (R, D)
        states, (N,) targets and (N,) the state of each, ascending. A loss that does not override it counts
        each target the same."""
        return self.of_catalogue(states[of], item_vectors, targets, bfloat16)

    def of_draws(self, positive: Tensor, negative: Tensor, labels: Tensor | None, items: int) -> Tensor:
        """The loss of scores.

        Args:
            positive: (N,) of the targets.
            negative: (N, M) of their negatives, -inf where one does not count.
            labels: (N,) bool, False where a target is disliked; only for a loss that uses these.
            items: how many the catalogue has.
        """
        raise AssertionError(f"{self.name} compares with the whole catalogue")

    def of_distinct(
        self,
        states: Tensor,
        item_vectors: Tensor,
        drawn: Distinct,
        bfloat16: bool = False,
        seen: Seen | None = None,
    ) -> Tensor:
        """The loss of (N, D) states with (U, D or D + 1) vectors of the distinct items that were drawn; seen
        as in ``of_catalogue``."""
        raise AssertionError(f"{self.name} scores each draw")


class Softmax(Loss):
    """The target against all items."""

    name: Literal["softmax"] = "softmax"
    """Cross-entropy over the whole catalogue."""
    smoothing: float = Field(0.0, ge=0, lt=1)
    """Label smoothing."""

    @field_validator("smoothing")
    @classmethod
    def _over_all(cls, smoothing: float, info: ValidationInfo) -> float:
        if smoothing and info.data.get("seen") == "mask":
            raise ValueError("0 with seen: mask, since it spreads over all items")
        return smoothing

    def of_catalogue(
        self,
        states: Tensor,
        item_vectors: Tensor,
        targets: Tensor,
        bfloat16: bool = False,
        seen: Seen | None = None,
    ) -> Tensor:
        return losses.softmax(states, item_vectors, targets, self.smoothing, bfloat16, seen)

    def of_sets(
        self, states: Tensor, item_vectors: Tensor, targets: Tensor, of: Tensor, bfloat16: bool = False
    ) -> Tensor:
        return losses.softmax_of_sets(states, item_vectors, targets, of, self.smoothing, bfloat16)


class SampledSoftmax(Loss):
    """The target against drawn negatives, as one choice."""

    name: Literal["sampled_softmax"] = "sampled_softmax"
    """Cross-entropy over the target and drawn negatives."""

    def of_draws(self, positive: Tensor, negative: Tensor, labels: Tensor | None, items: int) -> Tensor:
        return losses.sampled_softmax(positive, negative)

    def of_distinct(
        self,
        states: Tensor,
        item_vectors: Tensor,
        drawn: Distinct,
        bfloat16: bool = False,
        seen: Seen | None = None,
    ) -> Tensor:
        return losses.shared_sampled_softmax(states, item_vectors, drawn.at, drawn.weights, bfloat16, seen)


class BCE(Loss):
    """The target liked or disliked, its negatives disliked."""

    uses_disliked = True
    name: Literal["bce"] = "bce"
    """Binary cross-entropy of the target and drawn negatives."""

    def of_draws(self, positive: Tensor, negative: Tensor, labels: Tensor | None, items: int) -> Tensor:
        return losses.bce(positive, negative, labels)


class GBCE(Loss):
    """``bce`` calibrated for how few of the items are drawn."""

    name: Literal["gbce"] = "gbce"
    """Generalised binary cross-entropy."""
    t: float = Field(0.75, ge=0, le=1)
    """Calibration: 0 is plain binary cross-entropy, 1 fully calibrated."""

    def of_draws(self, positive: Tensor, negative: Tensor, labels: Tensor | None, items: int) -> Tensor:
        return losses.gbce(positive, negative, items, self.t)


class BPR(Loss):
    """The target against each negative."""

    name: Literal["bpr"] = "bpr"
    """Bayesian personalised ranking: target above negative, pair by pair."""

    def of_draws(self, positive: Tensor, negative: Tensor, labels: Tensor | None, items: int) -> Tensor:
        return losses.bpr(positive, negative)


class BPRMax(Loss):
    """The target against its negatives, weighted by their softmax."""

    name: Literal["bpr_max"] = "bpr_max"
    """BPR in which the highest negatives count most."""
    regularisation: float = Field(1.0, ge=0)
    """Weight of the score regulariser."""
    elu: float = Field(0.0, ge=0)
    """Alpha of the ELU that scores pass through; 0 for none."""

    def scores_distinct(self, negatives: NegativesSettings) -> bool:
        return negatives.shared and not negatives.logq and not negatives.top

    def of_draws(self, positive: Tensor, negative: Tensor, labels: Tensor | None, items: int) -> Tensor:
        return losses.bpr_max(positive, negative, self.regularisation, self.elu)

    def of_distinct(
        self,
        states: Tensor,
        item_vectors: Tensor,
        drawn: Distinct,
        bfloat16: bool = False,
        seen: Seen | None = None,
    ) -> Tensor:
        return losses.shared_bpr_max(
            states, item_vectors, drawn.at, drawn.weights, self.regularisation, self.elu, seen
        )


class TOP1(Loss):
    """The target against each negative, with a pull of these towards 0."""

    name: Literal["top1"] = "top1"
    """TOP1: target above negative, and negatives near 0."""

    def of_draws(self, positive: Tensor, negative: Tensor, labels: Tensor | None, items: int) -> Tensor:
        return losses.top1(positive, negative)


class TOP1Max(Loss):
    """``top1`` with negatives weighted by their softmax."""

    name: Literal["top1_max"] = "top1_max"
    """TOP1 in which the highest negatives count most."""

    def of_draws(self, positive: Tensor, negative: Tensor, labels: Tensor | None, items: int) -> Tensor:
        return losses.top1_max(positive, negative)


LOSSES: dict[str, type[Loss]] = {
    cls.model_fields["name"].default: cls
    for cls in (Softmax, SampledSoftmax, BCE, GBCE, BPR, BPRMax, TOP1, TOP1Max)
}
"""The shipped losses by name."""

OF_ALL = {"smoothing": 0.0, "t": 0.75, "regularisation": 1.0, "elu": 0.0}
"""Models and results of 0.1.0 list the options of all losses, with these values where they do not apply."""


def upgraded(options: dict[str, Any]) -> dict[str, Any]:
    """A loss as any version wrote it, with its own options only."""
    cls = LOSSES.get(options.get("name", ""))
    if cls is None:
        return options
    return {k: v for k, v in options.items() if k in cls.model_fields or (k, v) not in OF_ALL.items()}


def loss_of(value: str | dict[str, Any] | Loss | None, default: str = "softmax") -> Loss:
    """A loss from its name, or from a dictionary with its name and options.

    One from outside the package, a subclass of ``Loss``, is named ``package.module:Name``, or as an installed
    package offers it (entry points of the group ``seqrec.losses``).

    Raises:
        SettingsError: an unknown loss, or an option that it does not have.
    """
    if isinstance(value, Loss):
        return _whole(value)
    options = {"name": value} if isinstance(value, str) else dict(value or {})
    name = str(options.setdefault("name", default))
    try:
        cls = names.resolve("loss", name, LOSSES)
    except SettingsError as error:
        raise SettingsError(f"loss.name: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Loss)):
        raise SettingsError(f"loss.name: expected a subclass of seqrec.training.loss.Loss. Got {name!r}.")
    # a subclass of a shipped loss goes on under that one's name, which its field is fixed to
    options = upgraded(options | {"name": cls.model_fields["name"].default or name})
    for option, given in options.items():
        owner = next((other for other, c in LOSSES.items() if option in c.model_fields), None)
        if option not in cls.model_fields and owner is not None:
            raise SettingsError(
                f"loss.{option}: expected no value with the loss {name}, since only {owner} has it; leave it "
                f"out. Got {given!r}."
            )
    return _whole(cls.of(options, "loss"))


def _whole(loss: Loss) -> Loss:
    cls = type(loss)
    if cls.of_catalogue is Loss.of_catalogue and cls.of_draws is Loss.of_draws:
        raise SettingsError(
            f"loss.name: expected a loss that overrides of_catalogue or of_draws. "
            f"{names.reference(cls)} does neither."
        )
    return loss
