"""This library in the race."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import exchange
import numpy as np
import polars as pl
import torch

import seqrec
from seqrec.nn.batch import Batches
from seqrec.splitting.everything import everything

request = exchange.read()
torch.set_num_threads(request.threads)
user, item = request.events()
log = seqrec.Interactions.from_frame(pl.DataFrame({"user_id": user, "item_id": item}))
split = everything(log.sequences())
# Every event trains, as in the other libraries: none is held out to choose an epoch on.
split = replace(split, train_stops=split.sequences.offsets[1:], validation=split.test)
epochs = request.epochs or 1000


def lists() -> np.ndarray:
    """The best unseen items."""
    frame = model.recommend(users=np.arange(request.users), k=request.k)
    best = np.full((request.users, request.k), -1)
    best[frame["user_id"].to_numpy(), frame["rank"].to_numpy() - 1] = frame["item_id"].to_numpy()
    return best


clock = exchange.Clock(request, lists)


def counted(batches: Batches) -> Batches:
    """The same batches, with the clock told of each once it has been learned from."""

    def told():
        for batch in batches:
            yield batch
            clock.update(batch.positions)
            model.network.train()
        clock.epochs += 1

    return Batches(batches.positions, told())


if request.model == "sasrec":
    # As many targets an update as those of so many users, the last of each.
    lengths = np.bincount(user, minlength=request.users) - 1
    targets = request.batch * np.minimum(lengths, request.length).clip(min=0).mean()
    model = seqrec.SASRec(
        width=request.width,
        blocks=request.blocks,
        heads=request.heads,
        length=request.length,
        dropout=request.dropout,
        train={
            "minutes": request.minutes,
            "epochs": epochs,
            "batch_positions": max(1, round(targets)),
            "learning_rate": request.learning_rate,
        },
    )
else:
    sys.path.append(str(Path(__file__).parents[1]))
    import fidelity_gru4rec

    model = fidelity_gru4rec.ours_like("cross-entropy", request.gru4rec, epochs, "authors")
    model.train = model.train.model_copy(update={"minutes": request.minutes})


class Network(model.Network):
    def batches(self, *a) -> Batches:
        return counted(super().batches(*a))


model.Network = Network
# What lists in the middle of training need.
model.item_catalogue, model.sequences = split.sequences.item_catalogue, split.sequences
model.known_stops, model.known_times = split.known_stops, None
clock.start()
model.fit(split, seed=request.seed, device="cpu", progress=False, baselines=False, threads=request.threads)
# The clock is not told of an update after which time was up.
clock.positions = sum(epoch["positions"] for epoch in model.fit_report.curve)
clock.updates = model.fit_report.updates
clock.check()
history = [item[:50].tolist()]
clock.answer(seqrec.__version__, exchange.median_ms(lambda: model.recommend(history, k=10)))
