"""Speed and memory on MovieLens-1M (ml-1m-leave-one-out-v1), every training speed with its share of the
matrix-multiply limit.

    python benchmarks/speed.py --data-dir DATA [--authors CHECKOUT PYTHON] [--only gru4rec sasrec ...]
    [--write speed.md]

    session-parallel   GRU4Rec, 128 units, 128 lanes, 2,048 samples at alpha .5, logQ; beside its authors'
                       code (see fidelity_gru4rec.py) if given: both in turns, since a shared machine
                       changes its speed by the minute
    gru4rec            GRU4Rec, 64-wide items, 128 units, full softmax, whole histories
    sasrec             SASRec, 2 blocks of 64, length 200, full softmax
    evaluate           ranking the catalogue for 6,040 users with that SASRec, encoder included, all metrics
    recommend          that SASRec, one new history of 50 raw ids -> top 10, in process
    memory             one process from the log to the test metrics of that SASRec (one epoch)

Speeds are targets in the loss a second, padding not counted, mean over an epoch, validation not included. The
limit is the float32 speed of large matrix multiplies, measured here, over the multiplications of a position,
forward and backward (three times forward).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

PROTOCOL = "ml-1m-leave-one-out-v1"
SASREC: dict[str, Any] = {
    "width": 64,
    "blocks": 2,
    "heads": 1,
    "length": 200,
    "train": {"epochs": 2, "batch_positions": 2048},
}
GRU4REC: dict[str, Any] = {
    "width": 64,
    "hidden": 128,
    "item_bias": False,
    "steps": 16,
    "train": {"epochs": 2, "batch_positions": 2048},
}
EVERYTHING = ("session-parallel", "gru4rec", "sasrec", "evaluate", "recommend", "memory")


def multiply_limit(size: int = 2048, repeats: int = 10) -> float:
    """FLOP/s of a large float32 matrix multiply here, the best of some."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    out = torch.empty(size, size)
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        torch.mm(a, b, out=out)
        seconds.append(time.perf_counter() - begin)
    return 2 * size**3 / min(seconds)


def gru_flops(inputs: int, hidden: int, width: int, items: float) -> float:
    """Multiplications and additions of one position: gates, projection, scores; forward and backward."""
    return (
        3 * 2 * (3 * hidden * (inputs + hidden) + (hidden * width if hidden != width else 0) + width * items)
    )


def sasrec_flops(width: int, blocks: int, attended: float, items: int) -> float:
    """The same for SASRec with feed-forward layers as wide as the states; ``attended``: mean number of inputs
    that a position sees."""
    return 3 * 2 * (blocks * (6 * width**2 + 2 * width * attended) + width * items)


def split_of(data_dir: str | None) -> Any:
    from seqrec.experiment.protocol import read_protocol, read_sequences

    protocol = read_protocol(PROTOCOL)
    return protocol.apply(read_sequences(protocol.data, protocol.ties, data_dir)[0])


def epoch_speed(model: Any, split: Any, epochs: int = 2) -> float:
    """Positions a second of the last of some epochs (the first one warms up)."""
    model.fit(split, stop_after=epochs, progress=False)
    return model.fit_report.curve[-1]["positions_per_second"]


def session_parallel(split: Any, authors: list[str] | None, rounds: int) -> tuple[float, float, str]:
    """(our speed, FLOP of a position, the authors' speed and how they compare): medians over the epochs of
    all rounds, two epochs each a round."""
    import fidelity_gru4rec as fidelity

    settings = {**fidelity.COMMON, **fidelity.LOSSES["cross-entropy"], "loss": "cross-entropy", "n_epochs": 2}
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        if authors:
            seconds = fidelity.train_authors(
                authors[0], authors[1], split, settings, 0, torch.get_num_threads(), score=False
            )["seconds"]
            theirs += [split.train_positions / x for x in seconds]
        model = fidelity.ours_like("cross-entropy", settings, 2, "authors").fit(
            split, stop_after=2, progress=False, device="cpu"
        )
        ours += [point["positions_per_second"] for point in model.fit_report.curve]
    reference = ""
    if theirs:
        of_rounds = [sum(ours[i : i + 2]) / sum(theirs[i : i + 2]) for i in range(0, len(ours), 2)]
        ratio = np.median(ours) / np.median(theirs)
        reference = (
            f"authors' code {np.median(theirs):,.0f}: {ratio:.2f} times ({min(of_rounds):.2f} to "
            f"{max(of_rounds):.2f} in {rounds} rounds)"
        )
    return float(np.median(ours)), gru_flops(128, 128, 128, 128 + 2048), reference


