"""RePlay in the race."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path

import exchange
import lightning
import numpy as np
import pandas as pd
import torch
from replay.data import FeatureHint, FeatureSource, FeatureType
from replay.data.nn import ParquetModule, TensorFeatureInfo, TensorFeatureSource, TensorSchema
from replay.nn.lightning import LightningModule
from replay.nn.lightning.callback import PandasTopItemsCallback
from replay.nn.lightning.optimizer import OptimizerFactory
from replay.nn.lightning.postprocessor import SeenItemsFilter
from replay.nn.sequential import SasRec
from replay.nn.transform.template import make_default_sasrec_transforms

warnings.filterwarnings("ignore")
request = exchange.read()
torch.set_num_threads(request.threads)
user, item = request.events()
folder = Path(request.folder)
histories = request.histories()
table = pd.DataFrame({"user_id": np.arange(request.users), "item_id": histories, "seen_ids": histories})
table[table["item_id"].map(len) > 1].to_parquet(folder / "train.parquet")
table.to_parquet(folder / "all.parquet")
table.head(1).assign(item_id=[item[:50]], seen_ids=[item[:50]]).to_parquet(folder / "one.parquet")

padding = request.items
schema = TensorSchema(
    TensorFeatureInfo(
        "item_id",
        is_seq=True,
        feature_type=FeatureType.CATEGORICAL,
        embedding_dim=request.width,
        padding_value=padding,
        cardinality=request.items,
        feature_hint=FeatureHint.ITEM_ID,
        feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
    )
)
longest = max(map(len, histories))
read = {
    "user_id": {},
    "item_id": {"shape": request.length, "padding": padding},
    "seen_ids": {"shape": longest, "padding": padding},
}
metadata = {"train": {"item_id": {"shape": request.length + 1, "padding": padding}}, "predict": read}


def data(train: str | None, predict: str | None, batch: int) -> ParquetModule:
    """The files of a stage as the library reads them."""
    paths = {"train": train, "predict": predict}
    return ParquetModule(
        batch_size=batch,
        metadata={stage: metadata[stage] for stage, path in paths.items() if path},
        transforms=make_default_sasrec_transforms(schema),
        **{f"{stage}_path": str(folder / path) for stage, path in paths.items() if path},
    )


def trainer(**more) -> lightning.Trainer:
    """One that says nothing and keeps nothing."""
    return lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **more,
    )


def network() -> SasRec:
    """One that is not trained yet."""
    return SasRec.from_params(
        schema,
        embedding_dim=request.width,
        num_heads=request.heads,
        num_blocks=request.blocks,
        max_sequence_length=request.length,
        dropout=request.dropout,
        hidden_dim=4 * request.width,
    )


lightning.seed_everything(request.seed)
trained = network()
model = LightningModule(trained, optimizer_factory=OptimizerFactory(learning_rate=request.learning_rate))
asked_network = network()
asked = LightningModule(asked_network, optimizer_factory=OptimizerFactory())


def best(path: str, k: int, batch: int = 256) -> pd.DataFrame:
    """The best unseen items after the histories of a file."""
    top = PandasTopItemsCallback(k, "user_id", "item_id", postprocessors=[SeenItemsFilter(request.items)])
    trainer(callbacks=[top]).predict(asked, datamodule=data(None, path, batch), return_predictions=False)
    return top.get_result()


def lists() -> np.ndarray:
    """Those of all users, by a second network with the weights of the first, whose trainer is at work."""
    asked_network.load_state_dict(trained.state_dict())
    frame = best("all.parquet", request.k)
    found = np.full((request.users, request.k), -1)
    place = frame.groupby("user_id").cumcount().to_numpy()
    found[frame["user_id"].to_numpy(int), place] = frame["item_id"].to_numpy(int)
    return found


clock = exchange.Clock(request, lists)


class Told(lightning.Callback):
    """Tells the clock how many targets were trained on."""

    def on_train_batch_end(self, trainer, module, outputs, batch, number) -> None:
        trainer.should_stop = clock.update(int((batch["positive_labels"] != padding).sum()))

    def on_train_epoch_end(self, trainer, module) -> None:
        clock.epochs += not clock.over()  # one that is cut short ends, too


limited = trainer(max_epochs=request.epochs or 100_000, limit_val_batches=0, callbacks=[Told()])
clock.start()
limited.fit(model, datamodule=data("train.parquet", None, request.batch))
clock.check()
one_history_ms = exchange.median_ms(lambda: best("one.parquet", 10, 1), 5)
clock.answer(version("replay-rec"), one_history_ms)
