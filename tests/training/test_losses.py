"""Every loss against its formula, written out term by term in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.training import losses

N, M = 5, 4


def sig(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def weights(negatives: list[float]) -> list[float]:
    total = sum(math.exp(n) for n in negatives)
    return [math.exp(n) / total for n in negatives]


def elu(x: float, alpha: float) -> float:
    return x if x > 0 else alpha * (math.exp(x) - 1)


def naive_sampled_softmax(p: float, n: list[float]) -> float:
    return -math.log(math.exp(p) / (math.exp(p) + sum(math.exp(x) for x in n)))


def naive_bce(p: float, n: list[float]) -> float:
    return -math.log(sig(p)) - sum(math.log(1 - sig(x)) for x in n)


# 100 items, t = 0.75; masked negatives were sampled all the same
def naive_gbce(p: float, n: list[float]) -> float:
    alpha = M / 99
    beta = alpha * (0.75 * (1 - 1 / alpha) + 1 / alpha)
    return -math.log(sig(p) ** beta) - sum(math.log(1 - sig(x)) for x in n)


def naive_bpr(p: float, n: list[float]) -> float:
    return -sum(math.log(sig(p - x)) for x in n) / len(n)


def naive_top1(p: float, n: list[float]) -> float:
    return sum(sig(x - p) + sig(x * x) for x in n) / len(n)


def naive_top1_max(p: float, n: list[float]) -> float:
    return sum(w * (sig(x - p) + sig(x * x)) for w, x in zip(weights(n), n))


def naive_bpr_max(p: float, n: list[float]) -> float:
    return -math.log(sum(w * sig(p - x) for w, x in zip(weights(n), n))) + 0.7 * sum(
        w * x * x for w, x in zip(weights(n), n)
    )


def naive_bpr_max_elu(p: float, n: list[float]) -> float:
    return naive_bpr_max(elu(p, 0.5), [elu(x, 0.5) for x in n])


SAMPLED: dict[str, tuple[Callable[..., Tensor], Callable[[float, list[float]], float]]] = {
    "sampled_softmax": (losses.sampled_softmax, naive_sampled_softmax),
    "bce": (losses.bce, naive_bce),
    "gbce": (lambda p, n: losses.gbce(p, n, items=100, t=0.75), naive_gbce),
    "bpr": (losses.bpr, naive_bpr),
    "top1": (losses.top1, naive_top1),
    "top1_max": (losses.top1_max, naive_top1_max),
    "bpr_max": (lambda p, n: losses.bpr_max(p, n, regularisation=0.7), naive_bpr_max),
    "bpr_max_elu": (lambda p, n: losses.bpr_max(p, n, regularisation=0.7, elu=0.5), naive_bpr_max_elu),
}


def scores(seed: int = 0, masked: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    p = 2 * torch.randn(N, generator=generator, dtype=torch.float64)
    n = 2 * torch.randn(N, M, generator=generator, dtype=torch.float64)
    if masked:
        n[0, 1] = n[2, :3] = -torch.inf
    return p.requires_grad_(), n.requires_grad_()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", SAMPLED)
def test_sampled_losses_are_their_formulas(name: str, masked: bool):
    loss, naive = SAMPLED[name]
    p, n = scores(masked=masked)
    expected = sum(naive(a, [x for x in row if x > -math.inf]) for a, row in zip(p.tolist(), n.tolist())) / N
    assert loss(p, n).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", SAMPLED)
def test_gradients_of_sampled_losses(name: str):
    assert torch.autograd.gradcheck(SAMPLED[name][0], scores(1))


@pytest.mark.parametrize("name", SAMPLED)
def test_masked_negatives_have_no_gradient_and_no_effect(name: str):
    p, n = scores(2)
    wide = torch.cat([n.detach(), torch.full((N, 3), -torch.inf, dtype=torch.float64)], 1).requires_grad_()
    with_masked = SAMPLED[name][0](p, wide)
    with_masked.backward()
    assert torch.equal(wide.grad[:, M:], torch.zeros(N, 3, dtype=torch.float64))
    assert torch.isfinite(wide.grad).all()
    if name != "gbce":  # whose calibration counts what was sampled
        assert with_masked.item() == pytest.approx(SAMPLED[name][0](p, n).item(), rel=1e-12)


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("size", [0.0, 50.0, 1e4])
def test_extreme_scores_stay_finite(name: str, size: float):
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0, 0.0])
    p = (size * sign).requires_grad_()
    n = torch.stack([-size * sign, size * sign, torch.zeros(5), torch.zeros(5)], 1)
    n[:, 3] = -torch.inf
    n.requires_grad_()
    loss = SAMPLED[name][0](p, n)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(p.grad).all()
    assert torch.isfinite(n.grad).all()


@pytest.mark.parametrize("name", SAMPLED)
def test_a_position_without_a_counted_negative_stays_finite(name: str):
    """A lane alone in its batch: its only in-batch "negative" is its own target."""
    p, n = scores(3)
    n = n.detach().clone()
    n[1] = -torch.inf
    n.requires_grad_()
    loss = SAMPLED[name][0](p, n)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(p.grad).all()
    assert torch.isfinite(n.grad).all()
    if "bce" not in name:  # there is nothing to compare the positive with
        assert p.grad[1] == 0


def test_bce_counts_disliked_targets_as_negatives():
    p, n = scores(4)
    labels = torch.tensor([True, False, True, True, False])
    expected = [
        -math.log(sig(a if liked else -a)) - sum(math.log(1 - sig(x)) for x in row)
        for a, row, liked in zip(p.tolist(), n.tolist(), labels)
    ]
    assert losses.bce(p, n, labels).item() == pytest.approx(sum(expected) / N, rel=1e-12)


def test_gbce_with_t_0_is_bce():
    p, n = scores(5)
    assert losses.gbce(p, n, items=50, t=0.0).item() == pytest.approx(losses.bce(p, n).item(), rel=1e-12)


def test_gbce_with_every_item_sampled_is_bce():
    p, n = scores(5)
    assert losses.gbce(p, n, items=M + 1, t=1.0).item() == pytest.approx(losses.bce(p, n).item(), rel=1e-12)


def random_softmax(n: int, c: int = 37, d: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    states = torch.randn(n, d, generator=generator, dtype=torch.float64, requires_grad=True)
    vectors = torch.randn(c, d, generator=generator, dtype=torch.float64, requires_grad=True)
    return states, vectors, torch.randint(0, c, (n,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [1, losses.CHUNK - 1, losses.CHUNK, losses.CHUNK + 1, 2 * losses.CHUNK + 88])
def test_softmax_is_cross_entropy(rows: int, smoothing: float):
    states, vectors, targets = random_softmax(rows)
    loss = losses.softmax(states, vectors, targets, smoothing)
    got = torch.autograd.grad(3 * loss, (states, vectors))
    expected_loss = F.cross_entropy(states @ vectors.T, targets, label_smoothing=smoothing)
    expected = torch.autograd.grad(3 * expected_loss, (states, vectors))
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-12)
    for a, b in zip(got, expected):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def test_softmax_gradients_numerically():
    states, vectors, targets = random_softmax(4, c=5, d=3)
    assert torch.autograd.gradcheck(lambda s, v: losses.softmax(s, v, targets, 0.2), (states, vectors))


@pytest.mark.parametrize("states", [1, losses.CHUNK - 1, losses.CHUNK, 2 * losses.CHUNK + 88])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_of_sets_is_the_mean_of_their_means(states: int, bias: bool, smoothing: float):
    """Also where a state has the same target twice, or none."""
    s, vectors, _ = random_softmax(states)
    of = torch.randint(0, states, (3 * states,)).sort().values
    targets = torch.randint(0, 3, (len(of),))
    if bias:
        vectors = torch.cat([vectors, vectors.mean(1, keepdim=True)], 1).detach().requires_grad_()
    loss = losses.softmax_of_sets(s, vectors, targets, of, smoothing)
    got = torch.autograd.grad(3 * loss, (s, vectors))
    each = F.cross_entropy(
        losses.scores(s, vectors)[of], targets, reduction="none", label_smoothing=smoothing
    )
    expected_loss = torch.stack([each[of == row].mean() for row in of.unique()]).mean()
    expected = torch.autograd.grad(3 * expected_loss, (s, vectors))
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-12)
    for a, b in zip(got, expected):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)
    near = losses.softmax_of_sets(s.float(), vectors.float(), targets, of, smoothing, bfloat16=True)
    assert near.item() == pytest.approx(loss.item(), rel=1e-2)


def test_softmax_by_hand():
    # scores 1, 2, 0 of three items, the target is the first: log(e + e^2 + 1) - 1
    loss = losses.softmax(torch.tensor([[1.0]]), torch.tensor([[1.0], [2.0], [0.0]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(math.log(math.e + math.e**2 + 1) - 1, rel=1e-6)


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_softmax_of_extreme_scores_stays_finite(size: float):
    states = torch.tensor([[size], [-size]], requires_grad=True)
    vectors = torch.tensor([[1.0], [-1.0], [0.0]], requires_grad=True)
    loss = losses.softmax(states, vectors, torch.tensor([1, 1]), 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(size * 0.5 * ((0.9 * 2 + 0.1) + 0.1), rel=1e-5)
    assert torch.isfinite(states.grad).all()
    assert torch.isfinite(vectors.grad).all()


def test_softmax_in_bfloat16_is_near():
    states, vectors, targets = (x.float() if x.is_floating_point() else x for x in random_softmax(300))
    states, vectors = states.detach().requires_grad_(), vectors.detach().requires_grad_()
    near = losses.softmax(states, vectors, targets, 0.1, bfloat16=True)
    exact = losses.softmax(states, vectors, targets, 0.1)
    assert near.item() == pytest.approx(exact.item(), rel=1e-2)
    for a, b in zip(
        torch.autograd.grad(near, (states, vectors)), torch.autograd.grad(exact, (states, vectors))
    ):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.02 * b.norm()


def test_weights_are_not_rounded_in_bfloat16():
    """Corrections for logQ are sums of large numbers: 8 bits of them would be worth a tenth."""
    states, vectors, targets = (x.float() if x.is_floating_point() else x for x in random_softmax(300))
    states, vectors = 0.01 * states.detach(), vectors.detach()
    log_weight = torch.linspace(-20.3, -19.1, len(vectors))
    weights = log_weight, log_weight[targets], torch.full((len(targets),), -torch.inf)
    exact, near = (
        losses.shared_sampled_softmax(states, vectors, targets, weights, bfloat16=b) for b in (False, True)
    )
    assert near.item() == pytest.approx(exact.item(), rel=1e-4)


def test_sampled_softmax_over_all_other_items_is_softmax():
    states, vectors, targets = random_softmax(9)
    all_scores = states @ vectors.T
    positive = all_scores.gather(1, targets[:, None])[:, 0]
    negative = all_scores.masked_fill(torch.arange(len(vectors)) == targets[:, None], -torch.inf)
    assert losses.sampled_softmax(positive, negative).item() == pytest.approx(
        losses.softmax(states, vectors, targets).item(), rel=1e-12
    )


@pytest.mark.parametrize("loss", ["softmax", "sampled softmax", "bpr-max"])
@pytest.mark.parametrize("rows", [5, 300])
def test_a_last_column_is_the_items_bias(loss: str, rows: int):
    """The same as with a 1 at the end of each state: values and gradients, in one chunk of rows and in
    several."""
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(rows, 4, generator=generator, dtype=torch.float64).requires_grad_()
    vectors = torch.randn(9, 5, generator=generator, dtype=torch.float64).requires_grad_()
    targets = torch.randint(9, (rows,), generator=generator)
    weights = (
        torch.randn(9, generator=generator, dtype=torch.float64),
        *torch.randn(2, rows, generator=generator, dtype=torch.float64),
    )

    def value(s: Tensor) -> Tensor:
        if loss == "softmax":
            return losses.softmax(s, vectors, targets, smoothing=0.1)
        if loss == "sampled softmax":
            return losses.shared_sampled_softmax(s, vectors, targets, weights)
        return losses.shared_bpr_max(s, vectors, targets, weights, 0.7, 0.5)

    with_one = torch.cat([states, torch.ones(rows, 1, dtype=torch.float64)], 1)
    got, expected = value(states), value(with_one)
    torch.testing.assert_close(got, expected)
    for ours, theirs in zip(
        torch.autograd.grad(got, [states, vectors]),
        torch.autograd.grad(expected, [states, vectors]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(losses.scores(states, vectors), losses.scores(with_one, vectors))
    own = vectors[targets][:, None]
    torch.testing.assert_close(losses.scores_of_own(states, own), losses.scores_of_own(with_one, own))


@pytest.mark.parametrize("bias", [0, 1])
def test_scores_of_one_are_those_of_many(bias: int):
    states, vectors = torch.randn(2, 5), torch.randn(40, 5 + bias)
    torch.testing.assert_close(losses.scores_of_one(states[:1], vectors), losses.scores(states, vectors)[:1])
