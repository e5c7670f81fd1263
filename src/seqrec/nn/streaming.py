"""A recurrent encoder goes on from the states that it has: a new event costs one step, however long the
history.

    asked before   a b c d        its state is remembered under the content of the history
    asked now      a b c d e      one step from there
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

from seqrec.data.query import Query
from seqrec.nn.encoder import Encoder, Streaming

BACK = 8
"""How many events a history may have grown by since it was asked for."""


class Streamed:
    """The states after the histories that were asked for last.

    Args:
        network: an encoder that is also ``Streaming``.
        most: histories that are remembered; beyond, those not asked for the longest are forgotten.

    Attributes:
        steps: events read so far, of all histories.
    """

    def __init__(self, network: Encoder, most: int):
        assert isinstance(network, Streaming)
        self.network, self.streaming, self.most = network, network, most
        # history -> (1, width) the state of each layer after it, and what the encoder gives for it
        self._known: OrderedDict[bytes, list[Tensor]] = OrderedDict()
        self.steps = 0
        self._one = threading.Lock()

    @torch.no_grad()
    def states(self, query: Query) -> Tensor:
        """(queries, width) what ``Encoder.encode`` gives for these histories, but for rounding."""
        with self._one:
            return self._states(query)

    def _states(self, query: Query) -> Tensor:
        lengths = query.lengths
        mine = np.flatnonzero((lengths > 0) & (lengths <= self.streaming.longest))
        others = np.setdiff1d(np.arange(len(query)), mine, assume_unique=True)
        device = next(self.network.parameters()).device
        found: list[tuple[np.ndarray, Tensor]] = []
        if len(others):
            encoded = self.network.encode(self.network.query_inputs(query.select(others)).to(device))
            found.append((others, encoded))
        if len(mine):
            found.append((mine, self._stream(query.select(mine))))
        states = found[0][1].new_empty(len(query), found[0][1].shape[1])
        for rows, some in found:
            states[torch.from_numpy(rows).to(states.device)] = some
        return states

    def _stream(self, query: Query) -> Tensor:
        """(queries, width) the states after histories that are not empty, each read from where it is
        known."""
        device = next(self.network.parameters()).device
        histories = [query.at(row) for row in range(len(query))]
        begun = [self._before(history) for history in histories]
        left = np.array([back for _, back in begun])
        # those with most to read first: the ones that still read are always the first ones
        order = np.argsort(-left, kind="stable")
        fresh = self.streaming.start(1)
        state = [
            torch.cat([fresh[n] if (known := begun[row][0]) is None else known[n] for row in order])
            for n in range(len(fresh))
        ]
        out: list[Tensor] = [
            known[-1] for row in order if (known := begun[row][0]) is not None and not left[row]
        ]
        rows_left = len(histories) - len(out)
        ends: list[Tensor | None] = [None] * rows_left
        for step in range(int(left.max())):
            reading = int((left > step).sum())
            items = np.array(
                [histories[row][len(histories[row]) - left[row] + step] for row in order[:reading]]
            )
            after, encoded = self.streaming.step(
                [layer[:reading] for layer in state], torch.from_numpy(items.astype(np.int64)).to(device)
            )
            self.steps += reading
            for layer, new in zip(state, after, strict=True):
                layer[:reading] = new
            for at in range(int((left > step + 1).sum()), reading):
                ends[at] = encoded[at : at + 1]
        out = [end for end in ends if end is not None] + out
        for at, row in enumerate(order):
            self._remember(histories[row], [*(layer[at : at + 1].clone() for layer in state), out[at]])
        states = torch.empty_like(found := torch.cat(out))
        states[torch.from_numpy(order.copy()).to(device)] = found
        return states

    def _before(self, history: np.ndarray) -> tuple[list[Tensor] | None, int]:
        """What is known of the longest beginning of a history, and how many events come after it."""
        for back in range(min(BACK, len(history) - 1) + 1):
            known = self._known.get(history[: len(history) - back].tobytes())
            if known is not None:
                return known, back
        return None, len(history)

    def _remember(self, history: np.ndarray, known: list[Tensor]) -> None:
        key = history.tobytes()
        self._known[key] = known
        self._known.move_to_end(key)
        if len(self._known) > self.most:
            self._known.popitem(last=False)
