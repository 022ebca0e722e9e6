import copy
import io
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from ftlab.errors import InputError
from ftlab.tasks.regression import Regression
from ftlab.tasks.regression_metrics import ranks

LABELS = ["10", 20.0, "3e1", 40]


@pytest.fixture
def task() -> Regression:
    task = Regression()
    task.fit(LABELS)
    return task


def test_fit__learns_mean_and_deviation(task):
    assert task.summary() == {
        "train_mean": 25, "train_standard_deviation": pytest.approx(np.std([10, 20, 30, 40]))}
    assert task.outputs == 1
    assert [task.encode(label, "") for label in LABELS] == [10, 20, 30, 40]


@pytest.mark.parametrize("label", ["much", "0,5", "nan", "inf", "", None, True, [1.0]])
def test_encode__refuses_what_is_no_number_and_names_the_place(task, label):
    task.fit([*LABELS, label])  # the place is known to `encode` alone
    with pytest.raises(InputError, match=r"data.csv, row 3: .* is no number"):
        task.encode(label, "data.csv, row 3")


@pytest.mark.parametrize("labels", [[], ["1", 1.0]])
def test_fit__needs_targets_that_differ(labels):
    with pytest.raises(InputError, match="targets that differ"):
        Regression().fit(labels)


@pytest.mark.parametrize(("labels", "said"), [
    ([1.7e9, 1.7e9 + 10], r"close together for float32: up to 1700000010, and .* of 5\n"),
    ([1e6, 1e6 + 1], "subtract a constant from all of them, 1000000.5 for instance")])
def test_fit__refuses_what_float32_cannot_tell_apart(labels, said):
    with pytest.raises(InputError, match=said):
        Regression().fit(labels)
    Regression().fit([label - labels[0] for label in labels])
    Regression().fit([*labels, 0.0])  # the spread counts, not the size


@pytest.mark.parametrize("labels", [[1e39, 2e39], [1e300, 2e300], [1e20, 2e20], [1e-30, 2e-30]])
def test_fit__refuses_what_has_no_square_in_float32(labels):
    deviation = torch.tensor((labels[1] - labels[0]) / 2, dtype=torch.float32)
    assert not 0 < deviation.square() < np.inf
    with pytest.raises(InputError, match="float32 does not hold their squares"):
        Regression().fit(labels)


@pytest.mark.parametrize("labels", [["\u22121", "2"], [10**400, 1], ["x", "y"], ["2", "2", "x"]])
def test_what_is_no_number__is_named_and_not_its_neighbours(labels):
    task = Regression()
    task.fit(labels)
    with pytest.raises(InputError, match=r"row: .* is no number"):
        for label in labels:
            task.encode(label, "row")


def test_unfitted__says_so():
    with pytest.raises(RuntimeError, match="fit"):
        Regression().loss(torch.zeros(2, 1), {"target": torch.zeros(2)})


@pytest.mark.parametrize("name", ["mse", "mae", "huber"])
def test_loss__does_not_depend_on_the_unit(name):
    found = []
    for factor, shift in ((1.0, 0.0), (1000.0, -7.0)):
        task = Regression(name)
        task.fit([factor * float(label) + shift for label in LABELS])
        target = torch.tensor([12.0, 35.0]) * factor + shift
        found.append(float(task.loss(torch.tensor([[0.3], [-2.0]]), {"target": target})))
    z = (np.array([12, 35]) - 25) / np.std([10, 20, 30, 40])
    error = np.abs(np.array([0.3, -2.0]) - z)
    by_hand = {"mse": error**2, "mae": error,
               "huber": np.where(error < 1, error**2 / 2, error - 0.5)}
    assert found == pytest.approx([by_hand[name].mean()] * 2, rel=1e-4)


@pytest.mark.parametrize("name", ["mse", "mae", "huber"])
def test_loss__of_half_precision_is_computed_in_float32(name):
    task = Regression(name)
    task.fit(LABELS)
    half, batch = torch.randn(5, 1).bfloat16(), {"target": torch.rand(5) * 40}
    assert torch.equal(task.loss(half, batch), task.loss(half.float(), batch))
    assert task.loss(half.double(), batch).dtype == torch.float64
    assert torch.equal(task.predict(None, {}, half), task.predict(None, {}, half.float()))


def test_predict__is_in_the_target_s_units(task):
    target = torch.tensor([12.0, 35.0])
    outputs = ((target - task.mean) / np.std([10, 20, 30, 40])).unsqueeze(1).float()
    assert float(task.loss(outputs, {"target": target})) == pytest.approx(0, abs=1e-10)
    torch.testing.assert_close(task.predict(None, {}, outputs), target)
    records = task.records(task.predict(None, {}, outputs), target)
    assert records["prediction"] == pytest.approx([12, 35])
    assert records["scores"] == [[p] for p in records["prediction"]]
    assert records["target"] == [12, 35]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(-4, 4), st.floats(-5, 5, width=16)), min_size=3, max_size=40))
def test_metrics__are_scipy_s_and_scikit_learn_s(rows):
    target, prediction = (np.array(column, dtype=np.float32) for column in zip(*rows, strict=True))
    metrics = Regression().collection()
    for part in (slice(0, 1), slice(1, None)):
        metrics.update(torch.tensor(prediction[part]), torch.tensor(target[part]))
    found = {name: float(value) for name, value in metrics.compute().items()}
    varied = len(set(target)) > 1 and len(set(prediction)) > 1
    mse = sk.mean_squared_error(target, prediction)
    exact = target.astype(float), prediction.astype(float)
    wanted = {
        "mse": mse, "rmse": mse**0.5, "mae": sk.mean_absolute_error(target, prediction),
        "pearson": stats.pearsonr(*exact).statistic if varied else np.nan,
        "spearman": stats.spearmanr(*exact).statistic if varied else np.nan,
        "r2": sk.r2_score(*exact) if len(set(target)) > 1 else np.nan,
    }
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-5, nan_ok=True)


def test_ranks__are_scipy_s():
    values = np.random.default_rng(0).integers(0, 5, 30)
    assert ranks(torch.tensor(values)).tolist() == stats.rankdata(values).tolist()


def test_higher_is_better__knows_every_metric(task):
    lower = {"loss", "mse", "rmse", "mae"}
    for name in {*(metric.name for metric in Regression().metrics()), "loss"}:
        assert task.higher_is_better(name) == (name not in lower)
    with pytest.raises(InputError, match="did you mean 'pearson'"):
        task.higher_is_better("persson")


def test_figures__scatter(task):
    figures = task.figures({"target": [1.0, 2.0], "prediction": [1.5, 2.5]})
    png = io.BytesIO()
    figures["scatter"].savefig(png, format="png")
    assert png.getvalue().startswith(b"\x89PNG")
    points = figures["scatter"].axes[0].collections[0].get_offsets()
    assert points.tolist() == [[1, 1.5], [2, 2.5]]


def test_task__travels_to_another_process(task):
    for twin in (pickle.loads(pickle.dumps(task)), copy.deepcopy(task)):
        assert twin.summary() == task.summary()


def test_constructor__refuses_an_unknown_loss():
    with pytest.raises(ValueError, match="loss must be one of mse, mae, huber, got 'l1'"):
        Regression("l1")
