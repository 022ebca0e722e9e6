"""Logistic regression of a head's linear layer on its features, as scikit-learn states it."""

from __future__ import annotations

from torch import nn

from ftlab.techniques.features import Features
from ftlab.techniques.head_optimum import HeadOptimum, HeadProblem

LOGISTIC = ("single_label_classification", "multi_label_classification")
"""transformers' `problem_type` of the tasks that it goes with."""
GRID = [10 ** (-4 + 8 * step / 9) for step in range(10)]
"""Strengths that are tried: scikit-learn's LogisticRegressionCV has the same."""


def logistic_optimum(features: Features, layer: nn.Linear, C: float | None  # noqa: N803  scikit-learn's own name
                     ) -> tuple[HeadOptimum, float]:
    """Compute the layer that minimises C times the examples' cross-entropies + |weight|^2 / 2.

    Args:
        features: of the examples.
        layer: of the head; it keeps its weights.
        C: inverse strength of the penalty; None for the best of `GRID` on validation.

    Returns:
        The optimum, and its C.

    Raises:
        GuardFailed: it was not reached.
    """
    problem = HeadProblem(features, layer.out_features, layer.bias is not None, plain=True)
    # decay / 2 * |W|^2 beside a mean: two classes have two rows of half the size each in place
    # of scikit-learn's one, and the mean over labels divides by their number
    single = features.data.task.problem_type == LOGISTIC[0]
    parts = (0.5 if layer.out_features == 2 else 1.0) if single else layer.out_features
    if C is not None:
        return problem.at(1 / (C * problem.rows * parts)), C
    decays = {1 / (C * problem.rows * parts): C for C in GRID}
    best = problem.best(decays)
    return best, decays[best.decay]
