"""Neural models: an encoder of histories and a table of item vectors; the score is their dot product.

One loop trains them all, with any loss and any sampler of negatives.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from seqrec import losses, training
from seqrec.batching import Batch
from seqrec.config import Settings
from seqrec.errors import SeqrecError, SettingsError
from seqrec.features.encoding import Features
from seqrec.features.schema import USER_ID, FeatureSchema
from seqrec.layers.features import FeatureEmbedding
from seqrec.models.model import Model
from seqrec.negatives import NegativesSettings, Sampler
from seqrec.sequences import Histories
from seqrec.splitting.split import Split
from seqrec.training import TrainSettings

LossName = Literal["softmax", "sampled_softmax", "bce", "gbce", "bpr", "bpr_max", "top1", "top1_max"]
OPTIONS = {"smoothing": "softmax", "t": "gbce", "regularisation": "bpr_max", "elu": "bpr_max"}
"""Option of a loss -> the loss that has it."""


class LossSettings(Settings):
    name: LossName = "softmax"
    """Which loss."""
    smoothing: float = Field(0.0, ge=0, lt=1)
    """softmax: label smoothing."""
    t: float = Field(0.75, ge=0, le=1)
    """gbce: calibration."""
    regularisation: float = Field(1.0, ge=0)
    """bpr_max: weight of the score regulariser."""
    elu: float = Field(0.0, ge=0)
    """bpr_max: alpha of the ELU that scores pass through; 0 for none."""

    @field_validator(*OPTIONS)
    @classmethod
    def _of_this_loss(cls, value: float, info: ValidationInfo) -> float:
        assert info.field_name is not None
        of, name = OPTIONS[info.field_name], info.data.get("name")
        if name not in (of, None) and value != cls.model_fields[info.field_name].default:  # a saved model lists defaults, too
            raise ValueError(f"no value with the loss {name}, since only {of} has it; leave it out")
        return value


class Encoder(nn.Module, ABC):
    """Turns histories into states. An item's score is the product of state and item vector, which may have one column more: the item's bias.

    Attributes:
        knows_users: True where users have vectors of their own, so that even an empty history says something.
        reads_item_vectors: how many columns of ``item_vectors`` are what ``encode`` reads of the items of a history, and takes as
            ``batch.vectors`` if it is there; 0: it reads others.
    """

    knows_users = False
    reads_item_vectors = 0

    @abstractmethod
    def batches(self, split: Split, positions: int, rng: np.random.Generator) -> Iterator[Batch]:
        """One epoch of training batches of about that many positions."""

    @abstractmethod
    def history_batch(self, histories: Histories) -> Batch:
        """One batch with one wanted state a history, the one after its last item."""

    @abstractmethod
    def encode(self, batch: Batch) -> Tensor:
        """(positions, width) states at ``batch.at``."""

    @abstractmethod
    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """(items, width or width + 1) vectors of all items, or of these (any shape, width last)."""

    def use_sparse_gradients(self) -> None:
        """Embedding tables get sparse gradients: an update reads and writes only the rows that it needs (for optimizers that know how)."""
        for module in self.modules():
            if isinstance(module, nn.Embedding | nn.EmbeddingBag):
                module.sparse = True

    def loss_in_one_pass(self, batch: Batch) -> Tensor | None:
        """The sampled softmax of a batch with its negatives drawn, by a way that is faster than ``encode`` and the loss; None: there is none."""
        return None

    def loss_scale(self, batch: Batch) -> float:
        """What the mean loss of a training batch is multiplied by."""
        return 1.0


def _wanted(values: Tensor, batch: Batch, settings: LossSettings) -> Tensor:
    """Those of (positions, ...) values that the loss looks at: with labels only the liked positions, unless it has a use for the others."""
    return values if batch.labels is None or settings.name == "bce" else values[batch.labels]


def with_negatives(encoder: Encoder, batches: Iterable[Batch], settings: LossSettings, sampler: Sampler) -> Iterator[Batch]:
    """The batches on the sampler's device, with their negatives where all positions share these and the loss scores each item once."""
    scores_once = settings.name == "sampled_softmax" or (settings.name == "bpr_max" and not sampler.settings.logq)
    if not scores_once or not sampler.settings.shared:
        yield from (batch.to(sampler.device) for batch in batches)
        return
    batches = iter(batches)
    while some := [batch.to(sampler.device) for batch in itertools.islice(batches, sampler.batches_at_once)]:
        # Each item is looked up once, be it target or negative, or input where the encoder reads the same vectors.
        beside = [batch.items for batch in some] if encoder.reads_item_vectors else None
        drawn = sampler.distinct([_wanted(batch.targets, batch, settings) for batch in some], beside)
        yield from (replace(batch, drawn=d) for batch, d in zip(some, drawn, strict=True))


