"""The judge, who alone asks test queries: of models, and of other libraries' lists."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from seqrec import models, processes, storage
from seqrec.errors import SettingsError
from seqrec.evaluation import comparison, lists, metrics
from seqrec.evaluation import evaluation as asking
from seqrec.evaluation.evaluation import Evaluation
from seqrec.experiment import protocol as protocols
from seqrec.experiment.data import read_split
from seqrec.experiment.settings import DataSettings, RunSettings, read_run
from seqrec.models.model import Model
from seqrec.splitting import Split
from seqrec.tables import Table

log = logging.getLogger("seqrec")


def ask(
    model: Model,
    split: Split,
    names: Iterable[str],
    filter_seen: bool,
    *,
    cutoffs: Iterable[int] = metrics.CUTOFFS,
    variant: Split | None = None,
) -> Evaluation:
    """Asks a trained model the test queries of a split.

    Args:
        split: what it was trained on, which says what is cold.
        names: metrics that must be among those computed.
        cutoffs: of the metrics that always are.
        variant: whose test queries are asked instead.
    """
    queries = (split if variant is None else variant).test
    return asking.evaluate(model, split, queries, names, filter_seen, cutoffs=cutoffs, lists=variant is None)


def evaluate(
    folder: str,
    topk_path: str | None = None,
    data_folder: str | None = None,
    filter_seen: bool | None = None,
    data_path: str | None = None,
) -> Table:
    """Tests the model of a run's output folder again, on the data and split of its run.json. Processes that
    torchrun starts rank a share of the queries each.

    Args:
        topk_path: also write the 20 best items of each test query.
        data_folder: where the data set is now, if not where it was.
        filter_seen: replaces what the run says.
        data_path: where the log is now, if not where it was.

    Raises:
        SettingsError: not the output folder of a run, a log for a run that has none, or data that has changed
            since.
    """
    if topk_path is not None:
        storage.check_file(topk_path, lists.SUFFIXES)
    with processes.joined():
        _, split, tested = again(folder, data_folder, filter_seen, data_path)
        if topk_path is not None and processes.first():
            lists.write(tested.ranks, split, topk_path, tested.filter_seen)
    return tested.table(RunSettings.of(read_run(folder), "").evaluate.metrics)


def again(
    folder: str,
    data_folder: str | None = None,
    filter_seen: bool | None = None,
    data_path: str | None = None,
) -> tuple[Model, Split, Evaluation]:
    """The model of a run's output folder, the split that it was trained on, and its test; as ``evaluate``.

    Raises:
        SettingsError: as ``evaluate``.
    """
    content = read_run(folder)
    if data_folder is not None:
        content.setdefault("data", {})["folder"] = data_folder
    if data_path is not None:
        if "path" not in content.get("data", {}):
            raise SettingsError(
                f"--data: {folder} is a run on a known data set or a protocol, not on a log. "
                "Give the folder of its files with --data-dir."
            )
        content["data"]["path"] = data_path
    run = RunSettings.of(content, "")
    model = models.load_model(storage.join(folder, "model"))
    split, _, filters = read_split(run)
    trained_on = model.provenance.get("split_hash")
    if trained_on != split.hash and split.retrain_stops is not None and trained_on == split.retrain().hash:
        split = split.retrain()
    if trained_on != split.hash:
        raise SettingsError(
            f"{folder}: its model was trained on the split {trained_on}; the data gives {split.hash} now. "
            "Train again: the data has changed."
        )
    filters = filters if filter_seen is None else filter_seen
    return model, split, ask(model, split, run.evaluate.metrics, filters)


def judge(
    topk_path: str, protocol_name: str, data_folder: str | None = None, filter_seen: bool | None = None
) -> Table:
    """Metrics of a top-k file, whoever made it, on the test queries of a protocol."""
    run = RunSettings(
        protocol=protocol_name, data=DataSettings(folder=data_folder), model={"name": "popularity"}
    )
    split, _, filters = read_split(run)
    if protocols.read_protocol(protocol_name).retrain:
        split = split.retrain()  # what is cold is decided as for the models that train here
    filters = filters if filter_seen is None else filter_seen
    scored = lists.score(topk_path, split, filters)
    intervals = comparison.intervals(comparison.by_user(scored.metrics(), scored.users))
    rows = [{"metric": name, "value": value} for name, value in intervals.items()]
    notes = [
        f"{scored.without_list:,} of {len(scored.ranks):,} queries have no list and count as misses.",
        f"Rows ignored: {scored.unknown_users:,} of users without a query. Items not in the "
        f"catalogue: {scored.unknown_items:,}.",
    ]
    return Table(f"{topk_path} under {protocol_name}", ["metric", "value"], rows, notes=notes)
