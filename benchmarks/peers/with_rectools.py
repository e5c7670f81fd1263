"""RecTools in the race."""

from __future__ import annotations

import time

import exchange
import numpy as np
import pandas as pd
import rectools
import torch
from pytorch_lightning import Callback, Trainer
from rectools.dataset import Dataset
from rectools.models import SASRecModel

request = exchange.read()
torch.set_num_threads(request.threads)
user, item = request.events()
times = pd.Timestamp("2000-01-01") + pd.to_timedelta(np.arange(len(user)), unit="s")
dataset = Dataset.construct(
    pd.DataFrame({"user_id": user, "item_id": item, "weight": 1.0, "datetime": times})
)
counted = {"positions": 0, "epochs": 0}


class Counter(Callback):
    """How many targets were trained on."""

    def on_train_batch_end(self, trainer, module, outputs, batch, number) -> None:
        counted["positions"] += int((batch["y"] != 0).sum())

    def on_train_epoch_end(self, trainer, module) -> None:
        counted["epochs"] += 1


def trainer() -> Trainer:
    """Trains for the minutes that are given."""
    return Trainer(
        max_epochs=100_000,
        max_time={"seconds": int(request.minutes * 60)},
        accelerator="cpu",
        callbacks=[Counter()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


torch.manual_seed(request.seed)
model = SASRecModel(
    n_factors=request.width,
    n_blocks=request.blocks,
    n_heads=request.heads,
    session_max_len=request.length,
    dropout_rate=request.dropout,
    loss="softmax",
    lr=request.learning_rate,
    batch_size=request.batch,
    get_trainer_func=trainer,
)
begin = time.perf_counter()
model.fit(dataset)
seconds = time.perf_counter() - begin


def recommend(of: Dataset, users: np.ndarray, k: int) -> pd.DataFrame:
    """The best unseen items."""
    return model.recommend(users=users, dataset=of, k=k, filter_viewed=True)


begin = time.perf_counter()
# Users with fewer than two events are left out by the library.
frame = recommend(dataset, np.arange(request.users), request.k)
recommending = time.perf_counter() - begin
lists = np.full((request.users, request.k), -1)
lists[frame["user_id"].to_numpy(), frame["rank"].to_numpy() - 1] = frame["item_id"].to_numpy()

one = pd.DataFrame({"user_id": 0, "item_id": item[:50], "weight": 1.0, "datetime": times[:50]})


def one_history() -> pd.DataFrame:
    """The ten best items after a history that is new: a data set is made of it, as the library asks."""
    return recommend(Dataset.construct(one), np.array([0]), 10)


exchange.answer(
    request,
    lists,
    version=rectools.__version__,
    torch=torch.__version__,
    train_seconds=seconds,
    positions=counted["positions"],
    epochs=counted["epochs"],
    recommend_seconds=recommending,
    one_history_ms=exchange.median_ms(one_history),
)
