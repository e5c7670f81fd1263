"""Which items a history contains; and that whoever only asks needs no torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from seqrec.data.query import Query
from seqrec.topk import distinct_seen


def test_distinct_seen():
    row, item = distinct_seen(Query.from_lists([np.array([3, 1, 3]), np.empty(0, np.int32), np.array([0])]))
    assert row.tolist() == [0, 0, 2]
    assert item.tolist() == [1, 3, 0]


def test_asking_imports_no_torch():
    code = "import sys, seqrec.serving.recommender; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
