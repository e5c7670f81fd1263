"""How many threads a training takes.

Threads of one operation wait for each other. Where other work has a core, two of them can be slower than one:
the share of work that was handed to the busy core keeps the other waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

WORTH_MEASURING = 60.0  # seconds of a training from which on a second of trying is well spent
TURN = 0.25  # seconds that each number of threads is tried for, in each of two rounds
CLEARLY = 0.9  # of the time of all threads, which else stay, so that a quiet machine repeats its numbers


def choose(update: Callable[[], object], updates: int, most: int) -> int:
    """The number of threads with which updates take the least time here and now.

    All of them, unless half as many, a quarter, ... are clearly faster; and for a short training all of them
    without trying. Threads of torch are as before when it returns.

    Args:
        update: does the work of one.
        updates: that are to come.
        most: threads that there are.
    """
    with use(most):
        update()  # the first one pays for memory
        if _seconds(update) * updates < WORTH_MEASURING:
            return most
        counts = [most >> n for n in range(most.bit_length())]
        seconds = dict.fromkeys(counts, 0.0)
        for _ in range(2):
            for count in counts:
                torch.set_num_threads(count)
                seconds[count] += _mean_seconds(update)
        best = min(counts, key=seconds.__getitem__)
        return best if seconds[best] < CLEARLY * seconds[most] else most


@contextmanager
def use(count: int) -> Iterator[None]:
    """Has torch compute with so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seconds(update: Callable[[], object]) -> float:
    begin = time.perf_counter()
    update()
    return time.perf_counter() - begin


def _mean_seconds(update: Callable[[], object]) -> float:
    """Of an update, over a turn."""
    spent, count = 0.0, 0
    while spent < TURN:
        spent, count = spent + _seconds(update), count + 1
    return spent / count
