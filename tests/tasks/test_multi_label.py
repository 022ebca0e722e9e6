import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from ftlab.errors import InputError
from ftlab.tasks.multi_label import MultiLabel

LABELS = ["a|b", "c", "b | c", "none", "a/x|a"]


@pytest.fixture
def task() -> MultiLabel:
    task = MultiLabel(nothing="none")
    task.fit(LABELS)
    return task


def test_fit__labels_do_not_depend_on_the_order_of_examples(task):
    other = MultiLabel(nothing="none")
    other.fit(LABELS[::-1])
    assert task.summary() == other.summary()
    assert task.labels == ["a", "a/x", "b", "c"]
    assert task.summary()["train_counts"] == {"a": 2, "a/x": 1, "b": 2, "c": 2}


def test_encode__marks_each_label_once(task):
    assert task.encode("b|a|b", "") == [1, 0, 1, 0]
    assert task.encode(["c", "a"], "") == [1, 0, 0, 1]
    assert task.encode("none", "") == task.encode([], "") == [0, 0, 0, 0]
    assert task.stack([task.encode(label, "") for label in LABELS]).shape == (5, 4)


@pytest.mark.parametrize(("label", "said"), [
    ("a|d", "row 3: label 'd' does not occur in train"), ("a||b", "row 3: 'a||b' has an empty"),
    ("a|", "has an empty"), (None, "row 3 is missing"), (["a", None], "row 3: a label is missing")])
def test_encode__refuses_with_the_place(task, label, said):
    with pytest.raises(InputError) as caught:
        task.encode(label, "row 3")
    assert said in caught.value.what


def test_nothing__is_a_label_where_it_is_not_named():
    task = MultiLabel()
    task.fit(LABELS)
    assert "none" in task.labels


@pytest.mark.parametrize("labels", [[], ["a", "a"], ["none"]])
def test_fit__needs_two_labels(labels):
    with pytest.raises(InputError, match="at least two labels"):
        MultiLabel(nothing="none").fit(labels)


def test_loss__is_the_mean_binary_cross_entropy(task):
    logits, target = torch.randn(5, 4), task.stack([task.encode(label, "") for label in LABELS])
    p = logits.sigmoid()
    by_hand = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    torch.testing.assert_close(task.loss(logits, {"target": target}), by_hand)


def test_loss__of_half_precision_is_computed_in_float32(task):
    half, batch = torch.randn(5, 4).bfloat16(), {"target": torch.eye(5)[:, :4]}
    assert torch.equal(task.loss(half, batch), task.loss(half.float(), batch))


@pytest.mark.parametrize("threshold", [0.5, 0.2])
def test_metrics__are_scikit_learns_over_uneven_batches(threshold):
    draw = np.random.default_rng(0)
    target = (draw.random((60, 5)) < [0.5, 0.3, 0.2, 0.1, 0.05]).astype(int)
    target[:2] = 1
    logits = (draw.normal(size=(60, 5)).round(1) + target).astype(np.float32)
    task = MultiLabel(threshold=threshold)
    task.fit([list("abcde")])
    metrics = task.collection()
    for rows in (slice(0, 7), slice(7, 40), slice(40, 60)):
        metrics.update(torch.tensor(logits[rows]), torch.tensor(target[rows]).float())
    found = task.scalars(metrics.compute())
    scores = 1 / (1 + np.exp(-logits))
    decided = scores > threshold
    wanted = {
        "mean_average_precision": sk.average_precision_score(target, scores, average="macro"),
        "f1_micro": sk.f1_score(target, decided, average="micro"),
        "f1_macro": sk.f1_score(target, decided, average="macro"),
        "accuracy": sk.accuracy_score(target, decided),
        **{f"average_precision/{name}": value for name, value in zip(
            "abcde", sk.average_precision_score(target, scores, average=None), strict=True)},
        **{f"f1/{name}": value for name, value in zip(
            "abcde", sk.f1_score(target, decided, average=None), strict=True)},
    }
    assert found == pytest.approx(wanted, abs=1e-6)


def test_mean_average_precision__leaves_out_labels_that_no_example_has(task):
    metrics = task.collection()
    metrics.update(torch.tensor([[1.0, 0, 0, 0], [0, 0, 1.0, 0]]),
                   torch.tensor([[1.0, 0, 0, 0], [0, 0, 1.0, 0]]))
    numbers = task.scalars(metrics.compute())
    assert numbers["mean_average_precision"] == 1
    # the first and third of the labels occur
    assert len([name for name in numbers if name.startswith("average_precision/")]) == 2


def test_higher_is_better__knows_every_scalar(task):
    metrics = task.collection()
    metrics.update(torch.zeros(2, 4), torch.eye(4)[:2])
    for name in {*task.scalars(metrics.compute()), "loss"}:
        assert task.higher_is_better(name) == (name != "loss")
    assert MultiLabel().higher_is_better("f1/any")
    for metric in ("f1/z", "auroc"):
        with pytest.raises(InputError, match="MultiLabel has: loss, accuracy"):
            task.higher_is_better(metric)


def test_records__name_labels(task):
    target = task.stack([task.encode("a|c", ""), task.encode("none", "")])
    records = task.records(torch.tensor([[2.0, -1, -1, -1], [-1, -1, 1, 1]]), target)
    assert records["target"] == [["a", "c"], []]
    assert records["prediction"] == [["a"], ["b", "c"]]
    assert records["scores"][0][0] == pytest.approx(1 / (1 + np.exp(-2)))


def test_task__travels_to_another_process(task):
    for twin in (pickle.loads(pickle.dumps(task)), copy.deepcopy(task)):
        assert twin.encode("a|c", "") == task.encode("a|c", "")


@pytest.mark.parametrize(("settings", "said"), [
    ({"separator": ""}, "separator must not be empty"),
    ({"threshold": 1.0}, "threshold must be between 0 and 1, got 1.0")])
def test_constructor__refuses(settings, said):
    with pytest.raises(ValueError, match=said):
        MultiLabel(**settings)
