from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from random_sequences import of_items

from seqrec.models.personal_top import PersonalTop


def test_worked_example():
    """User 1 had {a b} {a a} {b d} {d}: a, b and d in two baskets each. Of the events b has four, a three, d
    two, c one."""
    s = of_items("abaabdd", "bbc")
    s = replace(s, baskets=np.array([0, 0, 1, 1, 2, 2, 3, 4, 5, 5]))
    model = PersonalTop().fit(s)
    best = model.recommend(users=[1, 2], k=4, filter_seen=False)
    assert best["item_id"].to_list() == ["b", "a", "d", "c", "b", "c", "a", "d"]
    assert best["score"].to_list()[:4] == pytest.approx([2 + 4 / 5, 2 + 3 / 5, 2 + 2 / 5, 1 / 5])
    recent = PersonalTop(recent=2).fit(s).recommend(users=[1], k=2, filter_seen=False)
    assert recent["item_id"].to_list() == ["d", "b"]
