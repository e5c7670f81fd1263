"""GRU4Rec: a recurrent network reads a history item by item; its state is compared with every item.

Hidasi, Karatzoglou, Baltrunas, Tikk: Session-based Recommendations with Recurrent Neural Networks, ICLR 2016 (arXiv 1511.06939), and
Hidasi, Karatzoglou: Recurrent Neural Networks with Top-k Gains for Session-based Recommendations, CIKM 2018 (arXiv 1706.03847).

    h_t = GRU(e(i_t), h_(t-1))        score(j | history) = o(j) . P h_t + b(j)

Two ways to train it:

- as its authors do (``steps=1``): session-parallel mini-batches. Every lane reads one session, one item an update; the hidden state is carried over
  and reset where a new session begins; gradients do not flow back in time;
- in the modern form (``steps`` above 1): gradients flow back through that many steps, the state still carried from one window to the next, so that
  the network always knows the whole history.

With a feature schema e and o are sums of vectors: the id's own, where the schema names it, and those of the attributes' values. What it names of the
user is a vector u, added to the state as it leaves the network, P h_t + u: a user says which items they like, and the recurrence stays the paper's.

Differences from the papers: with ``hidden`` unlike ``width`` a linear layer P maps states to the width of the items (else P is the identity);
the bias of an item is a column of its row, so with Adagrad's momentum it coasts on also in an update that only reads the item.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from seqrec import batching, losses
from seqrec.batching import Batch
from seqrec.config import Settings
from seqrec.features.encoding import Features
from seqrec.layers.dropout import dropout
from seqrec.layers.features import add_users, embedding
from seqrec.layers.recurrence import GRULayer, step, step_backward
from seqrec.models.encoder import Encoder, NeuralModel
from seqrec.sequences import Histories
from seqrec.splitting.split import Split


class GRU4RecSettings(Settings):
    width: int = Field(64, ge=1)
    """Width of the item vectors."""
    hidden: int = Field(128, ge=1)
    """Units of each recurrent layer."""
    layers: int = Field(1, ge=1, le=8)
    """Recurrent layers."""
    embedding: Literal["shared", "separate", "none"] = "shared"
    """Input and output use one item table, a table each, or the input weights of the GRU stand for the input table."""
    item_bias: bool = True
    """A bias an item in its score."""
    dropout_embedding: float = Field(0.0, ge=0, lt=1)
    """Dropout on the input item vectors."""
    dropout_hidden: float = Field(0.0, ge=0, lt=1)
    """Dropout on the output of each recurrent layer."""
    steps: int = Field(16, ge=1)
    """Events each lane reads an update: 1 is session-parallel training as the authors have it; more is truncated back-propagation in time."""
    order: Literal["random", "start"] = "random"
    """Sequences enter the lanes in random order, or by the time of their first event, as the authors have it."""
    longest: int = Field(1000, ge=1)
    """Events of a history that are read to recommend, from its end."""
    normalise: bool = False
    """States and item vectors have length 1 (the origin's form)."""
    temperature: float = Field(1.0, gt=0)
    """Scores are divided by it."""
    initial_std: float | None = Field(None, gt=0)
    """Standard deviation of the vectors before training; None: uniform, within sqrt(6 / (items + width))."""


class _SessionParallel(torch.autograd.Function):
    """One update of session-parallel training with sampled softmax, from the item table to the loss: (loss, states). Its gradients come with it.

    The operations are those of ``encode`` and the loss. What is saved is the time to record them one by one.
    """

    @staticmethod
    def forward(ctx, table: Tensor, w: Tensor, b_x: Tensor, u: Tensor, b: Tensor, h0: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        drawn, width = batch.drawn, w.shape[1]
        assert drawn is not None
        assert drawn.beside is not None  # see reads_item_vectors
        vectors = table.index_select(0, drawn.items)
        x = vectors.index_select(0, drawn.beside)[:, :width]
        states, kept = step(x, w, b_x, h0, u, b, batch.resets)
        weights = drawn.log_weight, drawn.target_log_weight, drawn.own_log_weight
        loss, d_states, d_vectors = losses.softmax_with_gradients(states, vectors, drawn.at, weights=weights)
        d_x, d_w, d_b_x, d_u, d_b = step_backward(d_states, kept)
        assert d_x is not None
        d_vectors[:, :width].index_add_(0, drawn.beside, d_x)
        # Each item is in it once, in ascending order.
        d_table = torch.sparse_coo_tensor(drawn.items[None], d_vectors, table.shape, is_coalesced=True, check_invariants=False)
        ctx.gradients = d_table, d_w, d_b_x, d_u, d_b
        ctx.mark_non_differentiable(states)
        ctx.set_materialize_grads(False)
        return loss, states

    @staticmethod
    def backward(ctx, grad: Tensor, _: Tensor):
        gradients = ctx.gradients
        del ctx.gradients  # a gradient that is held elsewhere would be copied
        if grad.device.type != "cpu" or grad != 1:  # asking a GPU would wait for it
            gradients = [gradient * grad for gradient in gradients]
        return *gradients, None, None


class GRU4RecNetwork(Encoder):
    def __init__(self, settings: GRU4RecSettings, items: int, users: int, features: Features | None = None):
        super().__init__()
        s = self.settings = settings
        f = features or Features.ids_only(users=False)
        self.items = embedding(items, s.width + s.item_bias, f.item)  # with item_bias the last column is the bias
        bound = math.sqrt(6.0 / (items + s.width))

        def start(vectors: Tensor) -> None:
            if s.initial_std is None:
                nn.init.uniform_(vectors, -bound, bound)
            else:
                nn.init.normal_(vectors, std=s.initial_std)

        for vectors in self.items.parameters():
            start(vectors)
        shared = self.items if s.embedding == "shared" else None
        input_width = {"separate": s.width, "none": 3 * s.hidden}.get(s.embedding, s.width + s.item_bias)
        self.input_items = None if shared is not None and f.item_is_sequence else embedding(items, input_width, f.sequence, shared)
        if self.input_items is not None:
            for vectors in self.input_items.parameters():
                start(vectors)
        for vectors in self.items.parameters():
            nn.init.zeros_(vectors[:, s.width :])
        first = None if s.embedding == "none" else s.width
        self.layers = nn.ModuleList(GRULayer(first if n == 0 else s.hidden, s.hidden) for n in range(s.layers))
        self.project = nn.Linear(s.hidden, s.width, bias=False) if s.hidden != s.width else None
        self.users = embedding(users, s.width, f.user) if f.user else None
        if self.users is not None:
            for vectors in self.users.parameters():
                start(vectors)
        self.knows_users = self.users is not None
        self.carried: list[Tensor] = []
        self.most_positions = 0

    @property
    def reads_item_vectors(self) -> int:  # type: ignore[override]
        return self.settings.width if self.input_items is None and not self.settings.normalise else 0

    def batches(self, split: Split, positions: int, rng: np.random.Generator) -> Iterator[Batch]:
        self.carried, self.most_positions = [], 0
        count = max(1, positions // self.settings.steps)
        for batch in batching.lanes(split, count, self.settings.steps, self.settings.order, rng, users=self.knows_users):
            self.most_positions = max(self.most_positions, batch.positions)
            yield batch

    def loss_scale(self, batch: Batch) -> float:
        """Session-parallel: losses are summed and divided by the number of lanes, so the few lanes left at the end of an epoch weigh no more."""
        return batch.positions / self.most_positions if self.settings.steps == 1 else 1.0

    def loss_in_one_pass(self, batch: Batch) -> Tensor | None:
        s = self.settings
        table = self.items
        if not (
            s.steps == s.layers == s.temperature == 1
            and self.reads_item_vectors
            and isinstance(table, nn.Embedding)
            and table.sparse
            and self.project is None
            and self.users is None
            and not (self.training and (s.dropout_embedding or s.dropout_hidden))
        ):
            return None
        rows, layer = len(batch.items), self.layers[0]
        h0 = self.carried[0][:rows] if self.carried else table.weight.new_zeros(rows, s.hidden)
        loss, states = _SessionParallel.apply(table.weight, layer.weight_ih, layer.bias_ih, layer.weight_hh, layer.bias_hh, h0, batch)
        self.carried = [states]
        return loss

    def history_batch(self, histories: Histories) -> Batch:
        return batching.last_states(histories, self.settings.longest)

    def encode(self, batch: Batch) -> Tensor:
        s = self.settings
        rows, steps = batch.items.shape
        if batch.vectors is not None:
            x = batch.vectors.transpose(0, 1)  # (steps, rows, inputs): time first
        else:
            x = (self.items if self.input_items is None else self.input_items)(batch.items.T)
            if s.embedding == "shared":
                x = x[..., : s.width]
        x = dropout(x, s.dropout_embedding, self.training)
        in_lanes = batch.resets is not None
        for n, layer in enumerate(self.layers):
            h0 = self.carried[n][:rows] if in_lanes and n < len(self.carried) else x.new_zeros(rows, s.hidden)
            states = layer(x, h0, None if batch.resets is None else batch.resets.T)
            x = dropout(states, s.dropout_hidden, self.training)
            if in_lanes:
                # Session-parallel training carries the state after dropout over, as the authors' code does.
                self.carried[n : n + 1] = [(x if s.steps == 1 else states)[-1].detach()]
        x = x.reshape(rows * steps, -1)
        if steps > 1 or len(batch.at) < rows:
            x = x.index_select(0, batch.at % steps * rows + batch.at // steps)  # at counts rows first, x is time first
        if self.project is not None:
            x = self.project(x)
        if self.users is not None:
            x = add_users(x, self.users, batch, s.dropout_embedding if self.training else 0.0)
        if s.normalise:
            x = F.normalize(x, dim=1)
        if s.temperature != 1:
            x = x / s.temperature
        return x

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        v = self.items.weight if items is None else self.items(items)
        if self.settings.normalise:
            vectors, bias = v.split((self.settings.width, v.shape[-1] - self.settings.width), -1)
            v = torch.cat([F.normalize(vectors, dim=-1), bias], -1)
        return v


class GRU4Rec(NeuralModel):
    name = "gru4rec"
    takes_features = True
    Settings = GRU4RecSettings
    Network = GRU4RecNetwork
    longest_chunk = 32_768
    sparse_adagrad = True
