"""RecTools in the race."""

from __future__ import annotations

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


def recommend(of: Dataset, users: np.ndarray, k: int) -> pd.DataFrame:
    """The best unseen items."""
    return model.recommend(users=users, dataset=of, k=k, filter_viewed=True)


def lists() -> np.ndarray:
    """Those of all users. Ones with fewer than two events are left out by the library."""
    fitted, model.is_fitted = model.is_fitted, True  # it is asked in the middle of training, too
    frame = recommend(dataset, np.arange(request.users), request.k)
    model.is_fitted = fitted
    best = np.full((request.users, request.k), -1)
    best[frame["user_id"].to_numpy(), frame["rank"].to_numpy() - 1] = frame["item_id"].to_numpy()
    return best


clock = exchange.Clock(request, lists)


class Told(Callback):
    """Tells the clock how many targets were trained on."""

    def on_train_batch_end(self, trainer, module, outputs, batch, number) -> None:
        trainer.should_stop = clock.update(int((batch["y"] != 0).sum()))
        module.train()

    def on_train_epoch_end(self, trainer, module) -> None:
        clock.epochs += not clock.over()  # one that is cut short ends, too


def trainer() -> Trainer:
    """Trains as long as the clock says."""
    return Trainer(
        max_epochs=request.epochs or 100_000,
        accelerator="cpu",
        callbacks=[Told()],
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
clock.start()
model.fit(dataset)
clock.check()
one = pd.DataFrame({"user_id": 0, "item_id": item[:50], "weight": 1.0, "datetime": times[:50]})


def one_history() -> pd.DataFrame:
    """The ten best items after a history that is new: a data set is made of it, as the library asks."""
    return recommend(Dataset.construct(one), np.array([0]), 10)


clock.answer(rectools.__version__, exchange.median_ms(one_history))
