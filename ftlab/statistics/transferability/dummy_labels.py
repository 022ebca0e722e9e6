"""The likelihood of classes that are predicted from the probabilities of other ones."""

from __future__ import annotations

import numpy as np

from ftlab.statistics.transferability.base import Array, Codes, class_sums


def expected_likelihood(probabilities: Array, labels: Codes) -> float:
    """Mean log of sum over z of P(y | z) P(z | x), P(y | z) as it is among these examples.

    Args:
        probabilities: of each z (N, Z).
        labels: class of each example (N,).
    """
    joint, _ = class_sums(probabilities, labels)  # (C, Z)
    whole = joint.sum(axis=0)
    given = np.divide(joint, whole, out=np.zeros_like(joint), where=whole > 0)
    likelihood = (given[labels] * probabilities).sum(axis=1)
    return float(np.log(np.maximum(likelihood, np.finfo(np.float64).tiny)).mean())
