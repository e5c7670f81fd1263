"""Vectors made of features, against the plainest way to add them up, in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from seqrec.data.catalogue import Catalogue
from seqrec.errors import TrainingError
from seqrec.features.encoding import Features
from seqrec.features.schema import FeatureSchema
from seqrec.nn.batch import Inputs
from seqrec.nn.embedding import FeatureEmbedding, add_users, embedding

ITEMS, WIDTH = 6, 3
TABLE = {"genres": ["a|b", "b", None, "c|a|d|b", "c", "a"], "kind": ["x", "y", "x", None, "y", "x"]}


def features(item: list[str], sequence: list[str] | None = None) -> Features:
    schema = FeatureSchema(item=item, sequence=sequence or item)
    return Features.of(schema, Catalogue([0]), Catalogue(list(range(ITEMS)), pl.DataFrame(TABLE)))


def table(item: list[str]) -> FeatureEmbedding:
    torch.manual_seed(0)
    made = embedding(ITEMS, WIDTH, features(item).item).double()
    assert isinstance(made, FeatureEmbedding)
    return made


def plain(t: FeatureEmbedding, row: int) -> torch.Tensor:
    """v(row), a value at a time."""
    total = torch.zeros(WIDTH, dtype=torch.float64) if t.ids is None else t.ids.weight[row].clone()
    number, first = {}, 1
    for name in ("genres", "kind"):  # the values of a feature are numbered in their order
        names = sorted({value for cell in TABLE[name] if cell for value in cell.split("|")})
        number |= {(name, value): first + n for n, value in enumerate(names)}
        first += len(names)
    for name in ("genres", "kind"):
        cell = TABLE[name][row]
        values = cell.split("|") if cell else []
        for value in values:
            total = total + t.values.weight[number[name, value]] / len(values)
    return total


@pytest.mark.parametrize("item", [["item_id", "genres", "kind"], ["genres", "kind"]])
def test_the_sum_of_means(item):
    t = table(item)
    assert (t.ids is None) == ("item_id" not in item)
    expected = torch.stack([plain(t, row) for row in range(ITEMS)])
    torch.testing.assert_close(t.weight, expected, rtol=0, atol=1e-12)
    rows = torch.tensor([[3, 0, 3], [2, 5, 1]])
    torch.testing.assert_close(t(rows), expected[rows], rtol=0, atol=1e-12)
    assert t(torch.tensor(3)).shape == (WIDTH,)
    assert t(torch.empty(0, dtype=torch.int64)).shape == (0, WIDTH)
    # The gradients are those of the plain way too.
    (t(rows) ** 3).sum().backward()
    got = {name: p.grad.clone() for name, p in t.named_parameters()}
    t.zero_grad()
    (torch.stack([plain(t, int(row)) for row in rows.flatten()]) ** 3).sum().backward()
    for name, p in t.named_parameters():
        torch.testing.assert_close(got[name], p.grad, rtol=0, atol=1e-12)
    assert not t.values.weight.grad[0].any()  # nothing is learnt from what is unknown


def test_ids_alone_are_a_plain_embedding():
    made = embedding(ITEMS, WIDTH, features(["item_id"]).item)
    assert type(made) is nn.Embedding
    assert type(embedding(ITEMS, WIDTH, Features.ids_only(users=False).item)) is nn.Embedding
    assert not Features.ids_only(users=False).user


def test_shared_tables():
    f = features(["item_id", "genres"], ["item_id", "kind", "genres"])
    torch.manual_seed(0)
    item = embedding(ITEMS, WIDTH, f.item)
    sequence = embedding(ITEMS, WIDTH, f.sequence, item)
    assert isinstance(item, FeatureEmbedding)
    assert isinstance(sequence, FeatureEmbedding)
    assert sequence.ids is item.ids
    assert sequence.values is item.values
    both = table(["item_id", "genres", "kind"])
    both.load_state_dict({"ids.weight": item.ids.weight, "values.weight": item.values.weight}, strict=False)
    torch.testing.assert_close(
        sequence.weight.double(), torch.stack([plain(both, row) for row in range(ITEMS)])
    )
    ids_only = features(["item_id", "genres"], ["item_id"])
    assert embedding(ITEMS, WIDTH, ids_only.sequence, item) is item.ids


def test_users_are_added_to_the_states():
    users = nn.Embedding(3, 2)
    states = torch.arange(8.0).view(4, 2)
    mask = torch.tensor([[True, True], [True, False], [False, False], [True, True]])
    at = torch.tensor([1, 2, 4, 7])
    items = torch.zeros(4, 2, dtype=torch.int64)
    inputs = Inputs(items, mask, at, users=torch.tensor([2, -1, 0, 1]))
    u = users.weight
    # the third history is empty: its state is its user
    expected = torch.stack([states[0] + u[2], states[1], u[0], states[3] + u[1]])
    torch.testing.assert_close(add_users(states, users, inputs), expected)
    mixed = Inputs(items, torch.ones_like(mask), at, users=torch.tensor([[0, 1], [2, 0], [1, 0], [0, 2]]))
    torch.testing.assert_close(add_users(states, users, mixed), states + u[torch.tensor([1, 2, 1, 2])])
    nobody = Inputs(items, mask, at)
    assert add_users(states, users, nobody) is states


def test_sparse_gradients_are_of_the_ids():
    t = table(["item_id", "genres"])
    t.sparse = True
    assert t.sparse
    t(torch.tensor([1, 3])).sum().backward()
    assert t.ids.weight.grad.is_sparse
    assert not t.values.weight.grad.is_sparse


def test_what_belongs_to_the_data_is_told_from_other_data():
    t = table(["item_id", "genres"])
    assert set(t.state_dict()) == {"ids.weight", "values.weight", "_extra_state"}
    table(["item_id", "genres"]).load_state_dict(t.state_dict())
    side = features(["item_id", "genres"]).item
    other = embedding(ITEMS, WIDTH, replace(side, index=side.index[::-1].copy()))
    with pytest.raises(TrainingError, match="trained with other attributes"):
        other.load_state_dict(t.state_dict())
    assert np.array_equal(t.index.numpy(), features(["item_id", "genres"]).item.index)
