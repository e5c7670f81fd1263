"""Optimizers of embedding tables: Adagrad with momentum, and FTRL-proximal.

Where a gradient is sparse (an embedding table of which an update sees some rows), only those rows are read
and written: an update costs what its batch costs, however large the catalogue.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.errors import SettingsError


class _ByRows(torch.optim.Optimizer):
    """Goes through the parameters that have a gradient."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    if not self.state[p]:
                        self.state[p].update(self.start(p, group))
                    if p.grad.is_sparse:
                        self._update_rows(p, *_distinct(p.grad), self.state[p], group)
                    else:
                        self.update(p, p.grad, self.state[p], group)
        return loss

    # Torch would wrap step for profilers and hooks, which costs more than the update of a small layer; it
    # does not where it finds this.
    step.hooked = True  # type: ignore[attr-defined]

    @abstractmethod
    def start(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """The state before the first update: tensors of the shape of p, (...)."""

    @abstractmethod
    def update(self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        """All of p, in place; the gradient g and the state have its shape, (...)."""

    def _update_rows(
        self, p: Tensor, rows: Tensor, g: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        """These rows of p, (rows,), each once, with their gradients g, (rows, ...)."""
        tables = [p, *state.values()]
        of_rows = [table.index_select(0, rows) for table in tables]
        self.update(of_rows[0], g, dict(zip(state, of_rows[1:], strict=True)), group)
        for table, values in zip(tables, of_rows, strict=True):
            table.index_copy_(0, rows, values)


def _distinct(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of a sparse gradient, ascending, and their values: what there is of the same row is summed
    (before anyone squares it)."""
    rows = gradient._indices()[0]
    if not gradient.is_coalesced() and not (rows[1:] > rows[:-1]).all():
        gradient = gradient.coalesce()
        rows = gradient._indices()[0]
    return rows, gradient._values()


def _check(optimizer: str, **values: tuple[float, bool, str]) -> None:
    for name, (value, valid, expected) in values.items():
        if not valid:
            raise SettingsError(f"{optimizer}: {name} expected {expected}. Got {value}.")


class AdagradMomentum(_ByRows):
    """Adagrad with momentum, as GRU4Rec's authors use it (Hidasi and Karatzoglou, 2018, section 4; Duchi,
    Hazan, Singer, 2011).

        a <- a + g^2        m <- momentum m - rate g / sqrt(a + eps)        p <- p + m

    ``torch.optim.Adagrad`` has no momentum and adds eps outside the root. With momentum sparse and dense
    gradients differ a little: a row that is not touched does not coast on.

    Args:
        params: parameters, or groups of them; ``lr``, ``momentum`` and ``eps`` may differ by group.
        lr: learning rate, above 0.
        momentum: in [0, 1).
        eps: added to the accumulated squares inside the root, above 0.

    Raises:
        SettingsError: a value is out of range.
    """

    def __init__(self, params: Iterable[Any], lr: float = 0.05, momentum: float = 0.0, eps: float = 1e-6):
        _check(
            "Adagrad",
            lr=(lr, lr > 0, "above 0"),
            momentum=(momentum, 0 <= momentum < 1, "at least 0 and below 1"),
            eps=(eps, eps > 0, "above 0"),
        )
        super().__init__(params, {"lr": lr, "momentum": momentum, "eps": eps})

    def start(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        # with eps from the start: an addition less an update
        state = {"squares": torch.full_like(p, group["eps"])}
        return state | {"momentum": torch.zeros_like(p)} if group["momentum"] else state

    def update(self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        root = state["squares"].addcmul_(g, g).sqrt()
        if group["momentum"]:
            p.add_(state["momentum"].mul_(group["momentum"]).addcdiv_(g, root, value=-group["lr"]))
        else:
            p.addcdiv_(g, root, value=-group["lr"])


class FTRL(_ByRows):
    """FTRL-proximal (McMahan et al.: Ad Click Prediction: a View from the Trenches, KDD 2013, algorithm 1).
    For each number w with gradient g:

        sigma = (sqrt(n + g^2) - sqrt(n)) / alpha        n <- n + g^2        z <- z + g - sigma w
        w <- 0 if |z| <= l1, else -(z - sign(z) l1) / ((beta + sqrt(n)) / alpha + l2)

    l1 makes exact zeros, l2 pulls towards 0; the rate of a number falls as its gradients add up, so there is
    no schedule over time.

    Weights may start anywhere, n and z at 0, as in MetaSpore. The start w0 enters z once, with the first
    gradient: afterwards it counts for |g| / (beta + |g| + alpha l2) of itself (without l1), so where
    gradients are small or l2 is large it is as good as thrown away. A number that has not had a gradient yet
    keeps its start; MetaSpore writes 0 to it as soon as another number of its row has one. MetaSpore's
    updater gets the gradient of the mean loss of a worker's batch, for the rows that are in it.

    Args:
        params: parameters, or groups of them; the other arguments may differ by group.
        alpha: learning rate, above 0.
        beta: keeps the first updates small, at least 0.
        l1, l2: regularisation, at least 0.

    Raises:
        SettingsError: a value is out of range.
    """

    def __init__(
        self, params: Iterable[Any], alpha: float = 0.01, beta: float = 1.0, l1: float = 0.0, l2: float = 0.0
    ):
        at_least_0 = {
            name: (value, value >= 0, "at least 0")
            for name, value in (("beta", beta), ("l1", l1), ("l2", l2))
        }
        _check("FTRL", alpha=(alpha, alpha > 0, "above 0"), **at_least_0)
        super().__init__(params, {"alpha": alpha, "beta": beta, "l1": l1, "l2": l2})

    def start(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {"n": torch.zeros_like(p), "z": torch.zeros_like(p)}

    def update(self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        n, z, alpha = state["n"], state["z"], group["alpha"]
        before = n.sqrt()
        root = n.addcmul_(g, g).sqrt()
        z.add_(g).addcmul_(root - before, p, value=-1 / alpha)
        w = -F.softshrink(z, group["l1"]) / ((group["beta"] + root) / alpha + group["l2"])
        p.copy_(torch.where(n > 0, w, p))
