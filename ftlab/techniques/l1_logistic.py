"""Logistic regression with an L1 penalty, by proximal gradient steps in float64.

FISTA: Beck, Teboulle (2009), https://doi.org/10.1137/080716542; its momentum starts anew where it
points uphill: O'Donoghue, Candes (2015), https://doi.org/10.1007/s10208-013-9150-3. Most weights
are 0 at the optimum, so that only those features take part which the penalty does not hold there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot, softshrink

from ftlab.errors import GuardFailed

TOLERANCE = 1e-3
"""Largest entry of the subgradient that is left, as a share of the penalty's slope."""
MOST = 50_000  # steps on one set of features
JOIN = 10  # features that begin to take part at once, or as many as do already


def l1_logistic(rows: Tensor, target: Tensor, classes: int, C: float,  # noqa: N803  scikit-learn's own name
                start: Tensor | None = None, tolerance: float = TOLERANCE) -> Tensor:
    """Compute the weight (K, D) that minimises C * summed cross-entropies + summed |weight|.

    Two classes have opposite rows, whose difference is what scikit-learn finds for its one row.

    Args:
        rows: features (N, D) in float64; a column of ones has the bias for its weight, which is
            penalised like all others, as in liblinear.
        target: classes (N,).
        classes: how many there are, K; some may have no row.
        C: inverse strength of the penalty.
        start: where to begin, a solution for similar rows; None for zeros.
        tolerance: see `TOLERANCE`.

    Raises:
        GuardFailed: it was not reached.
    """
    slope = 1 / (C * len(rows))  # of the penalty, beside the mean of the losses
    truth = one_hot(target, classes).to(rows)
    weight = rows.new_zeros(classes, rows.shape[1]) if start is None else start.clone()
    used = weight.any(dim=0)
    if used.any():
        weight[:, used] = _minimum(rows[:, used], truth, weight[:, used], slope, tolerance)
    while True:
        excess = _gradient(rows, truth, weight).abs().amax(dim=0) / slope - 1
        excess[used] = 0
        steepest, where = excess.sort(descending=True)
        joining = where[steepest > tolerance][:max(JOIN, int(used.sum()))]
        if not len(joining):
            return weight
        used[joining] = True
        weight[:, used] = _minimum(rows[:, used], truth, weight[:, used], slope, tolerance)


def _gradient(rows: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    return ((rows @ weight.T).softmax(dim=1) - truth).T @ rows / len(rows)


def _minimum(rows: Tensor, truth: Tensor, weight: Tensor, slope: float, tolerance: float) -> Tensor:
    """FISTA from a weight, on the features that take part."""
    square = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    # a softmax bends by 1/2 at most
    step = 2 * len(rows) / max(float(torch.linalg.eigvalsh(square)[-1]), 1e-300)
    ahead, momentum = weight, 1.0
    for _ in range(MOST):
        new = softshrink(ahead - step * _gradient(rows, truth, ahead), step * slope)
        back = ahead - new
        # the norm of the subgradient at `new` is twice this at most
        if 2 * float(torch.linalg.vector_norm(back)) / step <= tolerance * slope:
            return new
        if float((back * (new - weight)).sum()) > 0:
            momentum = 1.0
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / following * (new - weight)
        weight, momentum = new, following
    raise GuardFailed(f"the L1 logistic regression did not end within {MOST} steps (C "
                      f"{1 / (slope * len(rows)):.3g})", "give smaller values of C")
