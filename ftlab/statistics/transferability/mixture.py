"""A mixture of normal distributions with full covariances, by expectation maximisation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.linalg import solve_triangular
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]

RIDGE, RELATIVE = 1e-6, 1e-9
"""Added to variances: at least so much, and this share of the mean variance."""
TOLERANCE, ROUNDS = 1e-3, 100
"""Change of the mean log likelihood that ends the fit, and rounds at most."""


def starting_groups(rows: Array, components: int, seed: int) -> NDArray[np.int64]:
    """A group for each row (N,), by k-means from centres that are drawn apart.

    Arthur, Vassilvitskii (2007), https://dl.acm.org/doi/10.5555/1283383.1283494; Lloyd (1982),
    https://doi.org/10.1109/TIT.1982.1056489.
    """
    generator = np.random.default_rng(seed)
    centres = rows[[generator.integers(len(rows))]]
    nearest = cdist(rows, centres, "sqeuclidean")[:, 0]
    for _ in range(components - 1):
        whole = nearest.sum()
        drawn = generator.choice(len(rows), p=nearest / whole if whole > 0 else None)
        centres = np.concatenate([centres, rows[[drawn]]])
        nearest = np.minimum(nearest, cdist(rows, centres[-1:], "sqeuclidean")[:, 0])
    found = cdist(rows, centres).argmin(axis=1)
    for _ in range(ROUNDS):
        for place in np.unique(found):  # a group that has lost all its rows keeps its centre
            centres[place] = rows[found == place].mean(axis=0)
        before, found = found, cdist(rows, centres).argmin(axis=1)
        if (found == before).all():
            break
    return found.astype(np.int64)


def fitted_posterior(rows: Array, start: NDArray[np.int64]) -> Array:
    """Probability of each component for each row (N, K), of the mixture that fits the rows.

    Dempster, Laird, Rubin (1977), https://doi.org/10.1111/j.2517-6161.1977.tb01600.x.

    Args:
        rows: (N, D).
        start: a component for each row (N,).
    """
    posterior = np.eye(int(start.max()) + 1)[start]
    ridge = max(RIDGE, RELATIVE * float(rows.var(axis=0).mean()))
    before = -np.inf
    for _ in range(ROUNDS):
        densities = _log_densities(rows, posterior, ridge)
        whole = special.logsumexp(densities, axis=1)
        posterior = np.exp(densities - whole[:, None])
        if abs(whole.mean() - before) < TOLERANCE:
            break
        before = whole.mean()
    return posterior


def _log_densities(rows: Array, posterior: Array, ridge: float) -> Array:
    """Log of weight times density of each component (N, K), fitted to a posterior."""
    count, width = rows.shape
    sizes = posterior.sum(axis=0) + 10 * np.finfo(np.float64).eps
    densities = np.empty(posterior.shape)
    for place, size in enumerate(sizes):
        share = posterior[:, place]
        apart = rows - share @ rows / size
        covariance = (share * apart.T) @ apart / size
        covariance.flat[:: width + 1] += ridge
        factor = np.linalg.cholesky(covariance)
        scaled = solve_triangular(factor, apart.T, lower=True)
        densities[:, place] = (np.log(size) - np.log(count)  # its weight
                               - 0.5 * (width * np.log(2 * np.pi) + (scaled**2).sum(axis=0))
                               - np.log(np.diag(factor)).sum())
    return densities
