"""MGU: a recurrent network with a single gate reads a history; its state is compared with every item.

Zhou, Wu, Zhang, Zhou: Minimal Gated Unit for Recurrent Neural Networks, 2016 (arXiv 1603.09420).

    f = sigmoid(W_f [h, x])    n = tanh(W_n [f * h, x])    h' = (1 - f) * h + f * n      (each W with a bias)
    score(j | history) = e(j) . h

Difference from the paper: what it reads are items, and the next one is predicted.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from seqrec.data.query import Query
from seqrec.models.neural import NeuralModel
from seqrec.nn.batch import Batches, Inputs
from seqrec.nn.embedding import rows_of
from seqrec.nn.encoder import Encoder, ItemRows
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training import batching


class MGUSettings(Settings):
    """Hyperparameters of the network."""

    width: int = Field(64, ge=1)
    """Width of item vectors and states."""
    steps: int = Field(16, ge=1)
    """Events each lane reads an update."""
    longest: int = Field(200, ge=1)
    """Events of a history that are read to recommend, from its end."""


class MGUNetwork(Encoder):
    """An item table, and the unit that reads it."""

    def __init__(self, settings: MGUSettings, items: int, users: int):
        super().__init__()
        self.settings, width = settings, settings.width
        self.items = nn.Embedding(items, width)
        self.forget, self.new = nn.Linear(2 * width, width), nn.Linear(2 * width, width)
        nn.init.normal_(self.items.weight, std=width**-0.5)

    def batches(self, split: Split, positions: int, rng: np.random.Generator) -> Batches:
        steps = self.settings.steps
        return batching.lanes(split, max(1, positions // steps), steps, "random", rng, self.reads)

    def query_inputs(self, query: Query) -> Inputs:
        return batching.last_states(query, self.settings.longest, self.reads)

    def encode(self, inputs: Inputs) -> Tensor:
        return self.read(self.items(inputs.items), inputs)

    def read(self, x: Tensor, inputs: Inputs) -> Tensor:
        """The (positions, width) states that are wanted, after reading (rows, steps, width) vectors."""
        memory, states = inputs.memory, []
        h = memory.states[0][: len(x)] if memory and memory.states else torch.zeros_like(x[:, 0])
        for t in range(x.shape[1]):
            if inputs.resets is not None:
                h = h.masked_fill(inputs.resets[:, t, None], 0)
            f = self.forget(torch.cat([h, x[:, t]], 1)).sigmoid()
            n = self.new(torch.cat([f * h, x[:, t]], 1)).tanh()
            h = (1 - f) * h + f * n
            states.append(h)
        if memory:
            memory.states = [h.detach()]
        return torch.stack(states, 1).flatten(0, 1)[inputs.at]

    def item_vectors(self, items: ItemRows = None) -> Tensor:
        return rows_of(self.items, items)


class MGU(NeuralModel):
    name = "mgu"
    Settings = MGUSettings
    Network = MGUNetwork
