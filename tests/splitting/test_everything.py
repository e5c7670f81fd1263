"""How many users validate when all there is trains."""

from __future__ import annotations

import pytest
from random_sequences import of_items

from seqrec.splitting.everything import everything


@pytest.mark.parametrize(
    ("users", "validating"), [(60, 0), (199, 0), (200, 100), (1500, 150), (12_000, 1000)]
)
def test_enough_users_validate_or_none(users: int, validating: int):
    split = everything(of_items(*["abc"] * users))
    assert len(split.validation) == validating
    assert split.train_events.sum() == 3 * users - validating
    assert len(split.test) == 0


def test_users_of_two_events_validate_nothing():
    split = everything(of_items(*["abc"] * 200, *["ab"] * 50))
    assert len(split.validation) == 100
    assert split.validation.users.max() < 200
