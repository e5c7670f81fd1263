"""The authors' code of GRU4Rec in the race: ``gru4rec_pytorch.py`` of the checkout that the settings name."""

from __future__ import annotations

import contextlib
import sys

import exchange
import numpy as np
import pandas as pd
import torch

request = exchange.read()
torch.set_num_threads(request.threads)
settings = dict(request.gru4rec)
sys.path.insert(0, settings.pop("checkout"))
import gru4rec_pytorch  # noqa: E402

user, item = request.events()
histories = request.histories()
able = np.bincount(user, minlength=request.users)[user] > 1
# Item ids from 0 without gaps, as its use of pandas needs them.
trained, number = np.unique(item[able], return_inverse=True)
frame = pd.DataFrame({"SessionId": user[able], "ItemId": number, "Time": np.arange(len(number))})
model = gru4rec_pytorch.GRU4Rec(**settings, n_epochs=request.epochs or 100_000, device=torch.device("cpu"))


@torch.no_grad()
def best(of: list[np.ndarray], k: int) -> np.ndarray:
    """(histories, k) best items that are not in each. It has no function for whole histories: they are read
    side by side, longest first, and those that have ended are no longer read."""
    index, network = model.data_iterator.itemidmap, model.model
    place = np.full(request.items, -1)
    place[trained] = index[np.arange(len(trained))].to_numpy()
    back = trained[index.index.to_numpy()]
    places = [p[p >= 0] for p in (place[history] for history in of)]
    order = np.argsort([-len(p) for p in places], kind="stable")
    states = [torch.zeros(len(of), width) for width in model.layers]
    for t in range(len(places[order[0]])):
        running = [places[row][t] for row in order if len(places[row]) > t]
        hidden = [state[: len(running)] for state in states]
        inputs = torch.tensor(np.array(running), dtype=torch.int64)
        network.hidden_step(network.embed(inputs, hidden)[0], hidden, training=False)
        for state, new in zip(states, hidden, strict=True):
            state[: len(running)] = new
    scores = network.score_items(states[-1], network.Wy.weight, network.By.weight)
    for row, one in enumerate(order):
        scores[row, torch.from_numpy(places[one])] = -torch.inf
    found = np.empty((len(of), k), dtype=np.int64)
    found[order] = back[scores.topk(k).indices.numpy()]
    return found


clock = exchange.Clock(request, lambda: best(histories, request.k))


class TimeIsUp(Exception):
    """It has no limit of time."""


batches = gru4rec_pytorch.SessionDataIterator.__call__


def told(*a, **more):
    """Its batches, with the clock told of each once it has been learned from."""
    for inputs, targets in batches(*a, **more):
        read = len(inputs)
        yield inputs, targets
        if clock.update(read):
            raise TimeIsUp
    clock.epochs += 1


gru4rec_pytorch.SessionDataIterator.__call__ = told
seed_numpy = np.random.seed
np.random.seed = lambda _: seed_numpy(request.seed)  # it draws initial weights from one seed each time
torch.manual_seed(request.seed)
clock.start()
with contextlib.suppress(TimeIsUp):
    model.fit(frame, sample_cache_max_size=2_048_000)
clock.check()
clock.answer("authors", exchange.median_ms(lambda: best([item[:50]], 10)))