def compute_loss(encoder: Encoder, batch: Batch, settings: LossSettings, sampler: Sampler, bfloat16: bool = False) -> Tensor:
    """The loss of a batch: encode, score the targets and their negatives, compare.

    Args:
        batch: as ``with_negatives`` gives it.
        bfloat16: encode and multiply in bfloat16 (sums, norms and losses stay float32).
    """
    scale, targets, drawn = encoder.loss_scale(batch), _wanted(batch.targets, batch, settings), batch.drawn
    if drawn is not None and settings.name == "sampled_softmax" and batch.labels is None and not bfloat16:
        loss = encoder.loss_in_one_pass(batch)
        if loss is not None:
            return loss if scale == 1 else loss * scale
    if drawn is not None:
        vectors = encoder.item_vectors(drawn.items)
        if drawn.beside is not None:
            vectors, inputs = _WithInputs.apply(vectors, drawn.beside, encoder.reads_item_vectors)
            batch = replace(batch, vectors=inputs.view(*batch.items.shape, -1))
    with torch.autocast(batch.items.device.type, torch.bfloat16) if bfloat16 else nullcontext():
        states = encoder.encode(batch)
    states = _wanted(states.float(), batch, settings)
    if not len(targets):  # every target of the batch is disliked
        return states.sum() * 0.0
    if drawn is not None:
        weights = drawn.log_weight, drawn.target_log_weight, drawn.own_log_weight
        if settings.name == "sampled_softmax":
            loss = losses.shared_sampled_softmax(states, vectors, drawn.at, weights, bfloat16)
        else:
            loss = losses.shared_bpr_max(states, vectors, drawn.at, weights, settings.regularisation, settings.elu)
    elif settings.name == "softmax":
        loss = losses.softmax(states, encoder.item_vectors(), targets, settings.smoothing, bfloat16)
    else:
        loss = _loss_of_draws(encoder, states, targets, batch.labels, settings, sampler)
    return loss if scale == 1 else loss * scale


class _WithInputs(torch.autograd.Function):
    """vectors (U, columns), at (m,) -> the vectors and (m, width) those of the inputs, whose gradients are added to the others' in place."""

    @staticmethod
    def forward(ctx, vectors: Tensor, at: Tensor, width: int) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(at)
        return vectors.view_as(vectors), vectors.index_select(0, at)[:, :width]

    @staticmethod
    def backward(ctx, d_vectors: Tensor, d_inputs: Tensor):
        d_vectors[:, : d_inputs.shape[1]].index_add_(0, ctx.saved_tensors[0], d_inputs)
        return d_vectors, None, None


def _loss_of_draws(encoder: Encoder, states: Tensor, targets: Tensor, labels: Tensor | None, settings: LossSettings, sampler: Sampler) -> Tensor:
    """The loss of (N, width) states with (N,) targets, every draw of a negative scored for itself."""
    negatives = sampler.sample(targets)
    positive = losses.scores_of_own(states, encoder.item_vectors(targets)[:, None]).squeeze(1)
    vectors = encoder.item_vectors(negatives.items)
    negative = losses.scores(states, vectors) if negatives.items.dim() == 1 else losses.scores_of_own(states, vectors)
    if sampler.settings.logq:
        positive = positive - sampler.settings.logq * negatives.target_log_q
        negative = negative - sampler.settings.logq * negatives.log_q
    negative = negative.masked_fill(sampler.excluded(negatives, targets), -torch.inf)
    match settings.name:
        case "sampled_softmax":
            return losses.sampled_softmax(positive, negative)
        case "bce":
            return losses.bce(positive, negative, labels)
        case "gbce":
            return losses.gbce(positive, negative, len(sampler.log_p), settings.t)
        case "bpr":
            return losses.bpr(positive, negative)
        case "bpr_max":
            return losses.bpr_max(positive, negative, settings.regularisation, settings.elu)
        case "top1":
            return losses.top1(positive, negative)
        case "top1_max":
            return losses.top1_max(positive, negative)
        case other:
            raise AssertionError(f"{other} does not draw")


