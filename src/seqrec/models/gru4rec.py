"""GRU4Rec: a recurrent network reads a history item by item; its state is compared with every item.

Hidasi, Karatzoglou, Baltrunas, Tikk: Session-based Recommendations with Recurrent Neural Networks, ICLR 2016
(arXiv 1511.06939), and Hidasi, Karatzoglou: Recurrent Neural Networks with Top-k Gains for Session-based
Recommendations, CIKM 2018 (arXiv 1706.03847).

    h_t = GRU(e(i_t), h_(t-1))        score(j | history) = o(j) . P h_t + b(j)

Ways to train it:

- as its authors do (``steps=1``): session-parallel mini-batches. Every lane reads one session, one item an
  update; the hidden state is carried over and reset where a new session begins; gradients do not flow back
  in time;
- in the modern form (``steps`` above 1): gradients flow back through that many steps, the state still
  carried from one window to the next, so that the network always knows the whole history;
- by prefixes (``rows="prefixes"``): every training event is a row of its own, with the last ``steps`` items
  before it, read from a zero state, and one loss (Tan, Xu, Liu, 2016, arXiv 1606.08117, section 3.1). Rows
  are in random order, so that a batch holds targets of many users. Histories are cut likewise to recommend;
- over baskets (``pool_baskets``), as DREAM does (``seqrec.nn.baskets``): a step reads a basket, the mean or
  the largest of its items' vectors, and its targets are the items of the next, whose softmax losses are
  averaged. A row is a user's history from a zero state, of at most ``longest`` baskets.

With a feature schema e and o are sums of vectors: the id's own, where the schema names it, and those of the
attributes' values. What it names of the user is a vector u, added to the state as it leaves the network, P
h_t + u: a user says which items they like, and the recurrence stays the paper's.

The first layer of ``embedding: none`` (``OneHotGRULayer``) is that of the authors' code and of the paper: the
reset gate acts on the state before the multiply, and a gate has one bias. All other layers are torch's GRU,
in their code as here: the reset gate acts after the multiply, and a gate has two biases.

Differences from the papers: with ``hidden`` unlike ``width`` a linear layer P maps states to the width of the
items (else P is the identity); the bias of an item is a column of its row, so with Adagrad's momentum it
coasts on also in an update that only reads the item.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from seqrec.data.query import Query
from seqrec.features.encoding import Features
from seqrec.models.gru4rec_fused import one_pass
from seqrec.models.neural import NeuralModel
from seqrec.nn.baskets import PoolBaskets, pooled
from seqrec.nn.batch import Batch, Batches, Inputs
from seqrec.nn.dropout import dropout
from seqrec.nn.embedding import add_users, biases_of, embedding, rows_of
from seqrec.nn.encoder import Encoder, ItemRows
from seqrec.nn.recurrence import GRULayer, exported
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training import basket_batching, batching
from seqrec.training.loss import SampledSoftmax
from seqrec.training.negatives import Distinct, Sampler
from seqrec.training.objective import Objective
from seqrec.training.one_table import OneTable, ReadsItems


class GRU4RecSettings(Settings):
    """Hyperparameters of the network of GRU4Rec."""

    width: int = Field(64, ge=1, le=16_384)
    """Width of the item vectors."""
    hidden: int = Field(128, ge=1, le=16_384)
    """Units of each recurrent layer."""
    layers: int = Field(1, ge=1, le=8)
    """Recurrent layers."""
    embedding: Literal["shared", "separate", "none"] = "shared"
    """Input and output use one item table, a table each, or items come in as one-hot vectors (the paper's
    form): the input weights of the first layer stand for the input table."""
    item_bias: bool = True
    """A bias an item in its score."""
    dropout_embedding: float = Field(0.0, ge=0, lt=1)
    """Dropout on the input item vectors; with ``embedding: none`` on the output of the first layer, as the
    authors have it."""
    dropout_hidden: float = Field(0.0, ge=0, lt=1)
    """Dropout on the output of each (other) recurrent layer."""
    dropout_between: float = Field(0.0, ge=0, lt=1)
    """Dropout on what one recurrent layer hands to the next, as ``torch.nn.GRU`` has it."""
    dropout_item: float = Field(0.0, ge=0, lt=1)
    """Dropout on the vectors of the items that states are compared with."""
    output_layer: bool = False
    """A linear layer with biases after the last recurrent layer. Without, there is one only where hidden is
    unlike width, and it has none."""
    rows: Literal["lanes", "prefixes"] = "lanes"
    """What a row of a training batch is: a lane through one sequence after another, its state carried over;
    or the last ``steps`` items before one training event, from a zero state, events in random order."""
    steps: int = Field(16, ge=1, le=1_000_000)
    """Events each lane reads an update: 1 is session-parallel training as the authors have it; more is
    truncated back-propagation in time. With prefixes, the items of a row, at most, and of a history that is
    read to recommend."""
    order: Literal["random", "start"] = "random"
    """Sequences enter the lanes in random order, or by the time of their first event, as the authors have
    it."""
    longest: int = Field(1000, ge=1, le=1_000_000)
    """Events of a history that are read to recommend, from its end; with prefixes, at most ``steps``. With
    ``pool_baskets`` baskets, also of a row in training."""
    pool_baskets: PoolBaskets | None = None
    """How a basket of the log becomes one step: the ``average`` of its items' vectors or the largest
    (``max``). ``steps`` and ``order`` say nothing then. None reads item after item, whatever baskets there
    are."""
    normalise: bool = False
    """States and item vectors have length 1 (the origin's form)."""
    temperature: float = Field(1.0, gt=0)
    """Scores are divided by it."""
    initial_std: float | None = Field(None, gt=0)
    """Standard deviation of the vectors before training; None: uniform, within sqrt(6 / (items + width))
    (with ``embedding: none`` the input weights within sqrt(6 / (items + hidden)))."""

    @field_validator("pool_baskets")
    @classmethod
    def _in_whole_histories(cls, how: PoolBaskets | None, info: ValidationInfo) -> PoolBaskets | None:
        if how is not None and info.data.get("rows") == "prefixes":
            raise ValueError("none with rows: prefixes, since rows of baskets are whole histories")
        return how


class OneHotGRULayer(nn.Module):
    """The first layer where items have no vectors: a row of its input weights W is looked up for each item.

        r = sigmoid(W_r[i] + h U_r + b_r)        n  = tanh(W_n[i] + (r * h) U_n + b_n)
        z = sigmoid(W_z[i] + h U_z + b_z)        h' = (1 - z) * h + z * n

    (Hidasi et al., 2016, section 3.1; ``GRUEmbedding`` in the authors' code.)

    Args:
        width: of the state.
    """

    def __init__(self, width: int):
        super().__init__()
        self.state_weight = nn.Parameter(torch.empty(3 * width, width))  # U, gates in the order r, z, n
        self.bias = nn.Parameter(torch.zeros(3 * width))
        bound = math.sqrt(6.0 / (width + width))
        nn.init.uniform_(self.state_weight, -bound, bound)

    def forward(self, x: Tensor, h0: Tensor, resets: Tensor | None = None) -> Tensor:
        """Runs through time.

        Args:
            x: (steps, rows, 3 width) the rows of W, gates in the order r, z, n.
            h0: (rows, width) initial state; no gradient flows into what came before it.
            resets: (steps, rows) bool, True where the state is zeroed before the step.
        Returns:
            (steps, rows, width) the state after each step.
        """
        if torch.compiler.is_exporting():
            return self._exported(x, h0)
        h, states = h0.detach(), []
        u_rz, u_n = self.state_weight.split_with_sizes([2 * h.shape[1], h.shape[1]])
        for t, gates in enumerate(x.to(self.bias.dtype) + self.bias):
            if resets is not None:
                h = h.masked_fill(resets[t][:, None], 0)
            of_rz, of_n = gates.split_with_sizes([2 * h.shape[1], h.shape[1]], 1)
            r, z = (of_rz + (h @ u_rz.T).to(of_rz.dtype)).sigmoid().chunk(2, 1)
            n = (of_n + ((r * h) @ u_n.T).to(of_n.dtype)).tanh()
            h = torch.lerp(h, n, z)
            states.append(h)
        return torch.stack(states)

    def _exported(self, x: Tensor, h0: Tensor) -> Tensor:
        """The same by ONNX's GRU, in which z weighs the old state: 1 - sigmoid(a) = sigmoid(-a). The looked
        up rows are its inputs, with weights that leave them as they are."""
        of_gates = torch.ones(3, 1)
        of_gates[1] = -1
        sign = of_gates.expand(3, h0.shape[1]).reshape(-1)
        bias = self.bias * sign
        return exported(
            x, sign.diag(), bias, h0, self.state_weight * sign[:, None], torch.zeros_like(bias), False
        )


class GRU4RecNetwork(ReadsItems):
    """GRU layers, the item vectors that they read, and those that states are compared with."""

    def __init__(self, settings: GRU4RecSettings, items: int, users: int, features: Features | None = None):
        super().__init__()
        s = self.settings = settings
        f = features or Features.ids_only(users=False)
        # with item_bias the last column is the bias
        self.items = embedding(items, s.width + s.item_bias, f.item, biases=int(s.item_bias))
        one_hot = s.embedding == "none"

        def start(vectors: Tensor, width: int = s.width) -> None:
            if s.initial_std is None:
                bound = math.sqrt(6.0 / (items + width))
                nn.init.uniform_(vectors, -bound, bound)
            else:
                nn.init.normal_(vectors, std=s.initial_std)

        for vectors in self.items.parameters():
            start(vectors)
        shared = self.items if s.embedding == "shared" else None
        input_width = {"separate": s.width, "none": 3 * s.hidden}.get(s.embedding, s.width + s.item_bias)
        input_biases = int(s.item_bias) if shared is not None else 0
        self.input_items = (
            None
            if shared is not None and f.item_is_sequence
            else embedding(items, input_width, f.sequence, shared, input_biases)
        )
        if self.input_items is not None:
            for vectors in self.input_items.parameters():
                start(vectors, s.hidden if one_hot else s.width)
        for biases in biases_of(self.items, s.width):
            nn.init.zeros_(biases)
        first = OneHotGRULayer(s.hidden) if one_hot else GRULayer(s.width, s.hidden)
        self.layers = nn.ModuleList([first, *(GRULayer(s.hidden, s.hidden) for _ in range(s.layers - 1))])
        linear = s.output_layer or s.hidden != s.width
        self.project = nn.Linear(s.hidden, s.width, bias=s.output_layer) if linear else None
        self.users = embedding(users, s.width, f.user) if f.user else None
        if self.users is not None:
            for vectors in self.users.parameters():
                start(vectors)
        self.reads = frozenset(
            {*(["users"] if self.users is not None else []), *(["baskets"] if s.pool_baskets else [])}
        )
        self.input_width = s.width
        self.scores_rows = not s.normalise

    @property
    def one_table(self) -> bool:
        """Whether a history is read by the very vectors with which states are compared."""
        s = self.settings
        return self.input_items is None and not s.normalise and not s.dropout_item and not s.pool_baskets

    def batches(self, split: Split, positions: int, rng: np.random.Generator) -> Batches:
        s = self.settings
        if s.pool_baskets:
            return basket_batching.basket_windows(split, s.longest, positions, rng)
        if s.rows == "prefixes":
            return batching.prefixes(split, s.steps, positions, rng, self.reads)
        return batching.lanes(split, max(1, positions // s.steps), s.steps, s.order, rng, self.reads)

    @property
    def reads_last(self) -> int:
        """How many events are read, from the end of a history."""
        s = self.settings
        return min(s.steps, s.longest) if s.rows == "prefixes" else s.longest

    @property
    def longest(self) -> int:
        """See ``seqrec.nn.encoder.Streaming``: a step knows no user, and reads one item."""
        return 0 if self.users is not None or self.settings.pool_baskets else self.reads_last

    def query_inputs(self, query: Query) -> Inputs:
        if self.settings.pool_baskets:
            return basket_batching.last_baskets_in_order(query, self.settings.longest)
        return batching.last_states(query, self.reads_last)

    def padded_inputs(self, items: Tensor, lengths: Tensor, users: Tensor | None) -> Inputs:
        return batching.last_states_of(items, lengths, users, self.reads_last)

    def encode(self, inputs: Inputs) -> Tensor:
        if self.settings.pool_baskets:
            x, inputs = pooled(self.input_vectors(inputs.items), inputs, self.settings.pool_baskets)
            return self.read(x.transpose(0, 1), inputs)
        return self.read(self.input_vectors(inputs.items.T), inputs)

    def input_vectors(self, items: Tensor) -> Tensor:
        """(...) items -> (..., inputs) what the first layer reads."""
        x: Tensor = (self.items if self.input_items is None else self.input_items)(items)
        return x[..., : self.settings.width] if self.settings.embedding == "shared" else x

    def read(self, x: Tensor, inputs: Inputs) -> Tensor:
        """The states of inputs whose vectors are looked up, x (steps, rows, inputs): time first."""
        s = self.settings
        rows, steps = inputs.items.shape
        one_hot = s.embedding == "none"
        if not one_hot:
            x = dropout(x, s.dropout_embedding, self.training)
        carried = None if inputs.memory is None else inputs.memory.states
        for n, layer in enumerate(self.layers):
            h0 = carried[n][:rows] if carried and n < len(carried) else x.new_zeros(rows, s.hidden)
            states = layer(x, h0, None if inputs.resets is None else inputs.resets.T)
            dropped = s.dropout_embedding if one_hot and n == 0 else s.dropout_hidden
            x = dropout(states, dropped, self.training)
            if carried is not None:
                # Session-parallel training carries the state after dropout over, as the authors' code does.
                carried[n : n + 1] = [(x if s.steps == 1 else states)[-1].detach()]
            if n + 1 < s.layers:
                x = dropout(x, s.dropout_between, self.training)
        x = x.reshape(rows * steps, -1)
        if steps > 1 or inputs.at.shape[0] != rows:
            # at counts rows first, x is time first
            row = inputs.at // steps
            x = x.index_select(0, (inputs.at - row * steps) * rows + row)
        if self.project is not None:
            x = self.project(x)
        if self.users is not None:
            x = add_users(x, self.users, inputs, s.dropout_embedding if self.training else 0.0)
        return self.scaled(x)

    def scaled(self, x: Tensor) -> Tensor:
        """(positions, width) states as they are compared with item vectors."""
        if self.settings.normalise:
            x = F.normalize(x, dim=1)
        return x if self.settings.temperature == 1 else x / self.settings.temperature

    def start(self, rows: int) -> list[Tensor]:
        """(rows, hidden) zeros of each layer: the state before any event."""
        like = next(self.parameters())
        return [like.new_zeros(rows, self.settings.hidden) for _ in self.layers]

    def step(self, state: list[Tensor], items: Tensor) -> tuple[list[Tensor], Tensor]:
        """Reads one more item, (rows,), of each history: see ``seqrec.nn.encoder.Streaming``. Users are
        unknown. A network of prefixes knows histories of up to ``steps`` items; this one forgets none."""
        x, after = self.input_vectors(items)[None], []
        for layer, h0 in zip(self.layers, state, strict=True):
            x = layer(x, h0)
            after.append(x[0])
        return after, self.scaled(x[0] if self.project is None else self.project(x[0]))

    def item_vectors(self, items: ItemRows = None) -> Tensor:
        s, v = self.settings, rows_of(self.items, items)
        if s.normalise or (s.dropout_item and self.training):
            vectors, bias = v.split_with_sizes([s.width, v.shape[-1] - s.width], -1)
            vectors = dropout(vectors, s.dropout_item, self.training)
            v = torch.cat([F.normalize(vectors, dim=-1) if s.normalise else vectors, bias], -1)
        return v


class SessionParallel(OneTable):
    """One table for inputs and outputs; and, where its authors' form is trained, an update in a single
    pass."""

    encoder: GRU4RecNetwork

    def takes_one_pass(self, batch: Batch) -> bool:
        """Whether this batch has no use for anything that the single pass leaves out."""
        s, network = self.encoder.settings, self.encoder
        return (
            isinstance(self.of_scores, SampledSoftmax)
            and self.of_scores.seen == "keep"
            and batch.targets.labels is None
            and batch.inputs.memory is not None
            and not self.bfloat16
            and s.steps == s.layers == s.temperature == 1
            and isinstance(network.items, nn.Embedding)
            and network.items.sparse
            and network.project is None
            and network.users is None
            and not (network.training and (s.dropout_embedding or s.dropout_hidden))
        )

    def _loss(self, batch: Batch, drawn: Distinct | None) -> Tensor:
        if drawn is None or not self.takes_one_pass(batch):
            return super()._loss(batch, drawn)
        inputs, memory, network = batch.inputs, batch.inputs.memory, self.encoder
        assert memory is not None
        layer, table = network.layers[0], network.items
        h0 = (memory.states or network.start(len(inputs.items)))[0][: len(inputs.items)]
        weights = table.weight, layer.weight_ih, layer.bias_ih, layer.weight_hh, layer.bias_hh
        loss, states = one_pass(*weights, h0, inputs.resets, drawn)
        memory.states = [states]
        return loss


class GRU4Rec(NeuralModel):
    name = "gru4rec"
    takes_features = True
    Settings = GRU4RecSettings
    Network = GRU4RecNetwork
    longest_chunk = 32_768
    sparse_adagrad = True

    def objective(self, network: Encoder, sampler: Sampler, bfloat16: bool = False) -> Objective:
        assert isinstance(network, GRU4RecNetwork)
        return (SessionParallel if network.one_table else Objective)(network, self.loss, sampler, bfloat16)
