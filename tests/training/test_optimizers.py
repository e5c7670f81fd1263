"""The optimizers against their formulas, one number at a time."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from seqrec.errors import SettingsError
from seqrec.training.optimizers import FTRL, AdagradMomentum

LR, EPS = 0.1, 1e-3


def dense(start: torch.Tensor, gradients: list[torch.Tensor], momentum: float) -> torch.Tensor:
    """The formula, number by number."""
    p, a, m = (x.flatten().tolist() for x in (start, torch.zeros_like(start), torch.zeros_like(start)))
    for gradient in gradients:
        for i, g in enumerate(gradient.flatten().tolist()):
            a[i] += g * g
            m[i] = momentum * m[i] - LR * g / math.sqrt(a[i] + EPS)
            p[i] += m[i]
    return torch.tensor(p, dtype=start.dtype).view_as(start)


def by_rows(
    start: torch.Tensor, gradients: list[tuple[list[int], torch.Tensor]], momentum: float
) -> torch.Tensor:
    """The formula for the rows that occur in a gradient; what else there is stays as it is."""
    p, a, m = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for rows, values in gradients:
        for row in set(rows):
            g = torch.stack([v for r, v in zip(rows, values) if r == row]).sum(0)
            a[row] += g * g
            m[row] = momentum * m[row] - LR * g / (a[row] + EPS).sqrt()
            p[row] += m[row]
    return p


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_dense_gradients(momentum: float):
    p = torch.nn.Parameter(random(3, 4))
    start, gradients = p.detach().clone(), [random(3, 4, seed=i) for i in range(1, 6)]
    optimizer = AdagradMomentum([p], lr=LR, momentum=momentum, eps=EPS)
    for gradient in gradients:
        p.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(p.detach(), dense(start, gradients, momentum))


@given(st.lists(st.lists(st.integers(0, 4), max_size=7), min_size=1, max_size=4), st.sampled_from([0.0, 0.4]))
def test_sparse_gradients(updates: list[list[int]], momentum: float):
    """Any rows in any order, repeated or not, and none at all."""
    p = torch.nn.Parameter(random(5, 3))
    start, gradients = (
        p.detach().clone(),
        [(rows, random(len(rows), 3, seed=i)) for i, rows in enumerate(updates)],
    )
    optimizer = AdagradMomentum([p], lr=LR, momentum=momentum, eps=EPS)
    for rows, values in gradients:
        p.grad = torch.sparse_coo_tensor(
            torch.tensor([rows], dtype=torch.int64), values, (5, 3), check_invariants=True
        )
        optimizer.step()
    torch.testing.assert_close(p.detach(), by_rows(start, gradients, momentum))


def test_without_momentum_sparse_and_dense_agree():
    """An embedding table trained with sparse gradients ends where one with dense gradients does."""
    tables = [
        torch.nn.Embedding.from_pretrained(random(6, 3), freeze=False, sparse=sparse)
        for sparse in (True, False)
    ]
    for table in tables:
        optimizer = AdagradMomentum(table.parameters(), lr=LR)
        for rows in ([0, 2, 2, 5], [1, 2, 4], [5, 0]):
            optimizer.zero_grad()
            (table(torch.tensor(rows)) ** 2).sum().backward()
            assert table.weight.grad.is_sparse == table.sparse
            optimizer.step()
    torch.testing.assert_close(tables[0].weight, tables[1].weight)


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_state_goes_through_a_checkpoint(momentum: float):
    """Stopped after two updates and begun again from the saved state, or not stopped: the same numbers."""
    gradients = [random(4, 2, seed=i) for i in range(1, 5)]

    def train(p: torch.nn.Parameter, optimizer: AdagradMomentum, part: list[torch.Tensor]) -> None:
        for gradient in part:
            p.grad = gradient.clone()
            optimizer.step()

    whole, first = torch.nn.Parameter(random(4, 2)), torch.nn.Parameter(random(4, 2))
    train(whole, AdagradMomentum([whole], LR, momentum), gradients)
    optimizer = AdagradMomentum([first], LR, momentum)
    train(first, optimizer, gradients[:2])
    second = torch.nn.Parameter(first.detach().clone())
    again = AdagradMomentum([second], LR, momentum)
    again.load_state_dict(optimizer.state_dict())
    train(second, again, gradients[2:])
    assert torch.equal(whole, second)


def test_parameters_without_a_gradient_stay():
    p = torch.nn.Parameter(random(2, 2))
    before = p.detach().clone()
    AdagradMomentum([p]).step()
    assert torch.equal(p, before)


@pytest.mark.parametrize(
    "wrong", [{"lr": 0.0}, {"lr": -1.0}, {"momentum": 1.0}, {"momentum": -0.1}, {"eps": 0.0}]
)
def test_values_out_of_range(wrong: dict[str, float]):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        AdagradMomentum([torch.nn.Parameter(torch.zeros(1))], **wrong)


class Ftrl:
    """One number of FTRL-proximal: McMahan et al., 2013, algorithm 1."""

    def __init__(self, w: float, alpha: float, beta: float, l1: float, l2: float):
        self.w, self.n, self.z = w, 0.0, 0.0
        self.alpha, self.beta, self.l1, self.l2 = alpha, beta, l1, l2

    def step(self, g: float) -> None:
        if g == 0 and self.n == 0:
            return  # no gradient yet: it stays where it started
        sigma = (math.sqrt(self.n + g * g) - math.sqrt(self.n)) / self.alpha
        self.z += g - sigma * self.w
        self.n += g * g
        if abs(self.z) <= self.l1:
            self.w = 0.0
        else:
            sign = 1 if self.z > 0 else -1
            self.w = -(self.z - sign * self.l1) / ((self.beta + math.sqrt(self.n)) / self.alpha + self.l2)


def ftrl_by_number(
    start: torch.Tensor, gradients: list[torch.Tensor], settings: dict[str, float]
) -> torch.Tensor:
    numbers = [Ftrl(w, **settings) for w in start.flatten().tolist()]
    for gradient in gradients:
        for number, g in zip(numbers, gradient.flatten().tolist()):
            number.step(g)
    return torch.tensor([number.w for number in numbers], dtype=start.dtype).view_as(start)


FTRL_SETTINGS = [
    {"alpha": 0.1, "beta": 1.0, "l1": 0.0, "l2": 0.0},
    {"alpha": 0.1, "beta": 0.0, "l1": 0.5, "l2": 0.0},
    {"alpha": 0.01, "beta": 1.0, "l1": 1.0, "l2": 120.0},
]


@pytest.mark.parametrize("settings", FTRL_SETTINGS)
def test_ftrl_dense_gradients(settings: dict[str, float]):
    p = torch.nn.Parameter(random(3, 4))
    start, gradients = p.detach().clone(), [random(3, 4, seed=i) for i in range(1, 8)]
    gradients[0][1] = 0.0  # a row that comes late
    optimizer = FTRL([p], **settings)
    for gradient in gradients:
        p.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(p.detach(), ftrl_by_number(start, gradients, settings))


@given(
    st.lists(st.lists(st.integers(0, 4), max_size=7), min_size=1, max_size=4), st.sampled_from(FTRL_SETTINGS)
)
@example([[3, 0, 3], [1], [], [0, 1]], FTRL_SETTINGS[1])
def test_ftrl_sparse_gradients(updates: list[list[int]], settings: dict[str, float]):
    """Any rows in any order, repeated or not, and none at all: as if the gradient were dense, and rows never
    touched stay as they are."""
    p = torch.nn.Parameter(random(5, 3))
    start, dense_gradients = p.detach().clone(), []
    optimizer = FTRL([p], **settings)
    for i, rows in enumerate(updates):
        p.grad = torch.sparse_coo_tensor(
            torch.tensor([rows], dtype=torch.int64),
            random(len(rows), 3, seed=i),
            (5, 3),
            check_invariants=True,
        )
        dense_gradients.append(p.grad.to_dense())
        optimizer.step()
    torch.testing.assert_close(p.detach(), ftrl_by_number(start, dense_gradients, settings))
    untouched = [row for row in range(5) if not any(row in rows for rows in updates)]
    assert torch.equal(p.detach()[untouched], start[untouched])


def test_ftrl_l1_makes_exact_zeros():
    """Least squares on ten features of which two count: the others' weights are exactly 0 with l1, and not
    without."""
    x = random(200, 10)
    y = x[:, 0] - 2 * x[:, 1]

    def fit(l1: float) -> torch.Tensor:
        w = torch.nn.Parameter(torch.zeros(10, dtype=torch.float64))
        optimizer = FTRL([w], alpha=0.5, beta=0.0, l1=l1)
        for _ in range(200):
            optimizer.zero_grad()
            ((x @ w - y) ** 2).mean().backward()
            optimizer.step()
        return w.detach()

    assert (fit(20.0) != 0).tolist() == [True] * 2 + [False] * 8
    assert (fit(0.0) != 0).all()


def test_ftrl_without_regularisation_is_adagrad():
    """With beta, l1 and l2 at 0 the weights go as Adagrad's do from the same start (the paper's section
    3)."""
    ours, theirs = torch.nn.Parameter(random(4, 2)), torch.nn.Parameter(random(4, 2))
    ftrl, adagrad = FTRL([ours], alpha=0.1, beta=0.0), torch.optim.Adagrad([theirs], lr=0.1, eps=0.0)
    for i in range(5):
        ours.grad, theirs.grad = random(4, 2, seed=i + 1), random(4, 2, seed=i + 1)
        ftrl.step()
        adagrad.step()
        torch.testing.assert_close(ours, theirs)


def test_ftrl_state_goes_through_a_checkpoint():
    gradients = [random(4, 2, seed=i) for i in range(1, 5)]
    whole, first = torch.nn.Parameter(random(4, 2)), torch.nn.Parameter(random(4, 2))
    of_whole, of_first = FTRL([whole], l1=0.1), FTRL([first], l1=0.1)
    for gradient in gradients:
        whole.grad = gradient.clone()
        of_whole.step()
    for gradient in gradients[:2]:
        first.grad = gradient.clone()
        of_first.step()
    second = torch.nn.Parameter(first.detach().clone())
    again = FTRL([second], l1=0.1)
    again.load_state_dict(of_first.state_dict())
    for gradient in gradients[2:]:
        second.grad = gradient.clone()
        again.step()
    assert torch.equal(whole, second)


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"beta": -1.0}, {"l1": -0.1}, {"l2": -0.1}])
def test_ftrl_values_out_of_range(wrong: dict[str, float]):
    with pytest.raises(SettingsError, match=f"FTRL: {next(iter(wrong))} expected"):
        FTRL([torch.nn.Parameter(torch.zeros(1))], **wrong)