class NeuralModel(Model):
    """A model whose encoder is trained by gradient. A paper's file gives ``name``, ``Settings``, ``Network`` and its defaults.

    Args:
        loss: the name of a loss, or ``LossSettings``, or a dictionary of them.
        negatives: ``NegativesSettings`` or a dictionary, for the losses that sample.
        train: ``TrainSettings`` or a dictionary.
        features: which attributes of items and users are read beside the ids: a ``FeatureSchema``, a dictionary, or the path of a YAML file; None
            for none.
        settings: the fields of the model's own ``Settings``.
    """

    Network: ClassVar[Any]
    takes_features: ClassVar[bool] = False  # whether Network has a fourth argument, the features
    sparse_adagrad: ClassVar[bool] = False  # whether tables have sparse gradients where adagrad trains all: with momentum, rows not in a batch rest
    default_loss: ClassVar[dict[str, Any]] = {}
    default_negatives: ClassVar[dict[str, Any]] = {}
    default_train: ClassVar[dict[str, Any]] = {}
    longest_chunk: ClassVar[int] = 16_384  # inputs encoded at once when scoring: more is no faster, and takes memory

    def __init__(
        self,
        *,
        loss: str | dict[str, Any] | LossSettings | None = None,
        negatives: dict[str, Any] | NegativesSettings | None = None,
        train: dict[str, Any] | TrainSettings | None = None,
        features: dict[str, Any] | str | Path | FeatureSchema | None = None,
        **settings: Any,
    ):
        super().__init__(**settings)
        if isinstance(loss, str):
            loss = {"name": loss}
        self.loss = loss if isinstance(loss, LossSettings) else LossSettings.of({**self.default_loss, **(loss or {})}, "loss")
        self.negatives = (
            negatives
            if isinstance(negatives, NegativesSettings)
            else NegativesSettings.of({**self.default_negatives, **(negatives or {})}, "negatives")
        )
        self.train = train if isinstance(train, TrainSettings) else TrainSettings.of({**self.default_train, **(train or {})}, "train")
        if self.loss.name != "softmax" and not self.negatives.count and not self.negatives.in_batch:
            raise SettingsError(f"negatives.count: the loss {self.loss.name} needs negatives. Got 0 and in_batch=False. Set one of them.")
        if features is not None and not self.takes_features:
            raise SettingsError(f"features: {self.name} reads no attributes. Leave the section out, or take hrm, gru4rec or sasrec.")
        if isinstance(features, str | Path):
            features = FeatureSchema.read(features)
        self.features = None if features is None else FeatureSchema.of(features, "features")
        self.feature_values: Features | None = None
        self._network: Encoder | None = None
        self.popularity: np.ndarray | None = None
        self.trained_users: np.ndarray | None = None

    def configuration(self) -> dict[str, Any]:
        groups: dict[str, Settings] = {"loss": self.loss, "negatives": self.negatives, "train": self.train}
        if self.features is not None:
            groups["features"] = self.features
        return super().configuration() | {name: group.model_dump(mode="json") for name, group in groups.items()}

    def build(self, items: int, users: int) -> Encoder:
        """An untrained network."""
        if self.features is None:
            network: Encoder = self.Network(self.settings, items, users)
        elif self.feature_values is None:
            raise SeqrecError(f"{self.name} does not know the attributes yet that its features name. Call fit, or load a saved model.")
        else:
            network = self.Network(self.settings, items, users, self.feature_values)
        own = getattr(network, "users", None)
        if isinstance(own, FeatureEmbedding) and own.ids is not None and self.trained_users is not None:
            with torch.no_grad():  # of users without a target attributes tell, and no random start
                own.ids.weight[torch.from_numpy(~self.trained_users)] = 0
        if training.knows_sparse_gradients(self.train, self.sparse_adagrad):
            network.use_sparse_gradients()
        return network

    @property
    def network(self) -> Encoder:
        """The network; after training, with its best weights."""
        if self._network is None:
            raise SeqrecError(f"{self.name} is not trained. Call fit, or load a saved model.")
        return self._network

    @network.setter
    def network(self, network: Encoder) -> None:
        self._network = network

    def fit_split(self, split: Split, **options: Any) -> None:
        self.popularity, self.trained_users = split.item_counts, split.trained_users
        if self.features is not None:
            self.feature_values = Features.of(self.features, split.sequences.user_catalogue, split.sequences.item_catalogue)
        training.fit(self, split, **options)

    def state(self) -> dict[str, np.ndarray]:
        assert self.popularity is not None
        values = {} if self.feature_values is None else self.feature_values.arrays()
        users = {} if self.trained_users is None else {"trained_users": self.trained_users}
        return (
            {"popularity": self.popularity}
            | users
            | {f"features.{k}": v for k, v in values.items()}
            | {f"network.{k}": v.detach().cpu().numpy() for k, v in self.network.state_dict().items()}
        )

    def load_state(self, state: dict[str, np.ndarray], items: int, users: int) -> None:
        self.popularity = state["popularity"]
        self.trained_users = state.get("trained_users")  # models saved before it was kept count all as trained
        if self.features is not None:
            values = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
            self.feature_values = Features.from_arrays(self.features, values)
        weights = {k.removeprefix("network."): torch.from_numpy(v) for k, v in state.items() if k.startswith("network.")}
        self.network = self.build(items, users)
        self.network.load_state_dict(weights)
        self.network.eval().to(training.device_for_loading(self.train.device))

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _known(self, histories: Histories) -> Histories:
        """The same, users without a vector as unknown (-1): those who had no target in training, unless attributes tell of them."""
        if histories.users is None or self.trained_users is None or (self.features is not None and set(self.features.user) - {USER_ID}):
            return histories
        known = self.trained_users[histories.users.clip(min=0)]
        return replace(histories, users=np.where(known, histories.users, -1).astype(np.int32))

    @torch.no_grad()
    def states(self, histories: Histories) -> torch.Tensor:
        """(histories, width) the state after each history."""
        histories = self._known(histories)
        return self.network.encode(self.network.history_batch(histories).to(self.device))

    @torch.no_grad()
    def score(self, histories: Histories) -> torch.Tensor:
        return self._score(histories, self._item_vectors())

    def _item_vectors(self) -> torch.Tensor:
        if self.network.training:
            self.network.eval()
        return self.network.item_vectors()

    def _score(self, histories: Histories, vectors: torch.Tensor) -> torch.Tensor:
        if not len(histories):
            return vectors.new_empty(0, len(vectors))
        scores = losses.scores(self.states(histories), vectors)
        empty = histories.lengths == 0
        if empty.any():  # nothing is known, unless the network knows the user
            users = self._known(histories).users
            unknown = empty if users is None or not self.network.knows_users else empty & (users < 0)
            if unknown.any() and self.popularity is not None:
                scores[torch.from_numpy(unknown)] = torch.from_numpy(self.popularity).to(scores)
        return scores

    @torch.no_grad()
    def score_chunks(self, histories: Histories, chunk: int) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Item vectors are computed once; a chunk holds fewer histories where they are long, so memory stays flat."""
        vectors = self._item_vectors()
        order = np.argsort(histories.lengths, kind="stable")
        begin = 0
        while begin < len(order):
            rows = order[begin : begin + chunk]
            rows = rows[: max(16, self.longest_chunk // max(1, int(histories.lengths[rows[-1]])))]
            yield rows, self._score(histories.select(rows), vectors)
            begin += len(rows)
