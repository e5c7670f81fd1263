"""What training follows where it follows the log."""

import pytest

from seqrec.training.settings import TrainSettings


def followed(positions, **given):
    plan = TrainSettings(**given).plan(positions)
    return plan.batch_positions, plan.epochs, plan.patience


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        (10**9, (1024, 20, 3)),
        (988_129, (1024, 20, 3)),  # MovieLens-1M: as before it followed the log
        (300_000, (256, 20, 3)),
        (95_000, (128, 20, 3)),
        (7000, (32, 20, 3)),
        (600, (32, 53, 8)),
        (1, (32, 100, 15)),
        (0, (32, 100, 15)),
    ],
)
def test_small_logs_have_small_batches_and_more_epochs(positions, expected):
    assert followed(positions) == expected


@pytest.mark.parametrize("positions", [*range(1, 3000, 97), *range(3000, 3_000_000, 99_991)])
def test_there_are_enough_updates_or_as_many_as_there_may_be(positions):
    batch, epochs, patience = followed(positions)
    assert batch in (32, 64, 128, 256, 512, 1024)
    assert positions / batch >= 700 or batch == 32
    assert positions / batch < 1400 or batch == 1024
    assert epochs * -(-positions // batch) >= 1000 or epochs == 100
    assert 3 <= patience < epochs


def test_what_is_given_stays():
    assert followed(600, batch_positions=2048, epochs=7, patience=1) == (2048, 7, 1)
    assert followed(10**6, epochs=7) == (1024, 7, 3)
    assert followed(10**6, epochs=60) == (1024, 60, 9)
    given = TrainSettings(learning_rate=0.1, metric="ndcg@5", minutes=3)
    assert given.plan(600).model_dump() == {
        **given.model_dump(),
        "batch_positions": 32,
        "epochs": 53,
        "patience": 8,
    }
    assert given.plan(600).plan(10**6) == given.plan(600)


@pytest.mark.parametrize(("positions", "rate"), [(600, 0.01), (1999, 0.01), (2000, 0.002), (10**6, 0.002)])
def test_the_few_updates_of_a_small_log_are_larger(positions, rate):
    assert TrainSettings().plan(positions).learning_rate == rate
    assert TrainSettings(learning_rate=0.1).plan(positions).learning_rate == 0.1
