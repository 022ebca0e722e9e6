"""The minimum of a convex loss over a linear layer: scikit-learn's, and closed forms."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from ftlab.techniques.convex_solver import ConvexProblem, Slope


def rows(count: int = 120, width: int = 9, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Features of very different sizes, off the origin, which few classes explain."""
    draw = np.random.default_rng(0)
    features = draw.normal(size=(count, width)) * np.logspace(-1, 1.5, width) + 5
    target = (features @ draw.normal(size=(width, classes)) / 10).argmax(axis=1)
    flipped = draw.random(count) < 0.2
    target[flipped] = draw.integers(0, classes, flipped.sum())
    return torch.tensor(features), torch.tensor(target)


def slope_of(loss: object, target: Tensor) -> Slope:
    def slope(outputs: Tensor) -> tuple[Tensor, Tensor]:
        given = outputs.detach().requires_grad_()
        value = loss(given, target)
        (rise,) = torch.autograd.grad(value, given)
        return value.detach(), rise

    return slope


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("strength", [1e-3, 1.0, 1e3])
def test_minimum__is_scikit_learn_s(strength: float, bias: bool) -> None:
    features, target = rows()
    problem = ConvexProblem(features, 4, slope_of(cross_entropy, target), bias)
    start = problem.minimise(0.3, None, 1e-3, 500)  # from elsewhere it is the same
    found = problem.minimise(1 / (strength * len(target)), start, 1e-9, 5000)
    weight, offset = problem.unturned(found)
    reference = LogisticRegression(C=strength, fit_intercept=bias, tol=1e-10, max_iter=100_000,
                                   solver="newton-cg").fit(features, target)
    ours = (features @ weight.T + offset).softmax(dim=1)
    assert found.gradient <= 1e-9
    np.testing.assert_allclose(ours, reference.predict_proba(features), atol=1e-5)
    expected = cross_entropy(features @ weight.T + offset, target) + (
        weight.square().sum() / (2 * strength * len(target)))
    assert found.loss == pytest.approx(float(expected), rel=1e-9)
    assert bias or not bool(offset.any())


def test_squared_errors__take_one_step_and_are_ridge_regression() -> None:
    features, _ = rows()
    target = features @ torch.linspace(-1, 1, 9).double() + torch.randn(120).double()

    def slope(outputs: Tensor) -> tuple[Tensor, Tensor]:
        gap = outputs[:, 0] - target
        return gap.square().mean(), 2 / len(gap) * gap[:, None]

    problem = ConvexProblem(features, 1, slope)
    found = problem.minimise(0.7, None, 1e-7, 50)
    weight, offset = problem.unturned(found)
    reference = Ridge(alpha=0.7 * len(target) / 2).fit(features, target)
    assert found.iterations == 1
    np.testing.assert_allclose(weight[0], reference.coef_, rtol=1e-6)
    assert float(offset) == pytest.approx(float(reference.intercept_), rel=1e-6)


def test_several_labels__are_a_regression_each() -> None:
    features, target = rows()
    chosen = torch.stack([target == 1, target > 1], dim=1).double()
    problem = ConvexProblem(features, 2, slope_of(binary_cross_entropy_with_logits, chosen))
    weight, offset = problem.unturned(problem.minimise(1 / (0.1 * 120 * 2), None, 1e-9, 5000))
    for label in range(2):
        reference = LogisticRegression(C=0.1, tol=1e-10, max_iter=100_000, solver="newton-cg").fit(
            features, chosen[:, label])
        ours = (features @ weight[label] + offset[label]).sigmoid()
        np.testing.assert_allclose(ours, reference.predict_proba(features)[:, 1], atol=1e-5)


def test_what_is_left_of_the_gradient_is_told() -> None:
    features, target = rows()
    problem = ConvexProblem(features, 4, slope_of(cross_entropy, target))
    few = problem.minimise(1e-6, None, 1e-9, 2)
    assert few.iterations == 2
    assert few.gradient > 1e-9
    weight, offset = (each.requires_grad_() for each in problem.unturned(few))
    loss = cross_entropy(features @ weight.T + offset, target) + 5e-7 * weight.square().sum()
    by_weight, by_offset = torch.autograd.grad(loss, [weight, offset])
    centred = by_weight - by_offset[:, None] * features.mean(dim=0)  # of the centred rows
    norm = torch.cat([centred, by_offset[:, None]], dim=1).norm()
    assert few.gradient == pytest.approx(float(norm) / problem.scale, rel=1e-6)
