"""Makes the samples of a version, with the code of that version:

    PYTHONPATH=CHECKOUT/src python tests/older/make.py tests/older/VERSION-COMMIT

A later version needs changes here where its settings have other names.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

import seqrec
from seqrec.testing import markov_chain

USERS, LISTS = [100, 103], [["i1", "i2"], ["i5"]]
SMALL = {"epochs": 3, "batch_positions": 64, "device": "cpu"}
PROTOCOL = (
    "{name: older-v1, title: Made up, data: {name: log.csv, revision: one}, split: {name: leave_one_out}}"
)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "seqrec", *arguments]


def recommended(folder: Path) -> dict[str, list]:
    """What a saved model recommends to two of its users, and after two histories."""
    model = seqrec.load(folder)
    return {
        "users": model.recommend(users=USERS, k=4).to_dicts(),
        "lists": model.recommend(LISTS, k=4).to_dicts(),
    }


def write_data(folder: Path) -> None:
    sequences = markov_chain(users=30, length=8, items=12)
    users = sequences.user_catalogue.decode([u for u in range(30) for _ in range(8)])
    times = [1_000_000_000 + 60 * n for n in range(240)]
    log = pl.DataFrame(
        {"user_id": users, "item_id": sequences.item_catalogue.decode(sequences.items), "timestamp": times}
    )
    log.write_csv(folder / "log.csv")
    catalogue = sequences.item_catalogue
    catalogue.attributes.insert_column(0, catalogue.ids.alias("item_id")).write_csv(folder / "items.csv")
    (folder / "run.yaml").write_text(
        json.dumps(
            {
                "data": {"path": "log.csv"},
                "model": {"name": "gru4rec", "width": 8, "hidden": 8},
                "train": SMALL,
                "output": {"folder": "run"},
            },
            indent=1,
        )
    )
    (folder / "own.yaml").write_text(PROTOCOL)


def interrupt(folder: Path) -> None:
    """``interrupted/checkpoint.safetensors``: of a training that was killed before its end."""
    longer = ["train.epochs=12", "train.patience=12", "output.folder=interrupted"]
    checkpoint = folder / "interrupted" / "checkpoint.safetensors"
    with subprocess.Popen(command("train", "--conf", "run.yaml", *longer), cwd=folder) as training:
        while not checkpoint.exists():
            time.sleep(0.001)
        training.kill()
    kept = checkpoint.read_bytes()
    subprocess.run(command("train", "--conf", "run.yaml", *longer), cwd=folder, check=True)
    expected = recommended(folder / "interrupted" / "model")
    shutil.rmtree(checkpoint.parent)
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(kept)
    (checkpoint.parent / "recommended.json").write_text(json.dumps(expected, indent=1))


def make(folder: Path) -> None:
    write_data(folder)
    prepare = ["prepare", "--conf", "run.yaml", "prepared", "data.items=items.csv"]
    subprocess.run(command(*prepare), cwd=folder, check=True)
    subprocess.run(command("train", "--conf", "run.yaml"), cwd=folder, check=True)
    benchmark = ["benchmark", "own.yaml", "--models", "popularity", "--seeds", "1", "--data-dir", "."]
    subprocess.run(command(*benchmark, "--results", "results"), cwd=folder, check=True)
    interrupt(folder)
    sequences = seqrec.Sequences.load(folder / "prepared")
    schema = {"sequence": ["item_id", "kind"], "item": ["item_id", "tags"]}
    sasrec = seqrec.SASRec(width=8, blocks=1, heads=1, length=8, train=SMALL, features=schema)
    for model in (sasrec, seqrec.ItemKNN()):
        model.fit(sequences).save(folder / model.name)
    for name in ("run/model", "sasrec", "item_knn"):
        (folder / name / "recommended.json").write_text(json.dumps(recommended(folder / name), indent=1))
    about = {
        "items": sequences.items.tolist(),
        "offsets": sequences.offsets.tolist(),
        "times": sequences.times.tolist(),
        "item_ids": sequences.item_catalogue.ids.to_list(),
        "attributes": sequences.item_catalogue.attributes.to_dict(as_series=False),
        "user_ids": sequences.user_catalogue.ids.to_list(),
    }
    (folder / "prepared.json").write_text(json.dumps(about))
    run = folder / "run" / "run.json"  # which has the path of the log on the machine where it was trained
    run.write_text(run.read_text().replace(str(folder), "/data"))
    (folder / "run" / "checkpoint.safetensors").unlink()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch).resolve() / "samples"
        made.mkdir()
        make(made)
        shutil.copytree(made, sys.argv[1])
