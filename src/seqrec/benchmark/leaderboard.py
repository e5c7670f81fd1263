"""The leaderboard: one Markdown page, generated from the result files alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from seqrec import storage
from seqrec.benchmark.results import Group, Result, Row, collect, groups
from seqrec.errors import DataError
from seqrec.evaluation.comparison import RESAMPLES
from seqrec.experiment.protocol import read_protocol
from seqrec.tables import Table, fraction

HEADER = """# Leaderboard

Generated from the files in `results/` by `seqrec benchmark`; do not edit it. Each table belongs to one
version of one protocol; do not compare numbers across tables.

- Every query ranks the whole catalogue; among equal scores a target gets the worst rank.
- Numbers are means over seeds, with a 95% interval from {resamples:,} bootstrap resamples of users. ± is the
  standard deviation over seeds.
- *vs best*: paired randomisation test on users' values of the first metric against the best row, corrected
  for all pairs of rows (max-T, since the same data show which row is best); ≈ means not significantly worse
  (p ≥ .05).
- Intervals and p values are over users, of the seeds that were run (a user's value is the mean over them).
  They leave out how other seeds would come out, of which ± is the only sign.
- *train s*: wall-clock time of training, validation included. *peak MB*: largest resident memory of one
  process from the log to the test metrics, in MiB. *positions/s*: targets in the loss per second, mean over
  epochs.
"""

KEY = [
    "- Numbers are means over seeds, with 95% intervals over users in brackets. ± is the standard "
    "deviation over seeds of the first metric (– with one seed).",
    "- vs best: p of a paired randomisation test against the best row; ≈ means not significantly worse "
    "(p ≥ .05). It and the intervals take the seeds that were run as they are: they leave out how others "
    "would come out.",
]
"""What a table on the console does not explain itself; the page says it at its top."""


def row_of(row: Row, group: Group) -> dict[str, Any]:
    """The cells of one model."""
    main, other = row.intervals(group.headline), row.values(not group.filter_seen)
    test = group.compared[row.model]
    cells: dict[str, Any] = {
        "model": row.model,
        "seeds": len(row.seeds),
        **{name: main[name] for name in group.headline},
    }
    cells["±"] = row.spread(group.headline[0])
    cells["vs best"] = (
        "best"
        if test.model == next(iter(group.compared))
        else f"≈ (p {p_value(test.p)})"
        if test.like_best
        else p_value(test.p)
    )
    for name in group.headline[:2]:
        cells[beside(name, group.filter_seen)] = other.mean(name)
    for part in ("repeat", "explore"):
        if all(run.get(f"metrics_{part}") for run in group.runs):
            for name in group.headline[:2]:
                means = [run[f"metrics_{part}"][name]["mean"] for run in row.runs]
                cells[f"{name} {part}"] = sum(means) / len(means)
    for variant in group.variants:
        values = row.intervals(group.headline[:2], variant=variant)
        cells |= {f"{name} {variant}": values[name] for name in group.headline[:2]}
    return cells | {
        "train s": row.mean("train_seconds"),
        "peak MB": row.mean("peak_memory_mb"),
        "positions/s": row.mean("positions_per_second"),
        "ties": most_ties(row.runs, group.filter_seen),
    }


def most_ties(runs: Iterable[Result], filter_seen: bool) -> int | None:
    """The most ties of any run under the headline's filter; None if a run has not counted them.

    Older result files have counted filtered ties only.
    """
    counts = [run.get("ties" if filter_seen else "ties_unfiltered") for run in runs]
    return None if None in counts else max(counts)


def beside(name: str, filter_seen: bool) -> str:
    """The column of a metric under the other filter than the headline's."""
    return f"{name} {'unfiltered' if filter_seen else 'filtered'}"


def plain(text: str) -> str:
    """Text of a file without HTML of its own."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)


def seconds(s: float) -> str:
    """Seconds as the table shows them."""
    return "< 0.1" if s < 0.1 else f"{s:,.1f}" if s < 10 else f"{s:,.0f}"


def p_value(p: float) -> str:
    """A p value as the table shows it."""
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def table_of(group: Group) -> Table:
    """One protocol's table."""
    rows = [row_of(row, group) for row in group.rows]
    formats: dict[str, Any] = {beside(name, group.filter_seen): fraction for name in group.headline} | {
        "±": fraction
    }
    formats |= {f"{name} {part}": fraction for name in group.headline for part in ("repeat", "explore")}
    formats |= {"train s": seconds} | dict.fromkeys(("peak MB", "positions/s"), lambda n: f"{n:,.0f}")
    return Table(group.title, list(rows[0]), rows, notes=facts(group), formats=formats)


def facts(group: Group) -> list[str]:
    """What else a reader must know: candidates, queries, split, machine, code, data."""
    first = group.runs[0]
    ties = most_ties(group.runs, group.filter_seen)
    in_all = {
        None: " – means that they were not counted.",
        0: " There are none: lists written as top-k files score the same.",
    }
    lines = [
        f"{first['items']:,} candidates, {first['users']:,} users, {first.get('queries', 0):,} test "
        f"queries, split `{first['split_hash']}`; "
        f"seen items are {'filtered' if group.filter_seen else 'not filtered'}.",
        "*ties*: queries in which a score equal to the target's reaches the first 20 (most of any seed)."
        + in_all.get(ties, ""),
    ]
    if first.get("cold_targets"):
        rule = " and count as misses" if first.get("cold_targets_miss") else ""
        lines.append(f"{first['cold_targets']:.1%} of the targets were never seen in training{rule}.")
    if first.get("metrics_repeat") or first.get("metrics_explore"):
        lines.append(
            "*repeat*, *explore*: the same lists, but only the targets that the user has had before count, "
            "or only the others; over the queries that have any."
        )
    for variant in group.variants:
        cold = first.get(f"cold_targets_{variant}") or 0.0
        lines.append(
            f"*{variant}*: {first.get(f'queries_{variant}', 0):,} queries, {cold:.1%} of them never "
            "seen in training."
        )
    again = sorted({run["model"] for run in group.runs if run.get("retrained")})
    if again:
        whole = len(again) == len({run["model"] for run in group.runs})
        who = "each model was" if whole else f"only {', '.join(again)} {'were' if again[1:] else 'was'}"
        lines.append(
            f"After selection {who} trained again on training and validation events, for the chosen number "
            "of epochs."
        )
    data = [
        f"{d['name']}, {d['revision']}, from {without_folders(d['source'])}"
        for d in group.all_of("data")
        if d
    ]
    commits = [re.sub(r"^([0-9a-f]{12})[0-9a-f]{28}", r"\1", commit) for commit in group.all_of("commit")]
    lines += [
        f"Data: {'; '.join(data)}.",
        f"Hardware: {'; '.join(group.all_of('hardware'))}.",
        f"Code: {'; '.join(commits)}.",
    ]
    lines += budgets(group)
    dates = sorted(run["date"][:10] for run in group.runs)
    lines.append(f"Run {dates[0]}." if dates[0] == dates[-1] else f"Run {dates[0]} to {dates[-1]}.")
    return [f"- {line}" for line in lines]


def budgets(group: Group) -> list[str]:
    """What is known of how much each trained model was tuned: a note, or none if no row is trained by
    gradient."""
    trained = [
        f"{row.model} {epochs:,}, {train.get('weight_decay', 0.0):g}"
        for row in group.rows
        if (train := row.runs[0]["settings"].get("train"))
        and (epochs := train.get("epochs") or _epochs_of_log(row.runs[0]))
    ]
    if not trained:
        return []
    return [
        "*Tuning*: no tuner has given all models the same budget; settings were chosen for each by itself. "
        f"So a difference may be one of tuning. Epochs at most, and weight decay: {'; '.join(trained)}."
    ]


def _epochs_of_log(run: Result) -> int | None:
    """The epochs at most of a run whose settings left them to follow the log."""
    plan = (run.get("training") or {}).get("plan") or {}
    epochs: int | None = plan.get("epochs")
    return epochs


def without_folders(text: str) -> str:
    """The text with every absolute path of some machine cut to its last name; addresses stay."""
    return re.sub(r"(?<![\w:/\\.])(?:/|[A-Za-z]:\\)(?:[^\s,;/\\]+[/\\])*([^\s,;/\\]+)", r"\1", text)


def table(results: str | Path | Iterable[str | Path | Result], protocol: str | Path) -> Table:
    """The table of one protocol (its name, or its YAML file), from all results in a folder.

    Raises:
        DataError: there is no result of that protocol, or results do not belong in one table.
    """
    name = read_protocol(protocol).name
    found = groups(r for r in collect(results) if r["protocol"] == name)
    if not found:
        raise DataError(
            f"{results}: expected results of {name}. Got none. Run seqrec benchmark {protocol} first."
        )
    whole = table_of(found[0])
    return replace(whole, notes=[*KEY, *whole.notes])


def render(results: str | Path | Iterable[str | Path | Result]) -> str:
    """The page as Markdown."""
    parts = [HEADER.format(resamples=RESAMPLES)]
    for group in groups(collect(results)):
        parts.append(
            plain(f"## {group.protocol}\n\n{group.title}. {group.description.strip()}".rstrip())
            + f"\n\n{table_of(group).markdown()}"
        )
    return "\n".join(parts)


def write(
    results: str | Path | Iterable[str | Path | Result] = "benchmarks/results",
    path: str | Path = "benchmarks/LEADERBOARD.md",
) -> None:
    """Writes the leaderboard of all results in a folder.

    Raises:
        DataError: results that do not belong in one table; the message names the file.
    """
    storage.write_text(render(results), path)
