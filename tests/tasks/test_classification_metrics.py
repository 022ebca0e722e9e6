"""Metrics against scikit-learn and written-out formulas, in uneven batches and merged ranks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from ftlab.tasks.classification_metrics import ClassificationCollection, classification_metrics
from ftlab.tasks.metric import fresh

# scikit-learn's about its own 0 for Matthews' correlation of one class
pytestmark = pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")


def collection(classes, bins):
    return ClassificationCollection(fresh(classification_metrics(lambda: classes, bins)))


def calibration_error(probabilities, target, bins):
    """Guo et al. (2017), with bins closed on the left and the last closed on both sides."""
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == target
    place = np.minimum((confidence.astype(float) * bins).astype(int), bins - 1)
    return sum(
        abs(correct[place == b].mean() - confidence[place == b].mean()) * (place == b).mean()
        for b in range(bins)
        if (place == b).any()
    )


def reference(logits, target, bins=15):
    probabilities = logits.float().softmax(1).numpy()
    prediction, y = probabilities.argmax(1), target.numpy()
    labels = range(logits.shape[1])
    support = np.bincount(y, minlength=len(labels)) > 0
    occurs = [c for c in labels if support[c] or (prediction == c).any()]
    macro = sk.precision_recall_fscore_support(
        y, prediction, labels=occurs, average="macro", zero_division=0
    )
    each = sk.precision_recall_fscore_support(y, prediction, labels=labels, zero_division=0)
    valued = [np.where(np.isin(labels, occurs), values, np.nan) for values in each[:3]]
    areas = [sk.roc_auc_score(y == c, probabilities[:, c]) for c in labels if 0 < (y == c).mean() < 1]
    return {
        "accuracy": sk.accuracy_score(y, prediction),
        "balanced_accuracy": each[1][support].mean(),
        "matthews": sk.matthews_corrcoef(y, prediction),
        "precision_macro": macro[0],
        "recall_macro": macro[1],
        "f1_macro": macro[2],
        "precision/<class>": valued[0],
        "recall/<class>": valued[1],
        "f1/<class>": valued[2],
        "auroc": np.mean(areas) if areas else np.nan,
        "calibration_error": calibration_error(probabilities, y, bins),
    }


def assert_matches(computed, expected):
    assert computed.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(computed[name].numpy(), value, atol=2e-6, err_msg=name)


def data(seed, size, classes, scale=2.0, absent=()):
    random = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(size, classes, generator=random)
    kept = torch.tensor([c for c in range(classes) if c not in absent])
    target = kept[torch.randint(len(kept), (size,), generator=random)]
    return logits, target


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**31), st.integers(1, 60), st.integers(2, 6), st.sampled_from([0.01, 2, 60])
)
def test_metrics__are_scikit_learns_in_uneven_batches(seed, size, classes, scale):
    logits, target = data(seed, size, classes, scale)
    computed = collection(classes, 15)
    for start in range(0, size, 7):
        computed.update(logits[start : start + 7], target[start : start + 7])
    assert_matches(computed.compute(), reference(logits, target))


def test_matthews__of_many_examples_and_of_one_class():
    target = torch.arange(90_000) % 3
    prediction = torch.where(torch.arange(90_000) % 5 == 0, 0, target)
    metrics = collection(3, 15)
    metrics.update(torch.eye(3)[prediction], target)
    expected = sk.matthews_corrcoef(target, prediction)
    assert metrics.compute()["matthews"].item() == pytest.approx(expected, abs=1e-6)
    metrics.reset()
    metrics.update(torch.eye(3)[[1, 1]], torch.tensor([1, 1]))
    assert metrics.compute()["matthews"] == 0


def test_balanced_accuracy__is_scikit_learns_with_every_class_present():
    logits, target = data(0, 200, 4)
    metrics = collection(4, 15)
    metrics.update(logits, target)
    expected = sk.balanced_accuracy_score(target, logits.argmax(1))
    assert metrics.compute()["balanced_accuracy"].item() == pytest.approx(expected)


@pytest.mark.parametrize("absent", [(2,), (0, 3), (0, 1, 2)])
def test_metrics__a_class_missing_in_the_split(absent):
    logits, target = data(1, 40, 4, absent=absent)
    metrics = collection(4, 10)
    metrics.update(logits, target)
    computed = metrics.compute()
    assert_matches(computed, reference(logits, target, 10))
    assert computed["auroc"].isnan().item() == (len(absent) == 3)


def test_metrics__small_logits_are_not_taken_for_probabilities():
    logits = torch.rand(64, 3, generator=torch.Generator().manual_seed(2))
    target = data(2, 64, 3)[1]
    metrics = collection(3, 15)
    metrics.update(logits, target)
    assert_matches(metrics.compute(), reference(logits, target))
    assert_matches(metrics(logits, target), reference(logits, target))


def test_calibration_error__confidence_one_is_in_the_last_bin():
    # sure and wrong, nearly sure and right: in one bin their deviations cancel in part
    logits, target = torch.tensor([[100.0, 0.0], [3.0, 0.0]]), torch.tensor([1, 0])
    metrics = collection(2, 15)
    metrics.update(logits, target)
    expected = (1 + torch.tensor(3.0).sigmoid()) / 2 - 0.5
    torch.testing.assert_close(metrics.compute()["calibration_error"], expected)


def test_metrics__ranks_merge_to_the_whole():
    logits, target = data(3, 50, 3)
    first, second = (collection(3, 15) for _ in range(2))
    for metrics, part in ((first, slice(0, 17)), (second, slice(17, None))):
        for metric in metrics.values():  # apart, so that no two metrics share their state
            metric.update(logits[part].softmax(1), target[part])
    for name, metric in first.items():
        metric.merge_state(second[name])
    merged = {name: metric.compute() for name, metric in first.items()}
    assert_matches(merged, reference(logits, target))


def test_metrics__reset_forgets():
    logits, target = data(4, 30, 3)
    metrics = collection(3, 15)
    metrics.update(*data(5, 30, 3))
    metrics.compute()
    metrics.reset()
    metrics.update(logits, target)
    assert_matches(metrics.compute(), reference(logits, target))


def test_metrics__take_half_precision():
    logits, target = data(6, 30, 3)
    metrics = collection(3, 15)
    metrics.update(logits.bfloat16(), target)
    assert_matches(metrics.compute(), reference(logits.bfloat16(), target))
