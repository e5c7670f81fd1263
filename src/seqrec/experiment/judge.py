"""The judge, who alone asks test queries: of models, and of other libraries' lists."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from seqrec import models, storage
from seqrec.errors import SettingsError
from seqrec.evaluation import comparison, lists, metrics, ranking
from seqrec.experiment import protocol as protocols
from seqrec.experiment.data import read_split
from seqrec.experiment.settings import DataSettings, RunSettings, upgraded
from seqrec.models.model import Model
from seqrec.splitting import Split
from seqrec.tables import Table

log = logging.getLogger("seqrec")


@dataclass(frozen=True)
class Tested:
    """What a test found.

    Attributes:
        intervals: every metric at every cut-off, with its 95% interval over users.
    """

    title: str
    intervals: dict[str, dict[str, float]]
    ranks: ranking.Ranks
    split: Split
    filter_seen: bool

    def table(self, names: Iterable[str] | None = None) -> Table:
        """The metrics of these names; all if none is named."""
        return Table(
            self.title,
            ["metric", "value"],
            [{"metric": name, "value": self.intervals[name]} for name in names or self.intervals],
        )

    def write_topk(self, path: str) -> None:
        """Writes the 20 best items of each test query."""
        lists.write(self.ranks, self.split, path, self.filter_seen)


def test(model: Model, split: Split, names: Iterable[str], filter_seen: bool) -> Tested:
    """Asks a trained model the test queries of a split.

    Args:
        names: metrics that must be among those computed.
    """
    ranks = ranking.rank(model, split, split.test)
    cutoffs = tuple(sorted({*metrics.CUTOFFS, *(metrics.parse(name)[1] for name in names)}))
    values = ranks.metrics(filter_seen, cutoffs)
    intervals = comparison.intervals(comparison.by_user(values, ranks.users))
    shown = "seen items filtered" if filter_seen else "seen items not filtered"
    return Tested(
        f"{model.name}: test metrics of {len(split.test):,} queries, {shown}",
        intervals,
        ranks,
        split,
        filter_seen,
    )


def evaluate(
    folder: str,
    topk_path: str | None = None,
    data_folder: str | None = None,
    filter_seen: bool | None = None,
    data_path: str | None = None,
) -> Table:
    """Tests the model of a run's output folder again, on the data and split of its run.json.

    Args:
        topk_path: also write the 20 best items of each test query.
        data_folder: where the data set is now, if not where it was.
        filter_seen: replaces what the run says.
        data_path: where the log is now, if not where it was.
    """
    path = storage.join(folder, "run.json")
    if topk_path is not None:
        storage.check_file(topk_path, lists.SUFFIXES)
    if not storage.exists(path):
        raise SettingsError(
            f"{folder}: expected the output folder of `seqrec train` (with a run.json). Train with "
            "--output first."
        )
    content = upgraded(storage.read_json(path))
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
    model = models.load(storage.join(folder, "model"))
    split, _, filters = read_split(run)
    if model.provenance.get("split_hash") != split.hash:
        trained_on = model.provenance.get("split_hash")
        raise SettingsError(
            f"{folder}: its model was trained on the split {trained_on}; the data gives {split.hash} now. "
            "Train again: the data has changed."
        )
    tested = test(model, split, run.evaluate.metrics, filters if filter_seen is None else filter_seen)
    if topk_path is not None:
        tested.write_topk(topk_path)
    return tested.table(run.evaluate.metrics)


def judge(
    topk_path: str, protocol_name: str, data_folder: str | None = None, filter_seen: bool | None = None
) -> Table:
    """Metrics of a top-k file, whoever made it, on the test queries of a protocol."""
    run = RunSettings(
        protocol=protocol_name, data=DataSettings(folder=data_folder), model={"name": "popularity"}
    )
    split, _, filters = read_split(run)
    if protocols.load_protocol(protocol_name).retrain:
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
