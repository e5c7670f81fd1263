"""What queries say of a model: metrics, and how sure they are."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from seqrec.errors import DataError
from seqrec.evaluation import comparison, metrics, ranking
from seqrec.evaluation.ranking import Ranks
from seqrec.scoring import Scorer
from seqrec.splitting.split import Queries, Split
from seqrec.tables import Table

Intervals = dict[str, dict[str, float]]
"""``{"ndcg@10": {"mean": 0.17, "low": 0.165, "high": 0.175}, ...}``: 95% intervals over users."""


@dataclass(frozen=True)
class Evaluation:
    """What was found. ``evaluation["ndcg@10"]`` is the value of a metric.

    Attributes:
        title: of the table.
        metrics: every metric that was asked for, or all at the usual cut-offs, with its interval.
        ranks: of each query.
        filter_seen: whether the metrics leave out what a user has seen.
        seconds: wall clock of the ranking.
        apart: of queries with several right answers, the same metrics with only the answers that the history
            has (``repeat``), and with only the others (``explore``), as far as there are any; else empty.
    """

    title: str
    metrics: Intervals
    ranks: Ranks
    filter_seen: bool
    seconds: float
    apart: dict[str, Intervals] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        return self.metrics[name]["mean"]

    def of(self, names: Iterable[str]) -> Evaluation:
        """The same with these metrics alone."""
        names = list(names)
        apart = {part: {name: found[name] for name in names} for part, found in self.apart.items()}
        return replace(self, metrics={name: self.metrics[name] for name in names}, apart=apart)

    def table(self, names: Iterable[str] | None = None) -> Table:
        """The metrics of these names; all if none is named. Where there are several right answers, also of
        those that repeat and those that explore."""
        names = list(names or self.metrics)
        rows = [{"metric": name, "value": self.metrics[name]} for name in names]
        for part, found in self.apart.items():
            rows += [{"metric": f"{name} {part}", "value": found[name]} for name in names]
        return Table(self.title, ["metric", "value"], rows)


def measure(
    ranks: Ranks, filter_seen: bool, cutoffs: Iterable[int] = metrics.CUTOFFS, names: Iterable[str] = ()
) -> Intervals:
    """All metrics at these cut-offs, and those of these names, with intervals over users."""
    values = ranks.metrics(filter_seen, tuple(cutoffs), names)
    return comparison.intervals(comparison.by_user(values, ranks.users))


def evaluate(
    scorer: Scorer,
    split: Split,
    queries: Queries,
    names: Iterable[str] = (),
    filter_seen: bool = True,
    *,
    cutoffs: Iterable[int] = metrics.CUTOFFS,
    role: str = "test",
    lists: bool = True,
) -> Evaluation:
    """Asks the queries of a split.

    Args:
        names: metrics that must be among those computed.
        cutoffs: of the metrics that always are.
        role: of the queries, for what is shown.
        lists: also keep the best 20 items of each query.

    Raises:
        SettingsError: ``auc`` of queries with several right answers.
        DataError: there are no queries; or the split's ids are not those that the scorer was trained on.
    """
    if not len(queries):
        raise DataError(
            f"split {split.settings.get('name')!r}: expected at least one {role} query. Got none. Take a "
            "split that holds events out, such as leave_one_out."
        )
    names = list(names)
    at = sorted({*cutoffs, *(metrics.parse(name)[1] for name in names if name != metrics.AUC)})
    begin = time.perf_counter()
    ranks = ranking.rank(scorer, split, queries, lists)
    seconds = time.perf_counter() - begin
    shown = "seen items filtered" if filter_seen else "seen items not filtered"
    title = f"{scorer.name}: {role} metrics of {len(queries):,} queries, {shown}"
    parts = {} if ranks.offsets is None else ranks.apart()
    apart = {name: measure(part, filter_seen, at, names) for name, part in parts.items() if len(part.users)}
    return Evaluation(title, measure(ranks, filter_seen, at, names), ranks, filter_seen, seconds, apart)
