"""Every loss against its formula in NumPy, and the limits in which two losses are the same."""

import copy
import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import sigmoid_focal_loss

from ftlab.errors import InputError
from ftlab.tasks.losses.base import Loss
from ftlab.tasks.losses.class_balanced import ClassBalanced, effective_number_weights
from ftlab.tasks.losses.cross_entropy import CrossEntropy
from ftlab.tasks.losses.focal import Focal
from ftlab.tasks.losses.logit_adjusted import LogitAdjusted
from ftlab.tasks.losses.weighted_cross_entropy import (
    WeightedCrossEntropy,
    inverse_frequency_weights,
)

COUNTS = (50, 7, 1, 12)
ALPHA = [0.5, 1.0, 4.0, 2.0]


def log_softmax(z):
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def plain(z, q, n):
    return -(q * log_softmax(z)).sum(1).mean()


def smoothed(z, q, n):
    return plain(z, 0.9 * q + 0.1 / z.shape[1], n)


def weighted(z, q, n, power=1.0):
    w = (1 / n) ** power
    w = w / w.mean()
    return -(w * q * log_softmax(z)).sum() / (w * q).sum()


def square_root(z, q, n):
    return weighted(z, q, n, 0.5)


def focal(z, q, n, gamma=2.0, w=1.0):
    p = np.exp(log_softmax(z))
    return -(w * q * (1 - p) ** gamma * log_softmax(z)).sum(1).mean()


def focal_alpha(z, q, n):
    return focal(z, q, n, gamma=0.7, w=np.array(ALPHA))


def class_balanced(z, q, n, gamma=0.0):
    w = (1 - 0.99) / (1 - 0.99**n)
    return focal(z, q, n, gamma, len(n) * w / w.sum())


def class_balanced_focal(z, q, n):
    return class_balanced(z, q, n, gamma=1.5)


def logit_adjusted(z, q, n):
    return plain(z + 1.3 * np.log(n / n.sum()), q, n)


FORMULAS = [
    (CrossEntropy(), plain),
    (CrossEntropy(label_smoothing=0.1), smoothed),
    (WeightedCrossEntropy(), weighted),
    (WeightedCrossEntropy(power=0.5), square_root),
    (Focal(), focal),
    (Focal(gamma=0.7, alpha=ALPHA), focal_alpha),
    (ClassBalanced(beta=0.99), class_balanced),
    (ClassBalanced(beta=0.99, gamma=1.5), class_balanced_focal),
    (LogitAdjusted(tau=1.3), logit_adjusted),
]
EACH = pytest.mark.parametrize(
    ("loss", "formula"), FORMULAS, ids=[formula.__name__ for _, formula in FORMULAS]
)


def fitted(loss: Loss, counts=COUNTS) -> Loss:
    loss = copy.deepcopy(loss)
    loss.fit(counts)
    return loss


def batch(seed: int, classes: int = len(COUNTS), scale: float = 3.0):
    """Logits, class indices, and soft targets, in float64."""
    random = torch.Generator().manual_seed(seed)
    size = int(torch.randint(1, 9, (), generator=random))
    logits = scale * torch.randn(size, classes, generator=random, dtype=torch.float64)
    index = torch.randint(classes, (size,), generator=random)
    soft = torch.rand(size, classes, generator=random, dtype=torch.float64)
    return logits, index, soft / soft.sum(1, keepdim=True)


seeds = st.integers(0, 2**31)
examples = settings(max_examples=30, deadline=None, derandomize=True)


@EACH
@examples
@given(seeds, seeds)
def test_loss__of_a_batch_is_the_mean_of_its_parts_by_weight(loss, formula, seed, other):
    loss = fitted(loss)
    for kind in (1, 2):  # hard and soft targets
        parts = [(each[0], each[kind]) for each in (batch(seed), batch(other))]
        whole = loss(*(torch.cat(column) for column in zip(*parts, strict=True)))
        weights = [loss.weight(target) for _, target in parts]
        mean = sum(w * loss(*part) for w, part in zip(weights, parts, strict=True)) / sum(weights)
        torch.testing.assert_close(mean, whole)


@EACH
@examples
@given(seeds)
def test_loss__is_its_formula_on_hard_and_soft_targets(loss, formula, seed):
    logits, index, soft = batch(seed)
    loss, counts = fitted(loss), np.array(COUNTS, dtype=float)
    onehot = np.eye(len(COUNTS))[index]
    assert loss(logits, index).item() == pytest.approx(formula(logits.numpy(), onehot, counts))
    assert loss(logits, soft).item() == pytest.approx(
        formula(logits.numpy(), soft.numpy(), counts)
    )


@EACH
@examples
@given(seeds)
def test_loss__one_hot_row_is_its_index(loss, formula, seed):
    logits, index, _ = batch(seed)
    onehot = torch.eye(len(COUNTS))[index]
    assert fitted(loss)(logits, onehot).item() == pytest.approx(
        fitted(loss)(logits, index).item()
    )


@EACH
@pytest.mark.parametrize("logit", [0.0, 30.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gradient__is_finite_however_sure(loss, formula, logit, dtype):
    logits = (logit * torch.eye(4, dtype=dtype)).requires_grad_()
    for target in (torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2, 3, 0])):
        logits.grad = None
        value = fitted(loss)(logits, target)
        value.backward()
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        assert torch.isfinite(logits.grad).all()


