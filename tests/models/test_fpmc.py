"""FPMC's score, term by term."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from seqrec.data.query import Query
from seqrec.models.fpmc import FPMC, FPMCNetwork, FPMCSettings
from seqrec.splitting import last_n, leave_one_out, user_holdout
from seqrec.testing import small_log


def test_score_is_the_papers():
    torch.manual_seed(0)
    net = FPMCNetwork(FPMCSettings(width=3, recent=2), items=6, users=4).double()
    v_iu, v_il = net.items.weight[:, :3], net.items.weight[:, 3:]
    lists, users = [[5, 0, 1], [2], []], [3, 0, 1]
    histories = Query.from_lists(
        [np.array(x, dtype=np.int32) for x in lists], np.array(users, dtype=np.int32)
    )
    scores = net.encode(net.query_inputs(histories)) @ net.item_vectors().T
    for row, (history, user) in enumerate(zip(lists, users)):
        for j in range(6):
            expected = (net.users.weight[user] @ v_iu[j]).item()
            last = history[-2:]
            expected += sum((net.last_items.weight[item] @ v_il[j]).item() for item in last) / max(
                1, len(last)
            )
            assert scores[row, j].item() == pytest.approx(expected, abs=1e-12)


def test_an_unknown_user_has_the_mean_vector():
    torch.manual_seed(0)
    net = FPMCNetwork(FPMCSettings(width=3), items=6, users=4)
    state = net.encode(net.query_inputs(Query.from_lists([np.array([1])])))
    torch.testing.assert_close(state[0, :3], net.users.weight.mean(0))
    torch.testing.assert_close(state[0, 3:], net.last_items.weight[1])


def test_defaults_are_s_bpr():
    model = FPMC()
    assert model.loss.name == "bpr"
    assert not model.negatives.shared
    assert model.settings.recent == 1


def test_a_known_user_without_history_is_not_anyone():
    split = leave_one_out(small_log())
    model = FPMC(width=8, train={"epochs": 2})
    model.fit(split)
    empty = Query.from_lists([np.empty(0, np.int32)] * 3, np.array([0, 1, -1], dtype=np.int32))
    known, other, nobody = model.score(empty)
    assert not torch.allclose(known, other)
    assert nobody.tolist() == split.item_counts.tolist()


def test_an_unknown_user_is_the_mean_of_those_who_are_trained(tmp_path):
    split = user_holdout(small_log(), validation_users=5, test_users=10)
    model = FPMC(width=8, train={"epochs": 2})
    model.fit(split, progress=False)
    trained = torch.from_numpy(split.trained_users())
    assert not trained.all()
    model.save(tmp_path)
    for one in (model, FPMC.load(tmp_path)):
        (state,) = one.states(Query.from_lists([np.array([1])]))
        torch.testing.assert_close(state[:8], one.network.users.weight[trained].mean(0))


def test_users_with_disliked_targets_only_are_trained_where_the_loss_has_a_use_for_them():
    sequences = small_log()
    with_targets = last_n(sequences, n=1).trained_users()
    user = int(np.flatnonzero(with_targets)[0])
    ratings = np.full(sequences.events, 5.0)
    ratings[sequences.offsets[user] : sequences.offsets[user + 1]] = 1
    split = last_n(replace(sequences, ratings=ratings), n=1, min_rating=2)
    for loss in ("bpr", "bce"):
        model = FPMC(width=8, loss=loss, train={"epochs": 1}).fit(split, progress=False)
        with_targets[user] = loss == "bce"
        assert model.trained_users.tolist() == with_targets.tolist()
