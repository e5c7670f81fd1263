"""Requests that wait together are scored together: one worker thread a model.

    requests   1 | 2 3 4 5 | 6 7 ...        while batch 1 is scored, 2 to 5 arrive and become the next one
    batches    [1] [2 3 4 5] [6 7]

Nothing waits for a batch to fill: a lone request is scored at once.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from seqrec.data.query import Query
from seqrec.topk import Filter, Known, TopK


@dataclass(frozen=True)
class Job:
    """Histories of one request.

    Attributes:
        lists: (length,) item indices of each.
        users: (n,) indices of users, -1 for unknown.
        k: items a history.
        filter: what may be recommended.
        baskets: (length,) numbers of the baskets of each, for models that read them.
        times: (length,) seconds since 1970 of the events of each, and (n,) of the moment that is asked about,
            for models that read them.
        answer: resolved, in the loop that waits, with what was found and whether each query is known.
    """

    lists: list[np.ndarray]
    users: np.ndarray
    k: int
    filter: Filter
    answer: asyncio.Future[tuple[TopK, np.ndarray]] = field(compare=False)
    baskets: list[np.ndarray] | None = None
    times: tuple[list[np.ndarray], np.ndarray] | None = None


def solve(model: Known, jobs: list[Job]) -> list[tuple[TopK, np.ndarray]]:
    """The answers to some jobs of the same filter, from one look at the model.

    Returns:
        of each job its (n, k) best, and (n,) bool whether anything is known of the query.
    """
    told = [x for job in jobs for x in job.baskets or ()] if jobs[0].baskets is not None else None
    users = np.concatenate([job.users for job in jobs])
    lists = [x for job in jobs for x in job.lists]
    when = [job.times for job in jobs if job.times is not None]
    query = Query.from_lists(lists, users, told, [x for taken, _ in when for x in taken] if when else None)
    if when:
        query = replace(query, asked_at=np.concatenate([asked for _, asked in when]))
    top = model.best(query, max(job.k for job in jobs), jobs[0].filter)
    known = model.knows(query)
    answers, begin = [], 0
    for job in jobs:
        rows = slice(begin, begin + len(job.lists))
        answers.append((TopK(top.items[rows, : job.k], top.scores[rows, : job.k]), known[rows]))
        begin = rows.stop
    return answers


class Batches:
    """The worker of one model.

    Args:
        model: what is asked.
        most: histories scored together, at most.
        measured: called with the number of histories of each batch.
    """

    def __init__(self, model: Known, most: int, measured: Callable[[int], object] = lambda size: None):
        self.model, self.most, self.measured = model, most, measured
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"batches of {model.name}", daemon=True)
        self._thread.start()

    def submit(
        self,
        lists: list[np.ndarray],
        users: np.ndarray,
        k: int,
        filter: Filter,
        baskets: list[np.ndarray] | None = None,
        times: tuple[list[np.ndarray], np.ndarray] | None = None,
    ) -> asyncio.Future[tuple[TopK, np.ndarray]]:
        """Will be the k best items after each history, (n, k), and (n,) whether anything is known of each."""
        job = Job(lists, users, k, filter, asyncio.get_running_loop().create_future(), baskets, times)
        self._jobs.put(job)
        return job.answer

    def close(self) -> None:
        """Ends the worker once it has answered all that wait."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            taken, rows, ends = [job], len(job.lists), False
            while rows < self.most:
                try:
                    more = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    ends = True
                    break
                taken.append(more)
                rows += len(more.lists)
            self._solve(taken)
            if ends:
                return

    def _solve(self, jobs: list[Job]) -> None:
        alike: dict[Any, list[Job]] = defaultdict(list)
        for job in jobs:
            f = job.filter
            plain = f.allow is None and f.deny is None
            alike[f.seen if plain else id(job)].append(job)
        for group in alike.values():
            self.measured(sum(len(job.lists) for job in group))
            try:
                found: list[Any] = solve(self.model, group)
            except Exception as error:
                found = [error] * len(group)
            group[0].answer.get_loop().call_soon_threadsafe(_resolve, group, found)


def _resolve(jobs: list[Job], found: list[Any]) -> None:
    for job, answer in zip(jobs, found, strict=True):
        if job.answer.done():  # whoever asked is gone
            continue
        if isinstance(answer, Exception):
            job.answer.set_exception(answer)
        else:
            job.answer.set_result(answer)
