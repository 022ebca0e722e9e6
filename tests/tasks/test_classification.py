import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlab.errors import InputError
from ftlab.tasks.classification import Classification
from ftlab.tasks.losses.class_balanced import ClassBalanced
from ftlab.tasks.losses.logit_adjusted import LogitAdjusted

LABELS = ["sport", "tech", "sport", "a/b $"]
MACRO = {
    "accuracy", "balanced_accuracy", "matthews", "precision_macro", "recall_macro", "f1_macro",
    "auroc", "calibration_error",
}


@pytest.fixture
def task() -> Classification:
    task = Classification()
    task.fit(LABELS)
    return task


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 30) | st.text("xyz", min_size=1), min_size=1))
def test_fit__classes_do_not_depend_on_the_order_of_examples(labels):
    if len({str(label) for label in labels}) < 2:
        with pytest.raises(InputError, match="at least two classes"):
            Classification().fit(labels)
        return
    one, two = Classification(), Classification()
    one.fit(labels)
    two.fit(labels[::-1])
    assert one.summary() == two.summary()
    assert one.outputs == len({str(label) for label in labels})
    assert [one.encode(name, "") for name in one.classes] == list(range(one.outputs))
    assert sum(one.summary()["train_counts"].values()) == len(labels)


def test_fit__names_the_only_class_and_a_missing_label():
    with pytest.raises(InputError, match="found only 'x'"):
        Classification().fit(["x", "x"])
    with pytest.raises(InputError, match="found none"):
        Classification().fit([])
    with pytest.raises(InputError, match="training label 1 is missing"):
        Classification().fit(["x", None])


def test_fit__again_forgets_the_first(task):
    task.fit([1, 0, 10, 2])
    assert task.classes == ["0", "1", "2", "10"]


def test_unfitted__says_so():
    with pytest.raises(RuntimeError, match="fit"):
        _ = Classification().outputs


def test_encode__unknown_label_lists_at_most_ten_classes(task):
    with pytest.raises(InputError) as caught:
        task.encode("music", "test.csv, row 12")
    assert caught.value.what == "test.csv, row 12: label 'music' does not occur in train"
    assert caught.value.mend.endswith("train has: a/b $, sport, tech")
    task.fit(range(25))
    with pytest.raises(InputError) as caught:
        task.encode(25, "here")
    assert caught.value.mend.endswith(": 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 15 more")
    task.fit(range(10))
    with pytest.raises(InputError) as caught:
        task.encode(10, "here")
    assert caught.value.mend.endswith(": 0, 1, 2, 3, 4, 5, 6, 7, 8, 9")


def test_encode__missing_label_is_not_an_unknown_one(task):
    with pytest.raises(InputError, match=r"row 3 is missing"):
        task.encode(None, "row 3")


def test_stratum__agrees_with_encode_before_and_after_fit():
    task = Classification()
    assert task.stratum(3) == task.stratum("3") == "3"


def test_loss__is_a_copy_fitted_to_the_training_counts():
    given_loss = LogitAdjusted()
    one, two = Classification(given_loss), Classification(given_loss)
    one.fit(["a"] * 9 + ["b"])
    two.fit(["a", "b"])
    batch = {"target": torch.tensor([1])}
    rare = one.loss(torch.zeros(1, 2), batch).item()
    assert rare == pytest.approx(-torch.log(torch.tensor(0.1)).item())
    assert two.loss(torch.zeros(1, 2), batch).item() == pytest.approx(0.6931, abs=1e-4)
    assert given_loss.per_class is None


def test_loss__default_is_not_shared():
    one, two = Classification(), Classification()
    assert one._loss is not two._loss


def test_loss__takes_soft_targets(task):
    logits, index = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    hard = task.loss(logits, {"target": index})
    soft = task.loss(logits, {"target": torch.eye(3)[index]})
    torch.testing.assert_close(hard, soft)


def test_scalars__per_class_keys_are_flat_and_safe(task):
    metrics = task.collection()
    metrics.update(torch.eye(3), torch.tensor([0, 1, 1]))
    numbers = task.scalars(metrics.compute())
    each = {f"{m}/{c}" for m in ("precision", "recall", "f1") for c in ("a_b _", "sport", "tech")}
    assert set(numbers) == MACRO | each
    assert numbers["recall/sport"] == 0.5
    assert numbers["precision/tech"] == 0
    assert all(type(number) is float for number in numbers.values())


def test_metrics__are_fresh(task):
    used = task.collection()
    used.update(torch.eye(3), torch.arange(3))
    fresh = task.collection()
    fresh.update(-torch.eye(3), torch.arange(3))
    assert task.scalars(fresh.compute())["accuracy"] == 0
    assert task.scalars(used.compute())["accuracy"] == 1


def test_higher_is_better__knows_every_scalar(task):
    metrics = task.collection()
    metrics.update(torch.eye(3), torch.arange(3))
    lower = {"calibration_error", "loss"}
    for name in {*task.scalars(metrics.compute()), "loss"}:
        assert task.higher_is_better(name) == (name not in lower)


@pytest.mark.parametrize("metric", ["acuracy", "precision", "precision/music", "auroc/sport", ""])
def test_higher_is_better__refuses_the_unknown(task, metric):
    with pytest.raises(InputError, match="Classification has: loss, accuracy") as caught:
        task.higher_is_better(metric)
    assert ("did you mean 'accuracy'?" in caught.value.mend) == (metric == "acuracy")


@pytest.mark.parametrize(("name", "key"), [("a/b", "a_b_0"), ("a_b", "a_b_1"), ("x: y", "x_ y")])
def test_higher_is_better__names_the_key_of_a_class(name, key):
    task = Classification()
    task.fit(["a/b", "a_b", "x: y"])
    with pytest.raises(InputError, match="unknown metric") as caught:
        task.higher_is_better(f"f1/{name}")
    assert f"did you mean 'f1/{key}'?" in caught.value.mend and task.higher_is_better(f"f1/{key}")


def test_higher_is_better__answers_before_fit():
    task = Classification()
    assert task.higher_is_better("accuracy")
    assert task.higher_is_better("recall/any")
    assert not task.higher_is_better("calibration_error")


def test_records__name_classes_and_give_probabilities(task):
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]], requires_grad=True)
    records = task.records(logits.bfloat16(), torch.tensor([1, 2]))
    assert records["target"] == ["sport", "tech"]
    assert records["prediction"] == ["a/b $", "tech"]
    torch.testing.assert_close(torch.tensor(records["scores"]), logits.softmax(1))
    assert all(type(score) is float for row in records["scores"] for score in row)


def test_figures__confusion_matrix(task):
    figures = task.figures({"target": ["sport", "tech"], "prediction": ["sport", "sport"]})
    ticks = [tick.get_text() for tick in figures["confusion_matrix"].axes[0].get_yticklabels()]
    assert list(figures) == ["confusion_matrix"]
    assert ticks == [r"a/b \$", "sport", "tech"]


def test_task__travels_to_another_process():
    task = Classification(ClassBalanced(beta=0.9), calibration_bins=5)
    task.fit(LABELS)
    for twin in (pickle.loads(pickle.dumps(task)), copy.deepcopy(task)):
        assert twin.summary() == task.summary()
        batch = {"target": torch.tensor([0, 2])}
        logits = torch.randn(2, 3)
        assert twin.loss(logits, batch) == task.loss(logits, batch)


def test_constructor__refuses_no_bins():
    with pytest.raises(ValueError, match="calibration_bins must be at least 1, got 0"):
        Classification(calibration_bins=0)