@EACH
def test_loss__half_precision_rounds_logits_only(loss, formula):
    logits, index, _ = batch(3)
    half = logits.bfloat16()
    assert fitted(loss)(half, index).item() == pytest.approx(
        fitted(loss)(half.double(), index).item(), rel=1e-5
    )


@EACH
def test_loss__trains_after_a_first_call_in_inference_mode(loss, formula):
    # Lightning's sanity check validates, in inference mode, before the first training step
    loss, (logits, index, _) = fitted(loss), batch(4)
    with torch.inference_mode():
        loss(logits.float(), index)
    logits = logits.float().requires_grad_()
    loss(logits, index).backward()
    assert logits.grad.abs().sum() > 0


@EACH
def test_constructor__arguments_are_documented_and_typed(loss, formula):
    for name, parameter in inspect.signature(type(loss)).parameters.items():
        assert f"        {name}: " in type(loss).__doc__
        assert parameter.annotation is not inspect.Parameter.empty
        assert parameter.default is not inspect.Parameter.empty


@EACH
def test_docstring__names_its_source(loss, formula):
    assert "https://arxiv.org/abs/" in type(loss).__doc__


@examples
@given(seeds)
def test_weighted__is_torchs_weight(seed):
    logits, index, _ = batch(seed)
    weight = inverse_frequency_weights(COUNTS)
    expected = torch.nn.functional.cross_entropy(logits, index, weight=weight)
    assert fitted(WeightedCrossEntropy())(logits, index).item() == pytest.approx(expected.item())


@examples
@given(seeds, st.floats(0, 5), st.floats(0.05, 0.95))
def test_focal__on_two_classes_is_the_sigmoid_focal_loss(seed, gamma, alpha):
    logits, index, _ = batch(seed, classes=2)
    expected = sigmoid_focal_loss(
        logits[:, 1] - logits[:, 0], index.double(), alpha, gamma, reduction="mean"
    )
    loss = fitted(Focal(gamma, [1 - alpha, alpha]), (3, 4))
    assert loss(logits, index).item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    ("loss", "counts"),
    [
        (WeightedCrossEntropy(power=0), COUNTS),
        (WeightedCrossEntropy(), (9, 9, 9, 9)),
        (Focal(gamma=0), COUNTS),
        (ClassBalanced(beta=0), COUNTS),
        (ClassBalanced(), (9, 9, 9, 9)),
        (LogitAdjusted(tau=0), COUNTS),
        (LogitAdjusted(), (9, 9, 9, 9)),
    ],
    ids=lambda case: f"{type(case).__name__}-{getattr(case, '__dict__', case)}",
)
def test_limit__is_cross_entropy(loss, counts):
    logits, index, soft = batch(5)
    for target in (index, soft):
        expected = CrossEntropy()(logits, target).item()
        assert fitted(loss, counts)(logits, target).item() == pytest.approx(expected)


def test_class_balanced__beta_towards_one_is_inverse_frequency():
    torch.testing.assert_close(
        effective_number_weights(COUNTS, 1 - 1e-12), inverse_frequency_weights(COUNTS)
    )


@examples
@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=20), st.floats(0, 0.999999))
def test_weights__sum_to_classes_and_never_favour_the_frequent(counts, beta):
    for weights in (effective_number_weights(counts, beta), inverse_frequency_weights(counts)):
        assert weights.sum().item() == pytest.approx(len(counts))
        assert (weights[np.argsort(counts)].diff() <= 1e-12).all()


@pytest.mark.parametrize(
    ("loss", "arguments", "named"),
    [
        (CrossEntropy, {"label_smoothing": 1.0}, "1.0"),
        (CrossEntropy, {"label_smoothing": -0.1}, "-0.1"),
        (WeightedCrossEntropy, {"power": -1}, "-1"),
        (Focal, {"gamma": -2}, "-2"),
        (Focal, {"gamma": float("nan")}, "nan"),
        (Focal, {"alpha": [1.0, 0.0]}, r"\[1.0, 0.0\]"),
        (ClassBalanced, {"beta": 1.0}, "1.0"),
        (ClassBalanced, {"gamma": -1}, "-1"),
        (LogitAdjusted, {"tau": -1}, "-1"),
    ],
)
def test_constructor__refuses_and_names_the_value(loss, arguments, named):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be .*got {named}"):
        loss(**arguments)


def test_focal__alpha_must_fit_the_classes():
    with pytest.raises(InputError, match="2 weights, the data has 4 classes"):
        fitted(Focal(alpha=[1.0, 2.0]))


@pytest.mark.parametrize("loss", [WeightedCrossEntropy(), ClassBalanced(), LogitAdjusted()])
def test_loss__needs_counts(loss):
    with pytest.raises(RuntimeError, match="fit"):
        loss(torch.zeros(1, 4), torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match="at least 1 training example"):
        fitted(loss, (3, 0))


@EACH
@examples
@given(seeds)
def test_losses__are_those_of_the_examples_alone(loss, formula, seed):
    loss = fitted(loss)
    logits, index, soft = batch(seed)
    for target in (index, soft):
        alone = [loss(logits[i:i + 1], target[i:i + 1]) for i in range(len(logits))]
        torch.testing.assert_close(loss.losses(logits, target), torch.stack(alone))
