"""Neural models: an encoder of histories and a table of item vectors; the score is their dot product.

One loop trains them all, with any loss and any sampler of negatives.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from seqrec.data.catalogue import Catalogue
from seqrec.data.query import Events, Query
from seqrec.errors import DataError, SeqrecError, SettingsError
from seqrec.evaluation import metrics, ranking
from seqrec.features.encoding import Codes, Features
from seqrec.features.schema import ITEM_ID, USER_ID, FeatureSchema
from seqrec.models import baselines, prior
from seqrec.models.item_table import ItemTableSettings, codes_of, unknown_codes
from seqrec.models.markov import Markov
from seqrec.models.model import Model
from seqrec.models.popularity import liked_events
from seqrec.models.prior import Prior, PriorSettings
from seqrec.models.warm_start import Start
from seqrec.nn.embedding import FeatureEmbedding
from seqrec.nn.encoder import Encoder, Streaming
from seqrec.nn.jpq import FEW, JPQEmbedding
from seqrec.nn.streaming import Streamed
from seqrec.scoring import CELLS, ROWS, Scores
from seqrec.serving import artifact
from seqrec.serving.embeds import ItemVectors
from seqrec.settings.base import Settings
from seqrec.splitting.split import Queries, Split
from seqrec.topk import Filter, TopK
from seqrec.training import device as devices
from seqrec.training import losses, settings, trainer
from seqrec.training.loss import Loss, loss_of
from seqrec.training.negatives import NegativesSettings, Sampler
from seqrec.training.objective import Objective
from seqrec.training.options import FitOptions, FitSettings
from seqrec.training.own_items import OwnItems
from seqrec.training.settings import TrainSettings
from seqrec.training.tracking import Tracking

if TYPE_CHECKING:
    from seqrec.serving.onnx_export import Agreement

log = logging.getLogger("seqrec")

OF_DEVICES = 8
FOLLOWING = ("epochs", "batch_positions", "patience", "learning_rate")  # the log, where they are None


@dataclass(frozen=True)
class EncoderScorer:
    """Scores by an encoder, trained or in the middle of it.

    Attributes:
        name, network: of the model, which messages name, and its encoder.
        popularity: (items,) training counts of liked events: the scores after nothing that is known.
        trained_users: (users,) bool, users whose vectors were trained; None: all of them, or attributes tell
            of users.
        longest_chunk: inputs encoded at once on a CPU; elsewhere ``OF_DEVICES`` times as many.
        streamed: the states that are remembered; None: all histories are read whole.
        prior: what is added to scores; None: nothing.
    """

    name: str
    network: Encoder
    popularity: np.ndarray
    trained_users: np.ndarray | None
    longest_chunk: int
    streamed: Streamed | None = None
    prior: Prior | None = None

    def numbering(self) -> dict[str, Catalogue | None]:
        """Nothing: in the middle of training nobody asks by raw ids."""
        return {}

    def _known(self, query: Query) -> Query:
        """The same, users whose vectors were not trained as unknown (-1)."""
        if query.users is None or self.trained_users is None:
            return query
        known = self.trained_users[query.users.clip(min=0)]
        return replace(query, users=np.where(known, query.users, -1).astype(np.int32))

    def states(self, query: Query) -> torch.Tensor:
        """(queries, width) the state after each history."""
        if self.streamed is not None:
            return self.streamed.states(query)
        device = next(self.network.parameters()).device
        return self.network.encode(self.network.query_inputs(self._known(query)).to(device))

    def knows(self, query: Query) -> np.ndarray:
        """(queries,) bool, False where nothing is known: an empty history, and a user who says nothing."""
        known: np.ndarray = query.lengths > 0
        users = self._known(query).users
        if users is not None and "users" in self.network.reads:
            known = known | (users >= 0)
        return known

    def score_blocks(self, query: Query, rows: int = ROWS) -> Iterator[Scores]:
        """Scores of a few histories at a time, fewer where they are long, so that memory stays flat."""
        if self.network.training:  # asked first, since telling every module takes a while
            self.network.eval()
        coded = self._coded()
        table = None if coded is not None and len(query) <= FEW else self._table()
        for some in self.chunks(query, rows):
            yield self._scores(query.select(some), some, table, alone=len(query) == 1)

    def chunks(self, query: Query, rows: int = ROWS) -> Iterator[np.ndarray]:
        """(n,) which histories are read at once, each of them once, ones of like length together."""
        order = np.argsort(query.lengths, kind="stable")
        on_cpu = next(self.network.parameters()).device.type == "cpu"
        most = self.longest_chunk * (1 if on_cpu else OF_DEVICES)
        begin = 0
        while begin < len(order):
            some = order[begin : begin + rows]
            longest = max(1, int(query.lengths[some[-1]]))
            read = min(longest, self.network.window or longest)
            some = some[: max(16, most // read)]
            yield some
            begin += len(some)

    @torch.no_grad()
    def _table(self) -> torch.Tensor | None:
        """(items, width or width + 1) all item vectors, where they are few enough to be computed once; else
        each block looks up its own."""
        width = self.network.item_vectors(slice(0, 1)).shape[1]
        return self.network.item_vectors() if len(self.popularity) * width <= CELLS else None

    def _coded(self) -> JPQEmbedding | None:
        """The table of the items, where scores can be looked up in it."""
        table = getattr(self.network, "items", None)
        return table if self.network.scores_rows and isinstance(table, JPQEmbedding) else None

    def _scores(self, query: Query, rows: np.ndarray, table: torch.Tensor | None, alone: bool) -> Scores:
        coded = self._coded()

        @cache  # when the first block is asked for: of several processes each asks for some
        def states_of_all() -> torch.Tensor:
            return self.states(query)

        @torch.no_grad()
        def block(begin: int, end: int) -> torch.Tensor:
            states = states_of_all()
            if coded is not None and table is None:
                return coded.scores(states, begin, end)
            vectors = self.network.item_vectors(slice(begin, end)) if table is None else table[begin:end]
            compare = losses.scores_of_one if alone and table is None else losses.scores
            return compare(states, vectors)

        return self._in_blocks(query, rows, block)

    def _in_blocks(
        self, query: Query, rows: np.ndarray, of_network: Callable[[int, int], torch.Tensor]
    ) -> Scores:
        """What the network gives for a range of the items, with the prior added; and popularity where nothing
        is known of a query."""
        unknown, items = torch.from_numpy(np.flatnonzero(~self.knows(query))), len(self.popularity)

        def block(begin: int, end: int) -> torch.Tensor:
            scores = of_network(begin, end)
            if self.prior is not None:
                self.prior.add(scores, query, begin)
            if len(unknown):
                scores[unknown] = torch.from_numpy(self.popularity[begin:end]).to(scores)
            return scores

        return Scores(rows, query, [*range(0, items, max(1, CELLS // len(rows))), items], block)


class NeuralModel(Model):
    """A model whose encoder is trained by gradient. A paper's file gives ``name``, ``Settings``, ``Network``
    and its defaults.

    It takes the fields of its ``Settings``, and ``sections``.

    Raises:
        SettingsError: an unknown setting, one out of range, a loss without the negatives that it needs, or
            features that the model does not read.
    """

    sections = {
        "loss": "The name of a loss, a dictionary with its name and options, or a ``Loss``.",
        "negatives": "``NegativesSettings`` or a dictionary, for the losses that sample.",
        "train": "``TrainSettings`` or a dictionary. Seed, device and precision are arguments of ``fit``.",
        "features": "Which attributes of items and users are read beside the ids: a ``FeatureSchema``, a "
        "dictionary, or the path of a YAML file; None for none.",
        "prior": "What is added to the network's scores: ``PriorSettings``, a dictionary or its name; None "
        "for nothing.",
        "item_table": "How the vectors of items are stored: ``ItemTableSettings``, a dictionary or its name; "
        "None for a vector an item.",
    }
    Network: ClassVar[Any]
    takes_features: ClassVar[bool] = False  # whether Network has a fourth argument, the features
    # whether tables have sparse gradients where adagrad trains all: with momentum, rows not in a batch rest
    sparse_adagrad: ClassVar[bool] = False
    draws_only: ClassVar[bool] = False  # whether a loss over the whole catalogue is out of reach
    default_loss: ClassVar[dict[str, Any]] = {}
    default_negatives: ClassVar[dict[str, Any]] = {}
    default_train: ClassVar[dict[str, Any]] = {}
    # inputs encoded at once when scoring on a CPU: more is no faster, and takes memory
    longest_chunk: ClassVar[int] = 16_384

    def __init__(
        self,
        *,
        loss: str | dict[str, Any] | Loss | None = None,
        negatives: dict[str, Any] | NegativesSettings | None = None,
        train: dict[str, Any] | TrainSettings | None = None,
        features: dict[str, Any] | str | Path | FeatureSchema | None = None,
        prior: dict[str, Any] | str | PriorSettings | None = None,
        item_table: dict[str, Any] | str | ItemTableSettings | None = None,
        **settings: Any,
    ):
        super().__init__(**settings)
        # of models that have such settings
        of_steps = getattr(self.settings, "pool_baskets", None) is not None
        self._of_baskets = getattr(self.settings, "baskets", 0) > 0 or of_steps
        self.reads_baskets = type(self).reads_baskets or self._of_baskets
        if isinstance(loss, str):
            loss = {"name": loss}
        self.loss = loss_of(loss if isinstance(loss, Loss) else {**self.default_loss, **(loss or {})})
        self.negatives = (
            negatives
            if isinstance(negatives, NegativesSettings)
            else NegativesSettings.of({**self.default_negatives, **(negatives or {})}, "negatives")
        )
        self.train = (
            train
            if isinstance(train, TrainSettings)
            else TrainSettings.of({**self.default_train, **(train or {})}, "train")
        )
        if self.loss.draws and not self.negatives.count and not self.negatives.in_batch:
            raise SettingsError(
                f"negatives.count: the loss {self.loss.name} needs negatives. Got 0 and in_batch=False. "
                "Set one of them."
            )
        if self.draws_only and not self.loss.draws:
            raise SettingsError(
                f"loss.name: {self.name} compares each candidate with the history, and needs a loss that "
                f"draws: sampled_softmax, bce, gbce, bpr, bpr_max, top1 or top1_max. Got {self.loss.name}."
            )
        if self.loss.seen == "mask" and not self.train.filter_seen:
            raise SettingsError(
                "loss.seen: expected keep where train.filter_seen is False, since items of the history would "
                "be recommended that training never compared with others. Got mask."
            )
        if features is not None and not self.takes_features:
            raise SettingsError(
                f"features: {self.name} reads no attributes. Leave the section out, or take another model, "
                "such as hrm, gru4rec or sasrec."
            )
        if isinstance(features, str | Path):
            features = FeatureSchema.read(features)
        self.features = None if features is None else FeatureSchema.of(features, "features")
        prior = {"name": prior} if isinstance(prior, str) else prior
        self.prior = None if prior is None else PriorSettings.of(prior, "prior")
        self._prior: Prior | None = None
        if self.prior is not None and self._of_baskets:
            raise SettingsError(
                "prior: expected none where the model reads baskets, since it goes from item to item in an "
                f"order that baskets do not have. Got {self.prior.name}; leave it out."
            )
        item_table = {"name": item_table} if isinstance(item_table, str) else item_table
        self.item_table = None if item_table is None else ItemTableSettings.of(item_table, "item_table")
        self._codes: Codes | None = None
        if self.item_table is not None:
            self._check_item_table(self.item_table)
        self.feature_values: Features | None = None
        self._unlearned: np.ndarray | None = None  # looked for once
        self._network: Encoder | None = None
        self._streamed: Streamed | None = None
        self._warned = False
        self.popularity: np.ndarray | None = None
        self.trained_users: np.ndarray | None = None
        self.trained_items: np.ndarray | None = None

    def _check_item_table(self, table: ItemTableSettings) -> None:
        """Refuses a table that shares parts of vectors where there are none to share."""
        if not self.takes_features:
            raise SettingsError(
                f"item_table: {self.name} has a table of its own. Leave the section out, or take another "
                "model, such as sasrec or gru4rec."
            )
        if self.features is not None and ITEM_ID not in {*self.features.item, *self.features.sequence}:
            raise SettingsError(
                f"item_table: expected {ITEM_ID} in features.item, whose vectors it makes. Got none. Leave "
                f"item_table out, or add {ITEM_ID}."
            )
        width = getattr(self.settings, "width", table.splits)
        if width % table.splits:
            raise SettingsError(
                f"item_table.splits: expected a divisor of model.width, which is {width}. Got "
                f"{table.splits}. Choose another number of splits, or another width."
            )

    def __init_subclass__(cls, **more: Any):
        super().__init_subclass__(**more)
        if hasattr(cls, "Network"):
            cls.reads_baskets = "baskets" in cls.Network.reads

    def configuration(self) -> dict[str, Any]:
        groups: dict[str, Settings] = {"negatives": self.negatives, "train": self.train}
        if self.features is not None:
            groups["features"] = self.features
        if self.prior is not None:
            groups["prior"] = self.prior
        if self.item_table is not None:
            groups["item_table"] = self.item_table
        described = {name: group.model_dump(mode="json") for name, group in groups.items()}
        return super().configuration() | {"loss": self.loss.described()} | described

    def build(self, items: int, users: int) -> Encoder:
        """An untrained network.

        Raises:
            SeqrecError: the attributes of its features are not known yet.
        """
        if self.features is not None and self.feature_values is None:
            raise SeqrecError(
                f"{self.name} does not have the attributes of its features yet. "
                "Call fit, or load a saved model."
            )
        features = self.feature_values
        if self.item_table is not None:
            if features is None:
                features = Features.ids_only(users=getattr(self.settings, "user_vectors", False))
            features = features.coded(self._codes or unknown_codes(self.item_table, items))
        arguments = [self.settings, items, users]
        network: Encoder = self.Network(*arguments, *([] if features is None else [features]))
        own = getattr(network, "users", None)
        own = own if isinstance(own, FeatureEmbedding) else None
        if self.trained_items is not None:  # of items without an event, attributes tell in the same way
            for table in network.modules():
                if isinstance(table, FeatureEmbedding) and table is not own and table.ids is not None:
                    if isinstance(table.ids, JPQEmbedding):
                        table.ids.forget()
                        continue
                    with torch.no_grad():
                        table.ids.weight[torch.from_numpy(~self.trained_items)] = 0
        if own is not None and isinstance(own.ids, nn.Embedding) and self.trained_users is not None:
            with torch.no_grad():  # of users without a target attributes tell, and no random start
                own.ids.weight[torch.from_numpy(~self.trained_users)] = 0
        if settings.knows_sparse_gradients(self._train_of(network), self.sparse_adagrad):
            network.use_sparse_gradients()
        return network

    def _train_of(self, network: Encoder) -> TrainSettings:
        """``train`` with the optimizer of the tables chosen for their size, where nothing is said."""
        tables = [m for m in network.modules() if isinstance(m, nn.Embedding)]
        return settings.by_size(
            self.train, max((m.num_embeddings for m in tables), default=0), self.loss.draws
        )

    @property
    def unlearned(self) -> np.ndarray:
        if self._unlearned is None:
            # models saved before it was kept count all as trained
            lost = np.zeros(0, dtype=bool) if self.trained_items is None else ~self.trained_items
            if self.feature_values is not None and len(lost):
                lost = lost & ~self.feature_values.item.tells_of(len(lost))
            self._unlearned = np.flatnonzero(lost)
        return self._unlearned

    @property
    def network(self) -> Encoder:
        """The network; after training, with its best weights.

        Raises:
            SeqrecError: the model is not trained.
        """
        if self._network is None:
            raise SeqrecError(f"{self.name} is not trained. Call fit, or load a saved model.")
        return self._network

    @network.setter
    def network(self, network: Encoder) -> None:
        self._network, self._streamed = network, None
        self.reads_times = "times" in network.reads

    def objective(self, network: Encoder, sampler: Sampler, bfloat16: bool = False) -> Objective:
        """What this model minimises. A paper's file may give another one."""
        return Objective(network, self.loss, sampler, bfloat16)

    def scorer(self, network: Encoder) -> EncoderScorer:
        """Scores of this model by that network."""
        assert self.popularity is not None
        tells = self.features is not None and set(self.features.user) - {USER_ID}
        return EncoderScorer(
            self.name,
            network,
            self.popularity,
            None if tells else self.trained_users,
            self.longest_chunk,
            self._streamed if network is self._network else None,
            self._prior,
        )

    def stream(self, most: int = 10_000) -> bool:
        """From now on remembers the states after the histories asked for last, so that one which has grown
        costs a step for each new event. Scores change by rounding alone.

        Args:
            most: histories that are remembered.

        Returns:
            whether its network can do that.
        """
        able = isinstance(self.network, Streaming) and self.network.longest > 0
        self._streamed = Streamed(self.network, most) if able else None
        return able

    def fit_split(self, split: Split, on: FitOptions) -> None:
        self.popularity = np.bincount(
            split.sequences.items[liked_events(split)], minlength=len(split.sequences.item_catalogue)
        )
        self.trained_users = split.trained_users(self.loss.uses_disliked, self._of_baskets)
        self.trained_items = split.item_counts > 0
        self._prior = None  # the network is trained without
        start: Start | None = on.start
        if start is not None:
            self.trained_users |= start.trained_users(split.sequences.user_catalogue)
            self.trained_items |= start.trained_items(split.sequences.item_catalogue)
        if self.features is not None:
            self.feature_values = Features.of(
                self.features, split.sequences.user_catalogue, split.sequences.item_catalogue
            )
        self._unlearned = None
        if self.item_table is not None:
            self._codes = codes_of(self.item_table, split, on.seed)
        among = self._compared()
        counts = torch.from_numpy(split.item_counts)
        device = devices.choose_device(on.device)
        bfloat16 = devices.in_bfloat16(on.precision, device)
        torch.manual_seed(on.seed)
        network = self.build(len(split.sequences.item_catalogue), split.sequences.users)
        begun = {} if start is None else start.give(network, self, split)
        network = self.network = network.to(device)
        queries = split.validation if start is None else start.to_choose_on(split)
        as_trained = copy.copy(self)
        as_trained.train = s = self._train_of(network).plan(split.train_positions, start is not None)
        if s.tables is not None and self.train.tables is None:
            log.info(
                "%s: adagrad trains the embedding tables, only the rows of a batch in an update, since one "
                "has %s rows or more; train.tables: {optimizer: with_the_rest} has %s train them.",
                self.name,
                f"{settings.LARGE:,}",
                s.optimizer,
            )

        own = OwnItems(split, device) if self.negatives.of_users or self.loss.seen == "mask" else None

        sampler = Sampler(self.negatives, counts, on.seed, device, own, among)

        def objective(seed: int) -> Objective:
            return self.objective(network, sampler.again(seed), bfloat16)

        metric, k = metrics.parse(s.metric)
        warned = False

        def validate(trained: Encoder) -> float:
            nonlocal warned
            found = ranking.rank(self.scorer(trained), split, queries, lists=False)
            ranks = found.headline(s.filter_seen)
            if s.filter_seen and not warned:
                warned = _warn_of_repeats(ranks, split, queries)
            return float(metrics.values(metric, ranks, k, found.offsets).mean())

        fingerprint = as_trained.fingerprint(split, on)
        told = as_trained.configuration() | {"fit": {"seed": on.seed, "device": str(device)}}
        tracking = Tracking(on.track, self.name, told, fingerprint, on.checkpoint)
        report = trainer.fit(
            network,
            split,
            s,
            objective,
            validate if len(queries) else None,
            self.name,
            fingerprint,
            on,
            self._earlier_fingerprint(split, on, network),
            tracking,
        )
        if self.prior is not None:
            self._prior = Prior.fit(self.prior, split)
            if self.prior.weight is None and len(queries) and on.stop_after is None:
                report = replace(report, prior=self._choose_prior(validate, s.metric))
        left = {name: getattr(s, name) for name in FOLLOWING if getattr(self.train, name) is None}
        if start is not None:
            report = replace(report, start={"digest": start.digest, **begun, **(report.start or {})})
        self.fit_report = report = replace(
            report, precision="bfloat16" if bfloat16 else "float32", plan=left or None
        )
        if start is not None and report.best_epoch == 0 and on.stop_after is None:
            log.warning(
                "%s: no epoch was better on validation than %s itself, whose weights stay. What is new in "
                "the log was not learned; a lower train.learning_rate may be better.",
                self.name,
                start.name,
            )
        chosen = report.best_epoch or (0 if start is not None else None)
        if on.baselines and on.stop_after is None and chosen is not None and len(queries):
            reached = (report.curve[chosen - 1] if chosen else report.start or {})[s.metric]
            if self._prior is not None:
                reached = validate(self.network)
            asked = replace(split, validation=queries)
            compared = baselines.compare(self.name, reached, asked, s.metric, s.filter_seen)
            self.fit_report = replace(self.fit_report, validation=compared)

    def _compared(self) -> torch.Tensor | None:
        """(n,) the items that targets are compared with, None for all: without those that no event trains
        where attributes tell of items, or training would teach that what they have is never taken."""
        assert self.trained_items is not None
        missing = int((~self.trained_items).sum())
        if not missing:
            return None
        informed = self.feature_values is not None and self.feature_values.item.has_attributes
        log.info(
            "%s: %s of %s items have no training event: %s.",
            self.name,
            f"{missing:,}",
            f"{len(self.trained_items):,}",
            f"{missing - len(self.unlearned):,} of them are known by their attributes"
            if informed
            else "it learns nothing of them, and does not recommend them",
        )
        return torch.from_numpy(np.flatnonzero(self.trained_items)) if informed else None

    def _choose_prior(self, validate: Callable[[Encoder], float], metric: str) -> dict[str, Any]:
        """Takes the weight that is best on validation, and tells which were tried."""
        assert self._prior is not None
        counted = self._prior

        def validated(weight: float) -> float:
            self._prior = counted.weighing(weight)
            return validate(self.network)

        found = prior.choose(validated)
        weight = max(found, key=found.__getitem__)
        self._prior = counted.weighing(weight)
        shown = ", ".join(f"{weight:g}: {value:.4f}" for weight, value in found.items())
        log.info("%s: prior with weight %g; validation %s by weight %s.", self.name, weight, metric, shown)
        return {"weight": weight, metric: {f"{weight:g}": value for weight, value in found.items()}}

    def _earlier_fingerprint(self, split: Split, on: FitOptions, network: Encoder) -> str | None:
        """Of the same fit with the number of epochs that it had before; None if it had none."""
        if on.earlier_epochs is None:
            return None
        other = copy.copy(self)
        other.train = self.train.model_copy(update={"epochs": on.earlier_epochs})
        other.train = other._train_of(network).plan(split.train_positions, on.start is not None)
        return other.fingerprint(split, on)

    def state(self) -> dict[str, np.ndarray]:
        assert self.popularity is not None
        values = {} if self.feature_values is None else self.feature_values.arrays()
        users = {} if self.trained_users is None else {"trained_users": self.trained_users}
        if self.trained_items is not None:
            users["trained_items"] = self.trained_items
        return (
            {"popularity": self.popularity}
            | users
            | {f"features.{k}": v for k, v in values.items()}
            | {f"prior.{k}": v for k, v in self._state_of_prior().items()}
            | {f"network.{k}": v.detach().cpu().numpy() for k, v in self.network.state_dict().items()}
        )

    def _state_of_prior(self) -> dict[str, np.ndarray]:
        if self._prior is None:
            return {}
        return self._prior.chain.state() | {"weight": np.array([self._prior.weight])}

    def load_state(self, state: dict[str, np.ndarray], items: int, users: int) -> None:
        """As ``Model.load_state``.

        Raises:
            DataError: the popularity is not a number for each item, or the items that were trained are not
                told for each.
        """
        self.popularity = state["popularity"]
        if self.popularity.shape != (items,) or self.popularity.dtype.kind not in "fiu":
            raise DataError(f"its popularity is not {items:,} numbers.")
        # models saved before it was kept count all as trained
        self.trained_users = state.get("trained_users")
        self.trained_items, self._unlearned = state.get("trained_items"), None
        if self.trained_items is not None and (
            self.trained_items.shape != (items,) or self.trained_items.dtype != bool
        ):
            raise DataError(f"its trained items are not {items:,} of yes or no.")
        if self.features is not None:
            values = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
            self.feature_values = Features.from_arrays(self.features, values)
        weights = {
            k.removeprefix("network."): torch.from_numpy(v)
            for k, v in state.items()
            if k.startswith("network.")
        }
        if self.prior is not None:
            values = {k.removeprefix("prior."): v for k, v in state.items() if k.startswith("prior.")}
            chain = Markov(strength=self.prior.strength, window=self.prior.window)
            chain.load_state(values, items, users)
            self._prior = Prior(chain, float(artifact.floats_of(values, "weight", 1)[0]))
        self._codes = None  # they are among the weights
        self.network = self.build(items, users)
        self.network.load_state_dict(weights)
        for table in self.network.modules():
            if isinstance(table, JPQEmbedding):
                table.check()
        self.network.eval()

    @classmethod
    def of(cls, found: artifact.Contents, device: torch.device) -> Self:
        # before fits had options of their own these were settings of training
        train = dict(found.configuration.get("train", {}))
        moved = {name: train.pop(name) for name in FitSettings.model_fields if name in train}
        configuration = found.configuration | {"train": train}
        report = {"seed": moved["seed"]} if "seed" in moved else {}
        return super().of(
            replace(found, configuration=configuration, fit_report=report | found.fit_report), device
        )

    def to(self, device: torch.device) -> None:
        self.network.to(device)

    def export_onnx(
        self, folder: str | Path, int8: bool = False, histories: bool = True, filter_seen: bool = True
    ) -> Agreement:
        """Writes the model as a folder that runs on onnxruntime and numpy, without torch. See
        ``seqrec.serving.onnx_export``.

        Args:
            int8: round the network's weights to 8 bits: smaller, and it recommends a little otherwise.
            histories: also write the users' histories, so that ``recommend(users=...)`` works.
            filter_seen: whether items of the history are left out where nobody says.

        Returns:
            how what was written recommends, compared with this model, on histories of its users.

        Raises:
            SettingsError: the network cannot be exported, or the extra ``export`` is not installed.
            SeqrecError: the model is not trained.
        """
        from seqrec.serving import onnx_export

        network, catalogue = self.network, self.item_catalogue
        assert catalogue is not None
        assert self.popularity is not None
        scorer = self.scorer(network)
        sequences = None if self.sequences is None else replace(self.sequences, times=None)
        kept = (sequences, self.known_stops, self.known_times) if histories else (None, None, None)
        if self.sequences is not None:
            users = self.sequences.users
        elif self.trained_users is not None:
            users = len(self.trained_users)
        elif "users" in network.reads:
            raise SettingsError(
                "export: expected a model that knows how many users it has. Got one of an earlier version of "
                "seqrec, saved without histories. Train it again."
            )
        else:
            users = 0
        about = artifact.Contents(
            self.reference(), {}, {}, catalogue, users, *kept, provenance=self.provenance
        )
        prior = None if self._prior is None else self._prior.transitions
        return onnx_export.write(
            *(folder, network, about, self.popularity, scorer.trained_users, self),
            *(int8, filter_seen, prior, self.unlearned),
        )

    @torch.no_grad()
    def states(self, query: Query) -> torch.Tensor:
        """(queries, width) the state after each history."""
        return self.scorer(self.network).states(query)

    def knows(self, query: Query) -> np.ndarray:
        return self.scorer(self.network).knows(query)

    @torch.no_grad()
    def vectors(self) -> ItemVectors:
        return ItemVectors.of(self.network.eval().item_vectors().cpu().numpy(), self._width())

    def _width(self) -> int:
        """Of a state: item vectors may have a column more."""
        one = np.zeros(1, np.int64)
        event = Events(one.astype(np.int32), one, one)  # whatever the network reads, it has a state
        return self.states(Query(event, one, one + 1, one.astype(np.int32) - 1, one)).shape[1]

    def state_vectors(self, query: Query) -> np.ndarray:
        self.network.eval()
        found = np.empty((len(query), self._width()), dtype=np.float32)
        for rows in self.scorer(self.network).chunks(query):
            found[rows] = self.states(query.select(rows)).cpu().numpy()
        return found

    @torch.no_grad()
    def score(self, query: Query) -> torch.Tensor:
        found = torch.empty(len(query), 0 if self.popularity is None else len(self.popularity))
        for some in self.score_blocks(query):
            for begin, end in some.blocks:
                found[torch.from_numpy(some.rows), begin:end] = some.block(begin, end).cpu()
        return found

    def warn_unless(self, filter: Filter) -> None:
        """Says, once, that without the seen filter its lists are of little use, where that is so."""
        if self.loss.seen == "mask" and not filter.seen and not self._warned:
            self._warned = True
            log.warning(
                "%s was trained with loss.seen: mask, never to tell items of the history from others: without"
                " the seen filter its lists are of little use. Filter, or train it with seen: keep.",
                self.name,
            )

    def best(self, query: Query, k: int, filter: Filter) -> TopK:
        self.warn_unless(filter)
        return super().best(query, k, filter)

    def score_blocks(self, query: Query, rows: int = ROWS) -> Iterator[Scores]:
        return self.scorer(self.network).score_blocks(query, rows)


def _warn_of_repeats(ranks: np.ndarray, split: Split, queries: Queries) -> bool:
    """Warns (and says whether it did) if most validation targets, of which these are the ranks under the
    filter, are filtered themselves."""
    missed = ranks > len(split.sequences.item_catalogue)
    if split.cold_targets_miss:
        missed &= split.item_counts[split.targets(queries)] > 0
    if missed.mean() > 0.5:
        log.warning(
            "train.filter_seen: %.0f%% of the validation targets are items that their users have taken "
            "before, and count as misses, since the filter leaves out what was seen. If people are to get "
            "such items again, set it to False, and filter_seen where you test and recommend, too.",
            100 * missed.mean(),
        )
    return bool(missed.mean() > 0.5)
