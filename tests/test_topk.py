"""Which items a history contains; and that whoever only asks needs no torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from seqrec.data.query import Query
from seqrec.topk import BestSoFar, distinct_seen


def test_distinct_seen():
    row, item = distinct_seen(Query.from_lists([np.array([3, 1, 3]), np.empty(0, np.int32), np.array([0])]))
    assert row.tolist() == [0, 0, 2]
    assert item.tolist() == [1, 3, 0]


def test_asking_imports_no_torch():
    code = "import sys, seqrec.serving.recommender; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("values", [3, 1_000_000])
@pytest.mark.parametrize("width", [1, 7, 50, 400])
def test_the_best_so_far_are_those_of_a_stable_sort(values: int, width: int):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, values, (5, 400)).astype(np.float32)  # many equals, or hardly any
    scores[:, rng.random(400) < 0.2] = -np.inf
    scores[3] = -np.inf
    scores[4, 6:] = -np.inf
    best = BestSoFar(5, 10)
    for begin in range(0, 400, width):
        best.add(scores[:, begin : begin + width], begin)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    expected = np.take_along_axis(scores, order, 1)
    assert np.array_equal(best.found().scores, expected)
    assert np.array_equal(best.found().items, np.where(np.isneginf(expected), -1, order))