def timings(split: Any) -> tuple[float, float]:
    """(seconds to evaluate all test queries, milliseconds to recommend for one history), medians, with an
    untrained SASRec."""
    from seqrec.evaluation import metrics, ranking
    from seqrec.models.sasrec import SASRec

    model = SASRec(**SASREC).fit(split, stop_after=1, progress=False)
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        metrics.from_ranks(ranking.rank(model, split, split.test).filtered)
        seconds.append(time.perf_counter() - begin)
    raw = [
        split.sequences.item_catalogue.decode(split.sequences.of(user)[:50]).to_list()
        for user in range(200)
        if len(split.sequences.of(user)) >= 50
    ]
    milliseconds = []
    for history in raw[:20] + raw:
        begin = time.perf_counter()
        model.recommend([history], k=10)
        milliseconds.append(1000 * (time.perf_counter() - begin))
    return float(np.median(seconds)), float(np.median(milliseconds[20:]))


def memory(data_dir: str | None) -> float:
    """MiB at the peak of a process that goes from the log to the test metrics."""
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import speed
from seqrec.evaluation import metrics, ranking
from seqrec.benchmark import provenance
from seqrec.models.sasrec import SASRec
split = speed.split_of({data_dir!r})
model = SASRec(**{{**speed.SASREC, "train": {{**speed.SASREC["train"], "epochs": 1}}}})
model.fit(split, progress=False)
metrics.from_ranks(ranking.rank(model, split, split.test).filtered)
print(provenance.peak_memory_mb())
"""
    return float(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="folder of the data sets")
    parser.add_argument(
        "--authors",
        nargs=2,
        metavar=("CHECKOUT", "PYTHON"),
        help="GRU4Rec's authors' code, and a Python that can run it",
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of the authors' code and ours")
    parser.add_argument("--only", nargs="+", choices=EVERYTHING, default=list(EVERYTHING))
    parser.add_argument("--write", help="also write the table (.md, .csv or .json)")
    a = parser.parse_args()

    from seqrec.benchmark import provenance
    from seqrec.models.gru4rec import GRU4Rec
    from seqrec.models.sasrec import SASRec
    from seqrec.tables import Table

    split = split_of(a.data_dir)
    items = len(split.sequences.item_catalogue)
    limit = multiply_limit()
    rows: list[dict[str, Any]] = [
        {"what": "large float32 matrix multiply", "value": limit / 1e9, "unit": "GFLOP/s"}
    ]

    def add(what: str, value: float, unit: str, flops: float | None = None, reference: str = "") -> None:
        share = f"{value * flops / limit:.0%}" if flops else None
        rows.append(
            {"what": what, "value": value, "unit": unit, "share of the limit": share, "reference": reference}
        )
        print(f"{what}: {value:,.2f} {unit} {share or ''} {reference}", file=sys.stderr, flush=True)

    if "session-parallel" in a.only:
        ours, flops, reference = session_parallel(split, a.authors, a.rounds)
        add(
            "train GRU4Rec, session-parallel, 128 units, 2,048 samples", ours, "positions/s", flops, reference
        )
    if "gru4rec" in a.only:
        add(
            "train GRU4Rec, 64 wide, 128 units, full softmax",
            epoch_speed(GRU4Rec(**GRU4REC), split),
            "positions/s",
            gru_flops(64, 128, 64, items),
        )
    if "sasrec" in a.only:
        lengths = np.maximum(split.train_stops - split.train_starts - 1, 0)
        whole, rest = lengths // 200, lengths % 200
        attended = float((whole * 200 * 201 / 2 + rest * (rest + 1) / 2).sum() / lengths.sum())
        add(
            "train SASRec, 2 blocks of 64, length 200, full softmax",
            epoch_speed(SASRec(**SASREC), split),
            "positions/s",
            sasrec_flops(64, 2, attended, items),
        )
    if "evaluate" in a.only or "recommend" in a.only:
        seconds, milliseconds = timings(split)
        add(f"evaluate {len(split.test):,} users, that SASRec, all metrics", seconds, "s")
        add("recommend for one new history of 50 items, top 10, median", milliseconds, "ms")
    if "memory" in a.only:
        add("peak memory from the log to test metrics, that SASRec", memory(a.data_dir), "MiB")
    formats: dict[str, Any] = {"value": lambda v: f"{v:,.0f}" if v >= 100 else f"{v:.2f}"}
    notes = [
        f"{PROTOCOL}, {provenance.hardware()}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, commit {provenance.commit()}."
    ]
    table = Table(
        "Speed and memory", ["what", "value", "unit", "share of the limit", "reference"], rows, notes, formats
    )
    table.print()
    if a.write:
        table.write(a.write)


if __name__ == "__main__":
    main()
