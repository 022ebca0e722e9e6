"""Training sets that overlap: what their scores have in common does not show over seeds."""

from __future__ import annotations


def inflation(overlap: float, seeds: int) -> float:
    """Factor of the variance of a mean over seeds whose training sets are drawn from one pool.

    Two training sets that each take a share f of a pool have f of their examples in common, and
    their scores are correlated by about as much, so that the variance over seeds has an
    expectation too small by 1 - f. The mean of S scores has the variance
    q (1/S + f / (1 - f)), q as it is seen over seeds: the factor is 1 + S f / (1 - f). Nadeau,
    Bengio (2003), https://doi.org/10.1023/A:1024068626366, for test sets that vary too; here they
    do not.

    Args:
        overlap: f, below 1; 0 where seeds draw no training set.
        seeds: S.
    """
    return 1 + seeds * overlap / (1 - overlap)


def foreseen(by_seeds: float, seeds: int, later: int, overlap: float) -> float:
    """Variance through the seeds with more of them: the part of the pool itself does not shrink.

    Args:
        by_seeds: the variance now, `inflation` included.
        seeds: now.
        later: then.
        overlap: see `inflation`.
    """
    return by_seeds * seeds / later * inflation(overlap, later) / inflation(overlap, seeds)
