"""RecBole in the race. It has a row for each event, with the events before it, and filters nothing: its
scores of seen items are set aside here."""

from __future__ import annotations

from pathlib import Path

import exchange
import numpy as np
import recbole
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.utils import get_model

request = exchange.read()
torch.set_num_threads(request.threads)
user, item = request.events()
folder = Path(request.folder) / "log"
folder.mkdir()
with open(folder / "log.inter", "w") as file:
    file.write("user_id:token\titem_id:token\ttimestamp:float\n")
    # Times as it keeps them, 32-bit floats, tell so many events apart if they count within a user.
    place = np.arange(len(user)) - np.repeat(
        np.flatnonzero(np.diff(user, prepend=-1)), np.bincount(user)[np.unique(user)]
    )
    for u, i, t in zip(user, item, place, strict=True):
        file.write(f"{u}\t{i}\t{t}\n")
config = Config(
    model="SASRec",
    dataset="log",
    config_dict={
        "data_path": request.folder,
        "checkpoint_dir": request.folder,
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "TIME_FIELD": "timestamp",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": request.length,
        "train_neg_sample_args": None,
        "loss_type": "CE",
        "hidden_size": request.width,
        "inner_size": 4 * request.width,
        "n_layers": request.blocks,
        "n_heads": request.heads,
        "hidden_dropout_prob": request.dropout,
        "attn_dropout_prob": request.dropout,
        "learning_rate": request.learning_rate,
        "train_batch_size": request.batch,
        # All events train: nothing is held out.
        "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "TO", "mode": "full"},
        "benchmark_filename": None,
        "seed": request.seed,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    },
)
dataset = create_dataset(config)
train, _, _ = data_preparation(config, dataset)
torch.manual_seed(request.seed)
model = get_model("SASRec")(config, train.dataset)
optimizer = torch.optim.Adam(model.parameters(), lr=request.learning_rate)

known = np.unique(item)
numbers = np.zeros(request.items, dtype=np.int64)
numbers[known] = [dataset.token2id("item_id", str(i)) for i in known]
back = np.full(dataset.item_num, -1)
back[numbers[known]] = known


@torch.no_grad()
def best(histories: list[np.ndarray], k: int) -> np.ndarray:
    """(histories, k) best items that are not in each."""
    model.eval()
    rows = torch.zeros(len(histories), request.length, dtype=torch.long)
    lengths = torch.ones(len(histories), dtype=torch.long)
    for row, history in enumerate(histories):
        last = numbers[history[-request.length :]]
        rows[row, : len(last)], lengths[row] = torch.from_numpy(last), max(1, len(last))
    scores = model.full_sort_predict(Interaction({"item_id_list": rows, "item_length": lengths}))
    scores = scores.view(len(histories), -1)
    scores[:, 0] = -torch.inf
    for row, history in enumerate(histories):
        scores[row, torch.from_numpy(numbers[history])] = -torch.inf
    return back[scores.topk(k).indices.numpy()]


histories = request.histories()


def lists() -> np.ndarray:
    """Those of all users."""
    return np.concatenate([best(histories[at : at + 256], request.k) for at in range(0, request.users, 256)])


clock = exchange.Clock(request, lists)
clock.start()
# Its trainer has no limit of time; this is its loop.
while not clock.over() and clock.epochs != request.epochs:
    for batch in train:
        model.train()
        optimizer.zero_grad()
        loss = model.calculate_loss(batch)
        loss.backward()
        optimizer.step()
        if clock.update(len(batch)):
            break
    else:
        clock.epochs += 1
clock.check()
clock.answer(recbole.__version__, exchange.median_ms(lambda: best([item[:50]], 10)))
