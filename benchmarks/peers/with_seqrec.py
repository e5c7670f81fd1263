"""This library in the race."""

from __future__ import annotations

import time

import exchange
import numpy as np
import polars as pl
import torch

import seqrec

request = exchange.read()
torch.set_num_threads(request.threads)
user, item = request.events()
log = pl.DataFrame({"user_id": user, "item_id": item})
model = seqrec.SASRec(
    width=request.width,
    blocks=request.blocks,
    heads=request.heads,
    length=request.length,
    dropout=request.dropout,
    # No epoch is chosen here, so none is validated.
    train={
        "minutes": request.minutes,
        "epochs": 200,
        "batch_positions": 2048,
        "learning_rate": request.learning_rate,
        "validate_every": 200,
    },
)
begin = time.perf_counter()
model.fit(log, seed=request.seed, device="cpu", progress=False, baselines=False)
seconds = time.perf_counter() - begin
curve = model.fit_report.curve

begin = time.perf_counter()
frame = model.recommend(users=np.arange(request.users), k=request.k)
recommending = time.perf_counter() - begin
lists = np.full((request.users, request.k), -1)
lists[frame["user_id"].to_numpy(), frame["rank"].to_numpy() - 1] = frame["item_id"].to_numpy()

history = [item[:50].tolist()]
exchange.answer(
    request,
    lists,
    version=seqrec.__version__,
    torch=torch.__version__,
    train_seconds=seconds,
    positions=sum(epoch["positions"] for epoch in curve),
    epochs=len(curve),
    recommend_seconds=recommending,
    one_history_ms=exchange.median_ms(lambda: model.recommend(history, k=10)),
)
