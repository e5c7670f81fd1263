"""GRU4Rec here beside the code of its authors: same data, same settings, several seeds; accuracy on
validation and speed of both.

    git clone https://github.com/hidasib/GRU4Rec_PyTorch_Official authors
    python -m venv authors-venv
    authors-venv/bin/pip install torch==2.13.0 "pandas<3" "numpy<2"
    python benchmarks/fidelity_gru4rec.py authors authors-venv/bin/python --data-dir DATA \
        --json fidelity.json --markdown fidelity.md

Data: the training events of ml-1m-leave-one-out-v1 (user = session, in the same order in both). Validation:
the whole training history of a user, target the event after it, all items ranked, by the same code for both.
The authors' code runs in a process of its own, with the Python that has what it needs. Its seeds: in its
default ``compatibility_mode`` it draws initial weights from numpy, seeded with 42 each time; here that seed
is replaced by the run's, and ``torch.manual_seed`` seeds negatives and dropout. (Its other mode draws the
weights of the GRU from a narrower distribution.) A run that is in the JSON file already is not run again.

With --same-draws nothing random is left: ours starts from the authors' initial weights and gets the very
items that they drew, without dropout and momentum (their bias has a table, and so a momentum, of its own),
and their loss is given the number of lanes left instead of the full number (see benchmarks/LOG.md). Then both
must end with the same weights, up to rounding.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

PROTOCOL = "ml-1m-leave-one-out-v1"
# The authors' names of settings. Cross-entropy: their usual ones, plain; BPR-max: what they tuned for
# RetailRocket, momentum and dropout included.
COMMON: dict[str, Any] = {"layers": [128], "batch_size": 128, "n_sample": 2048, "learning_rate": 0.05}
LOSSES: dict[str, dict[str, Any]] = {
    "cross-entropy": {
        "sample_alpha": 0.5,
        "logq": 1.0,
        "momentum": 0.0,
        "dropout_p_embed": 0.0,
        "dropout_p_hidden": 0.0,
    },
    "bpr-max": {
        "sample_alpha": 0.4,
        "bpreg": 1.95,
        "elu_param": 0.5,
        "momentum": 0.4,
        "dropout_p_embed": 0.5,
        "dropout_p_hidden": 0.05,
    },
}
METRICS = ("recall@20", "mrr@20")


def authors_process(request: dict[str, Any]) -> None:
    """Runs in the authors' Python: trains their model and writes the scores of all items after each
    history."""
    sys.path.insert(0, request["checkout"])
    import gru4rec_pytorch
    import pandas as pd

    torch.set_num_threads(request["threads"])
    torch.manual_seed(request["seed"])
    data = np.load(request["data"])
    frame = pd.DataFrame({"SessionId": data["session"], "ItemId": data["item"], "Time": data["time"]})
    model = gru4rec_pytorch.GRU4Rec(**request["settings"], device=torch.device("cpu"))
    seed_numpy = np.random.seed
    np.random.seed = lambda _: seed_numpy(request["seed"])
    kept: dict[str, Any] = {}
    if request["same_draws"]:
        keep_draws(gru4rec_pytorch, model, kept)
    model.fit(frame, sample_cache_max_size=2_048_000)
    if kept:
        final = {f"final.{name}": value.numpy() for name, value in model.model.state_dict().items()}
        np.savez(
            request["same_draws"],
            items=model.data_iterator.itemidmap.index.to_numpy(),
            samples=np.stack(kept.pop("samples")),
            **kept,
            **final,
        )
    index = model.data_iterator.itemidmap
    if hasattr(model, "P0"):  # made from a pandas series, whose labels and places are easily confused
        assert np.array_equal(model.P0.numpy(), frame.groupby("ItemId").size()[index.index].to_numpy()), (
            "counts of the wrong items"
        )
    if request["scores"] is None:
        return
    # Query of all sessions side by side, longest first: those that have ended are no longer read.
    sessions = [x.to_numpy() for _, x in frame.groupby("SessionId")["ItemId"]]
    order = sorted(range(len(sessions)), key=lambda i: -len(sessions[i]))
    network = model.model
    states = [torch.zeros(len(sessions), width) for width in model.layers]
    with torch.no_grad():
        for t in range(len(sessions[order[0]])):
            running = [i for i in order if len(sessions[i]) > t]
            hidden = [state[: len(running)] for state in states]
            inputs = torch.tensor(index[[sessions[i][t] for i in running]].to_numpy(), dtype=torch.int64)
            network.hidden_step(network.embed(inputs, hidden)[0], hidden, training=False)
            for state, new in zip(states, hidden):
                state[: len(running)] = new
        scores = network.score_items(states[-1], network.Wy.weight, network.By.weight).numpy()
    by_item = np.empty_like(scores)
    by_item[np.ix_(order, index.index.to_numpy())] = scores
    np.save(request["scores"], by_item)


def keep_draws(module: Any, model: Any, kept: dict[str, Any]) -> None:
    """Has the authors' code leave its initial weights (``initial.NAME``) and its samples, and its loss take
    the number of lanes left."""
    start, draw, loss = (
        module.GRU4RecModel._reset_weights_to_compatibility_mode,
        module.SampleCache.get_sample,
        model.loss_function,
    )
    kept["samples"] = []

    def start_and_keep(network: Any) -> None:
        start(network)
        kept.update(
            {f"initial.{name}": value.clone().numpy() for name, value in network.state_dict().items()}
        )

    def draw_and_keep(cache: Any) -> Any:
        drawn = draw(cache)
        kept["samples"].append(drawn.numpy().astype(np.int32))
        return drawn

    module.GRU4RecModel._reset_weights_to_compatibility_mode = start_and_keep
    module.SampleCache.get_sample = draw_and_keep
    model.loss_function = lambda scores, items, _: loss(scores, items, len(scores))


def same_draws(
    checkout: str, python: str, split: Any, loss: str, epochs: int, seed: int, threads: int
) -> str:
    """Trains both codes from the same weights on the same samples; says how far apart they end."""
    from seqrec.training.negatives import Sampler

    plain = {"momentum": 0.0, "dropout_p_embed": 0.0, "dropout_p_hidden": 0.0}
    settings = {**COMMON, **LOSSES[loss], **plain, "loss": loss, "n_epochs": epochs}
    with tempfile.TemporaryDirectory() as folder:
        draws = f"{folder}/draws.npz"
        theirs = train_authors(
            checkout, python, split, settings, seed, threads, score=True, same_draws=draws
        )["scores"]
        kept = dict(np.load(draws))
    items = np.flatnonzero(split.item_counts)[kept["items"]]  # their numbers -> ours
    width = settings["layers"][-1]
    model = ours_like(loss, settings, epochs, "authors")
    build, draw, stream = model.build, Sampler.draw, iter(torch.from_numpy(items[kept["samples"]]))

    def build_alike(*sizes: int) -> Any:
        network = build(*sizes)
        with torch.no_grad():
            network.items.weight[torch.from_numpy(items), :width] = torch.from_numpy(
                kept["initial.Wy.weight"]
            )
            for name in ("weight_ih", "weight_hh"):
                getattr(network.layers[0], name).copy_(torch.from_numpy(kept[f"initial.G.0.{name}"]))
        return network

    model.build = build_alike
    Sampler.draw = lambda self, shape: next(stream).view(shape)  # type: ignore[method-assign]
    try:
        model.fit(split, stop_after=epochs, progress=False, seed=seed, device="cpu")
    finally:
        Sampler.draw = draw  # type: ignore[method-assign]
    table = model.network.items.weight.detach().numpy()[items]
    apart = max(
        np.abs(table[:, :width] - kept["final.Wy.weight"]).max(),
        np.abs(table[:, width:] - kept["final.By.weight"]).max(),
    )
    largest = np.abs(kept["final.Wy.weight"]).max()
    ours, theirs = measure(scores_of(model, split), split), measure(theirs, split)
    return (
        f"{loss}, same draws: weights of items differ by at most {apart:.1e} (the largest is "
        f"{largest:.2f}). Authors {theirs}. Ours {ours}."
    )


def train_authors(
    checkout: str,
    python: str,
    split: Any,
    settings: dict[str, Any],
    seed: int,
    threads: int,
    score: bool,
    same_draws: str | None = None,
) -> dict[str, Any]:
    """Trains the authors' code on a split.

    Returns:
        seconds: of each epoch, as it prints them.
        positions_per_second: positions of an epoch by the mean of the seconds.
        scores: (users, items) after the training events of each, or None unless ``score``.
    """
    s = split.sequences
    users = np.flatnonzero(split.train_stops - split.train_starts > 1)
    lengths = (split.train_stops - split.train_starts)[users]
    position = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    items = s.items[np.repeat(split.train_starts[users], lengths) + position]
    # item ids from 0 without gaps, as its use of pandas needs them
    trained, number = np.unique(items, return_inverse=True)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(
            f"{folder}/data.npz", session=np.repeat(users, lengths), item=number, time=np.arange(len(number))
        )
        scores = f"{folder}/scores.npy" if score else None
        request = {
            "checkout": checkout,
            "settings": settings,
            "seed": seed,
            "threads": threads,
            "data": f"{folder}/data.npz",
            "scores": scores,
        }
        request["same_draws"] = same_draws
        done = subprocess.run(
            [python, __file__, "--authors-process"], input=json.dumps(request), capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"the authors' code failed:\n{done.stdout}\n{done.stderr}")
        seconds = [float(x) for x in re.findall(r"\(([\d.]+)s\)", done.stdout)]
        result: dict[str, Any] = {
            "seconds": seconds,
            "positions_per_second": split.train_positions / float(np.mean(seconds)),
            "scores": None,
        }
        if scores is not None:
            result["scores"] = np.zeros((s.users, len(s.item_catalogue)), dtype=np.float32)
            result["scores"][np.ix_(users, trained)] = np.load(scores)
    return result


def ours_like(loss: str, settings: dict[str, Any], epochs: int, form: str) -> Any:
    """Our model with the authors' settings. form: "authors", or "default" for our own logQ and mask of
    accidental hits."""
    from seqrec.models.gru4rec import GRU4Rec

    width = settings["layers"][-1]
    negatives = {
        "count": settings["n_sample"],
        "alpha": settings["sample_alpha"],
        "in_batch": True,
        "logq": settings.get("logq", 0.0),
    }
    if form == "authors":
        negatives |= {"logq_form": "counts", "mask_targets": False}
    return GRU4Rec(
        width=width,
        hidden=width,
        steps=1,
        order="start",
        longest=10_000,
        dropout_embedding=settings["dropout_p_embed"],
        dropout_hidden=settings["dropout_p_hidden"],
        loss={"name": "sampled_softmax"}
        if loss == "cross-entropy"
        else {"name": "bpr_max", "regularisation": settings["bpreg"], "elu": settings["elu_param"]},
        negatives=negatives,
        train={
            "optimizer": "adagrad",
            "learning_rate": settings["learning_rate"],
            "momentum": settings["momentum"],
            "schedule": "constant",
            "warmup": 0.0,
            "epochs": epochs,
            "batch_positions": settings["batch_size"],
        },
    )


def scores_of(model: Any, split: Any) -> np.ndarray:
    """(users, items) what our model gives after the training events of each user that is asked about."""
    scores = np.zeros((split.sequences.users, len(split.sequences.item_catalogue)), dtype=np.float32)
    for some in model.score_blocks(split.query(split.validation)):
        for begin, end in some.blocks:
            scores[some.query.users, begin:end] = some.block(begin, end).cpu().numpy()
    return scores


class Given:
    """Given scores of users, as something that evaluation can ask. Items that were never trained on come
    last, in both codes."""

    name = "given scores"

    def __init__(self, scores: np.ndarray, split: Any):
        scores[:, split.item_counts == 0] = scores.min() - 1
        self.scores = torch.from_numpy(scores)

    def numbering(self) -> dict[str, None]:
        return {}

    def score_blocks(self, query: Any, rows: int = 512) -> Any:
        from seqrec.scoring import Scores

        for begin in range(0, len(query), rows):
            some = np.arange(begin, min(begin + rows, len(query)))
            asked = query.select(some)
            yield Scores.whole(some, asked, self.scores[asked.users.astype(np.int64)])


def measure(scores: np.ndarray, split: Any) -> dict[str, float]:
    """Validation metrics with the seen filter and (``..., unfiltered``) without."""
    from seqrec.evaluation import metrics, ranking

    ranks = ranking.rank(Given(scores, split), split, split.validation, lists=False)
    found = {}
    for metric in METRICS:
        function, k = metrics.parse(metric)
        found[metric] = float(function(ranks.filtered, k).mean())
        found[f"{metric}, unfiltered"] = float(function(ranks.unfiltered, k).mean())
    return found


def load(data_dir: str | None, users: int | None) -> Any:
    """The protocol's split; of the first ``users`` users only, for a quick look. Times are left out:
    positions order events in both codes."""
    from seqrec.experiment.protocol import of_users, read_protocol, read_sequences

    protocol = read_protocol(PROTOCOL)
    sequences, _ = read_sequences(protocol.data, protocol.ties, data_dir)
    protocol.apply(sequences)  # checks its hash
    sequences = replace(sequences, times=None, ratings=None)
    if users is not None:
        sequences = of_users(sequences, np.arange(users))
    return protocol.split.apply(sequences)


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error over seeds."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(
        values
    ) > 1 else math.nan


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown: a row a loss and metric, then the speeds."""
    lines = [
        "| loss | metric | code | ours | difference | in standard errors | authors |",
        "|---|---|---|---|---|---|---|",
    ]
    for loss in LOSSES:
        of = {
            code: [r for r in runs if r["loss"] == loss and r["code"] == code]
            for code in ("authors", "ours", "ours, default form")
        }
        for code in ("ours", "ours, default form"):
            if not of["authors"] or not of[code]:
                continue
            for metric in [*of["authors"][0]["metrics"], "positions/s"]:
                theirs, ours = (
                    [r["metrics"].get(metric, r["positions_per_second"]) for r in of[c]]
                    for c in ("authors", code)
                )
                (a, a_error), (b, b_error) = mean_and_error(theirs), mean_and_error(ours)
                if metric == "positions/s":
                    lines.append(
                        f"| {loss} | {metric} | {code} | {b:,.0f} | {b / a:.2f} times | | {a:,.0f} |"
                    )
                else:
                    error = math.hypot(a_error, b_error)
                    cells = (
                        f"{b:.4f} ± {b_error:.4f} | {b - a:+.4f} | {(b - a) / error:+.1f} | {a:.4f} ± "
                        f"{a_error:.4f}"
                    )
                    lines.append(f"| {loss} | {metric} | {code} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", help="folder with the authors' gru4rec_pytorch.py")
    parser.add_argument("python", help="Python with torch, pandas<3 and numpy<2 for it")
    parser.add_argument("--data-dir", help="folder of the data sets")
    parser.add_argument("--losses", nargs="+", default=list(LOSSES), choices=list(LOSSES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--users", type=int, help="only the first so many users, for a quick look")
    parser.add_argument(
        "--default-form", action="store_true", help="also our own form of logQ, with accidental hits masked"
    )
    parser.add_argument(
        "--codes", nargs="+", default=["authors", "ours"], choices=["authors", "ours"], help="which to train"
    )
    parser.add_argument(
        "--same-draws",
        action="store_true",
        help="compare the weights of one training each with nothing random left",
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--json", type=Path, default=Path("fidelity.json"), help="results; runs found there are kept"
    )
    parser.add_argument("--markdown", type=Path)
    a = parser.parse_args()

    from seqrec import storage
    from seqrec.benchmark import provenance

    torch.set_num_threads(a.threads)
    split = load(a.data_dir, a.users)
    if a.same_draws:
        for loss in a.losses:
            print(same_draws(a.checkout, a.python, split, loss, a.epochs, a.seeds[0], a.threads), flush=True)
        return
    about = {
        "protocol": PROTOCOL,
        "split_hash": split.hash,
        "epochs": a.epochs,
        "common": COMMON,
        "losses": LOSSES,
        "threads": a.threads,
        "commit": provenance.commit(),
        "hardware": provenance.hardware(),
        "libraries": provenance.libraries(),
    }
    old = storage.read_json(a.json) if storage.exists(a.json) else {"runs": []}
    same = all(old.get(key) == about[key] for key in ("split_hash", "epochs", "common", "losses", "threads"))
    runs: list[dict[str, Any]] = old["runs"] if same else []
    codes = [*a.codes, *(["ours, default form"] if a.default_form else [])]
    for seed in a.seeds:
        for loss in a.losses:
            settings = {**COMMON, **LOSSES[loss], "loss": loss, "n_epochs": a.epochs}
            for code in codes:
                if any((r["seed"], r["loss"], r["code"]) == (seed, loss, code) for r in runs):
                    continue
                begin = time.perf_counter()
                if code == "authors":
                    trained = train_authors(
                        a.checkout, a.python, split, settings, seed, a.threads, score=True
                    )
                    scores, speed = trained["scores"], trained["positions_per_second"]
                else:
                    model = ours_like(loss, settings, a.epochs, "authors" if code == "ours" else "default")
                    model.fit(split, stop_after=a.epochs, progress=False, seed=seed, device="cpu")
                    scores, speed = scores_of(model, split), model.fit_report.positions_per_second
                seconds = time.perf_counter() - begin
                result = {
                    "metrics": measure(scores, split),
                    "positions_per_second": speed,
                    "seconds": seconds,
                }
                runs.append({"loss": loss, "code": code, "seed": seed, **result})
                print(
                    f"{loss}, {code}, seed {seed}: {runs[-1]['metrics']}, {speed:,.0f} positions/s, "
                    f"{seconds:.0f} s",
                    flush=True,
                )
                storage.write_json({**about, "runs": runs}, a.json)
    print(table(runs))
    if a.markdown:
        text = (
            f"{PROTOCOL}, validation, {a.epochs} epochs, seeds {a.seeds}, {a.threads} threads, "
            f"{about['hardware']}, {about['commit'][:10]}.\n\n"
        )
        storage.write_text(text + table(runs) + "\n", a.markdown)


if __name__ == "__main__":
    if sys.argv[1:] == ["--authors-process"]:
        authors_process(json.loads(sys.stdin.read()))
    else:
        main()
