from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_sequences import of_items

from seqrec.errors import DataError
from seqrec.splitting import SplitSettings, last_basket
from seqrec.splitting.split import Queries, Split


def split_of(*users: str) -> Split:
    """``split_of("ab c d")``: baskets of letters with blanks between them."""
    s = of_items(*(user.replace(" ", "") for user in users))
    sizes = [len(basket) for user in users for basket in user.split()]
    return last_basket(replace(s, baskets=np.repeat(np.arange(len(sizes)), sizes)))


def asked(split: Split, queries: Queries) -> list[tuple[str, str]]:
    """The history and the right answers of each query, as letters."""
    names, query = split.sequences.item_catalogue.ids, split.query(queries)
    answers = np.split(split.targets(queries), queries.first_targets[1:-1])
    return [
        ("".join(names[i] for i in query.at(q).tolist()), "".join(names[i] for i in answer.tolist()))
        for q, answer in enumerate(answers)
    ]


def test_worked_example():
    split = split_of("ab c def gh i", "a b cd", "abc d", "aa bb bcb")
    assert split.train_stops.tolist() == [6, 10, 17, 19]
    assert split.retrain().train_stops.tolist() == [8, 11, 17, 21]
    assert asked(split, split.validation) == [("abcdef", "gh"), ("a", "b"), ("aa", "b")]
    assert asked(split, split.test) == [("abcdefgh", "i"), ("ab", "cd"), ("aabb", "bc")]
    assert split.known_stops.tolist() == [8, 11, 17, 21]
    assert asked(split.without_test(), split.without_test().validation) == asked(split, split.validation)


@given(st.lists(st.lists(st.text("abcd", min_size=1, max_size=3), max_size=5), min_size=1, max_size=5))
def test_against_the_obvious(users):
    split = split_of("abcd a", *(" ".join(user) for user in users))
    expected = [user for user in users if len(user) >= 3]
    if not expected:
        assert len(split.test) == len(split.validation) == 0
        return
    for queries, end in ((split.validation, -2), (split.test, -1)):
        assert asked(split, queries) == [
            ("".join(user[:end]), "".join(dict.fromkeys(user[end]))) for user in expected
        ]


def test_a_log_without_baskets_is_told_what_to_do():
    with pytest.raises(DataError, match=r"expected a log with baskets\. Got none\. .*data.basket=same_time"):
        SplitSettings(name="last_basket").apply(of_items("abc", "def"))
