"""Baselines on features against scikit-learn, on the features of tiny networks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matrix import World, make_world
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestCentroid
from torch import Tensor

from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.techniques.base import Technique
from ftlab.techniques.features import Features
from ftlab.techniques.logistic_head import GRID
from ftlab.techniques.logistic_regression import LogisticRegression
from ftlab.techniques.nearest_class_mean import NearestClassMean
from ftlab.techniques.nearest_neighbours import NearestNeighbours
from ftlab.training import checkpoint
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
Made = Callable[[str], World]


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Made:
    return lambda name: make_world(name, request.getfixturevalue)


def fitted(made: World, technique: Technique) -> tuple[DataModule, dict[str, Tensor], Tensor]:
    """The data, features of train and test with `target` beside them, and the outputs for test."""
    torch.manual_seed(0)
    backbone, data = made()
    data.load()
    data.connect(backbone, 0)
    model = backbone.build(data.task).eval()
    plain = Features(model, data).train
    read = {"train": plain.features, "train target": plain.batch["target"]}
    with torch.no_grad():
        test = [(model.features(batch), batch) for batch in data.eval_loader("test")]
        read["test"] = torch.cat([features for features, _ in test]).double()
        read["test target"] = torch.cat([batch["target"] for _, batch in test])
        technique.prepare(data)
        technique.bind(model, data.task)
        technique.begin_fit(model, data, 0)
        model.eval()
        return data, read, torch.cat([model(batch) for _, batch in test]).double()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 5])
def test_neighbours__are_scikit_learn_s(world: Made, k: int, metric: str) -> None:
    _, read, outputs = fitted(world("text_classification"), NearestNeighbours(k, metric))
    reference = KNeighborsClassifier(k, metric=metric, algorithm="brute").fit(
        read["train"].float(), read["train target"])
    np.testing.assert_allclose(outputs.softmax(dim=1), reference.predict_proba(read["test"].float()),
                               atol=1e-4)


def test_neighbours__give_the_mean_of_numbers(world: Made) -> None:
    data, read, outputs = fitted(world("regression"), NearestNeighbours(3, "euclidean"))
    reference = KNeighborsRegressor(3, algorithm="brute").fit(read["train"], read["train target"])
    ours = data.task.predict(None, {}, outputs)  # type: ignore[arg-type]  # asks no model
    np.testing.assert_allclose(ours, reference.predict(read["test"]), rtol=1e-4)


def test_neighbours__of_several_labels_vote_for_each(world: Made) -> None:
    _, read, outputs = fitted(world("multi_label"), NearestNeighbours(4, "euclidean"))
    reference = KNeighborsRegressor(4, algorithm="brute").fit(read["train"], read["train target"])
    np.testing.assert_allclose(outputs.sigmoid(), reference.predict(read["test"]), atol=1e-4)


def test_neighbours__their_number_is_the_best_on_validation(world: Made) -> None:
    technique = NearestNeighbours()
    data, _, _ = fitted(world("text_classification"), technique)
    assert technique.k in range(1, 21)
    rows, width = len(data.splits["train"]), technique.model.features(next(iter(
        data.val_dataloader()))).shape[1]
    assert technique.costs() == {"bank_bytes": 4.0 * rows * (width + len(data.task.names))}
    assert data.notes[-1] == f"NearestNeighbours: k = {technique.k}, chosen on val/accuracy"
    scores = {}
    for k in range(1, 21):
        torch.manual_seed(0)
        backbone, again = world("text_classification")()
        again.load()
        again.connect(backbone, 0)
        fixed = NearestNeighbours(k)
        fixed.prepare(again)
        model = fixed.bind(backbone.build(again.task).eval(), again.task).model
        with torch.no_grad():
            fixed.begin_fit(model, again, 0)
            right = [model(batch).argmax(dim=1) == batch["target"] for batch in again.val_dataloader()]
        scores[k] = float(torch.cat(right).double().mean())
    assert scores[technique.k] == max(scores.values())


def test_class_means__are_scikit_learn_s(world: Made) -> None:
    _, read, outputs = fitted(world("text_classification"), NearestClassMean())
    reference = NearestCentroid().fit(read["train"], read["train target"])
    np.testing.assert_array_equal(outputs.argmax(dim=1), reference.predict(read["test"]))


def test_logistic_regression__is_scikit_learn_s(world: Made) -> None:
    _, read, outputs = fitted(world("text_classification"), LogisticRegression(C=3.0))
    reference = Reference(C=3.0, tol=1e-10, max_iter=100_000, solver="newton-cg").fit(
        read["train"], read["train target"])
    np.testing.assert_allclose(outputs.softmax(dim=1), reference.predict_proba(read["test"]),
                               atol=1e-4)


def test_logistic_regression__of_several_labels_is_one_each(world: Made) -> None:
    _, read, outputs = fitted(world("multi_label"), LogisticRegression(C=3.0))
    for label in range(outputs.shape[1]):
        reference = Reference(C=3.0, tol=1e-10, max_iter=100_000, solver="newton-cg").fit(
            read["train"], read["train target"][:, label])
        np.testing.assert_allclose(outputs[:, label].sigmoid(),
                                   reference.predict_proba(read["test"])[:, 1], atol=1e-4)


def test_logistic_regression__chooses_its_strength(world: Made) -> None:
    technique = LogisticRegression()
    data, _, _ = fitted(world("text_classification"), technique)
    assert any(pytest.approx(C) == technique.C for C in GRID)
    assert any("chosen on val/accuracy" in note for note in data.notes)


@pytest.mark.parametrize(("technique", "name", "mend"), [
    (LogisticRegression(), "regression", "take LinearProbe, which for numbers is ridge"),
    (NearestClassMean(), "multi_label", "take NearestNeighbours"),
    (NearestNeighbours(), "token_classification", "take LinearProbe"),
])
def test_tasks_of_another_kind__are_refused(
    world: Made, technique: Technique, name: str, mend: str
) -> None:
    _, data = world(name)()
    data.load()
    with pytest.raises(Incompatible, match=mend):
        technique.prepare(data)


@pytest.mark.parametrize(("cls", "arguments", "message"), [
    (NearestNeighbours, {"k": 0}, "k must be at least 1, got 0"),
    (NearestNeighbours, {"metric": "dot"}, "metric must be one of cosine, euclidean, got 'dot'"),
    (LogisticRegression, {"C": 0.0}, "C must be above 0, got 0.0"),
])
def test_bad_values(cls: type, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**arguments)


def test_neighbours__are_restored_from_the_checkpoint(world: Made, tmp_path: Path) -> None:
    backbone, data = world("text_classification")()
    run = Run(backbone, data, NearestNeighbours(3), TrainerSettings(), 7, "val/accuracy", tmp_path)
    execute(run, lambda event: None)
    torch.manual_seed(99)
    backbone, data = world("text_classification")()
    data.load()
    data.connect(backbone, 99)
    technique = NearestNeighbours(3)
    technique.prepare(data)
    fresh = technique.bind(backbone.build(data.task).eval(), data.task).model
    checkpoint.load(tmp_path / "checkpoint", fresh)
    batch = next(iter(data.test_dataloader()))
    with torch.no_grad():
        assert torch.equal(run.technique.model.eval()(batch), fresh.eval()(batch))
