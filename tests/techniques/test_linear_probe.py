"""A linear probe at its optimum: scikit-learn's, the same for all seeds, alone and together."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matrix import World, make_world
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression

from ftlab.data.sampling import Balanced
from ftlab.data.text_augment import TextAugment
from ftlab.errors import GuardFailed
from ftlab.tasks.classification import Classification
from ftlab.tasks.losses.focal import Focal
from ftlab.tasks.losses.weighted_cross_entropy import WeightedCrossEntropy
from ftlab.techniques import head_optimum
from ftlab.techniques.base import Technique
from ftlab.techniques.head_optimum import ByEpochs
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.techniques.wrapper import Wrapper
from ftlab.tracking.cell_hash import cell_hash
from ftlab.training.checkpoint import WEIGHTS
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.shared_fit import execute_together
from ftlab.training.shortcuts.prefix_cache import prefix_source
from ftlab.training.shortcuts.prefix_cache.cache_estimate import Forecast
from ftlab.training.trainer_settings import TrainerSettings
from ftlab.training.trial import search

UNRENDERED = True
DECAY = 0.01


@pytest.fixture(autouse=True)
def worth_caching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_source, "foresee", lambda *_: Forecast(1, 2.0, 1.0, 0.0, 1000))


@pytest.fixture
def texts(request: pytest.FixtureRequest) -> World:
    return make_world("text_classification", request.getfixturevalue)


def a_run(world: World, directory: Path, technique: Technique, seed: int = 7, plain: bool = False,
          change: Callable[[Run], None] = lambda run: None, **trainer: Any) -> Run:
    backbone, data = world()
    directory.mkdir(parents=True)
    record = {"backbone": {"source": repr(vars(backbone))}, "data": {"init_args": {}}}
    run = Run(backbone, data, technique, TrainerSettings(**{"max_epochs": 2} | trainer), seed,
              "val/accuracy", directory, record, plain)
    change(run)
    return run


def head(directory: Path) -> dict[str, np.ndarray]:
    return {name.rpartition(".")[2]: tensor.numpy()
            for name, tensor in load_file(directory / "checkpoint" / WEIGHTS).items()}


def notes(events: list[dict[str, Any]]) -> str:
    return " ".join(event["text"] for event in events if "text" in event)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("views", [None, 2])
def test_optimum__is_scikit_learn_s_of_all_views(
    weighted: bool, views: int | None, texts: World, tmp_path: Path
) -> None:
    def change(run: Run) -> None:
        if weighted:
            run.data.task = Classification(WeightedCrossEntropy())
        if views:
            run.data.augment = TextAugment(dropout=0.5, views=views)  # type: ignore[attr-defined]

    run = a_run(texts, tmp_path / "run", LinearProbe(decay=DECAY), change=change)
    metrics = execute(run, lambda event: None)
    model = run.technique.model.eval()
    features, target = [], []
    for view in range(views or 1):
        loader = run.data.view_loader(view) if views else run.data.eval_loader("train")
        for batch in loader:
            with torch.no_grad():
                features.append(model.features(batch))
            target.append(batch["target"])
    x, y = torch.cat(features).double().numpy(), torch.cat(target).numpy()
    # two classes have two rows of half the size each, in place of scikit-learn's one
    counts = np.bincount(y)
    weights = (1 / counts)[y] if weighted else np.ones(len(y))
    reference = LogisticRegression(C=2 / DECAY, tol=1e-10, max_iter=100_000, solver="newton-cg").fit(
        x, y, sample_weight=weights / weights.sum())
    found = head(tmp_path / "run")
    np.testing.assert_allclose(found["weight"][1] - found["weight"][0], reference.coef_[0], atol=1e-3)
    assert metrics["cost/trainable_parameters"] == found["weight"].size + found["bias"].size
    assert metrics["cost/train_seconds"] > 0
    assert metrics["best_epoch"] == 1


def test_seeds__give_the_same_alone_and_together(texts: World, tmp_path: Path) -> None:
    runs = [a_run(texts, tmp_path / f"t{seed}", LinearProbe(), seed) for seed in (1, 2, 3)]
    events: list[list[dict[str, Any]]] = [[] for _ in runs]
    together = execute_together(runs, [each.append for each in events], None)
    alone = execute(a_run(texts, tmp_path / "alone", LinearProbe(), 4, plain=True), lambda event: None)
    expected = head(tmp_path / "alone")
    for run, result, said in zip(runs, together, events, strict=True):
        assert not isinstance(result, Exception), result
        assert result["test/accuracy"] == alone["test/accuracy"]
        assert result["test/loss"] == pytest.approx(alone["test/loss"], rel=1e-5)
        found = head(run.directory)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, atol=1e-4)
        assert "solved with the features of 3 runs" in notes(said)
        assert "the head is at its optimum" in notes(said)


def test_trials__are_solved_together_and_fail_alone(
    texts: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decays = [1.0, 1e-3, 1e-12, 1e-2]
    runs = [a_run(texts, tmp_path / f"t{number}", LinearProbe(decay=decay))
            for number, decay in enumerate(decays)]
    minimum = head_optimum.HeadProblem.minimum

    def hurried(problem: Any, decay: float, tolerance: float) -> Any:
        monkeypatch.setattr(head_optimum, "MOST", 1 if decay < 1e-9 else 2000)
        return minimum(problem, decay, tolerance)

    monkeypatch.setattr(head_optimum.HeadProblem, "minimum", hurried)
    events: list[dict[str, Any]] = []
    results = execute_together(runs, [events.append] * 4, [lambda: False] * 4)
    assert notes(events).count("solved with the features of 4 runs") == 4
    assert isinstance(results[2], GuardFailed)
    assert "the head's optimum was not reached: after 1 iterations" in str(results[2])
    for number in (0, 1, 3):
        again = search(a_run(texts, tmp_path / f"a{number}", LinearProbe(decay=decays[number])),
                       lambda event: None)
        found = results[number]
        assert not isinstance(found, Exception), found
        assert found["val/loss"] == pytest.approx(again["val/loss"], rel=1e-5)
        assert found["pruned"] == 0


def test_decay__is_the_best_on_validation(texts: World, tmp_path: Path) -> None:
    chosen = search(a_run(texts, tmp_path / "chosen", LinearProbe()), lambda event: None)
    fixed = [search(a_run(texts, tmp_path / f"{decay}", LinearProbe(decay=decay)), lambda event: None)
             for decay in (1e-4, 1e-2, 1.0, 1e2)]
    assert chosen["val/accuracy"] >= max(each["val/accuracy"] for each in fixed)


class Louder(Wrapper):
    """Minimises something else."""

    def __init__(self, technique: Technique) -> None:
        super().__init__(technique)

    def objective(self, model: Any, task: Any, batch: Any) -> torch.Tensor:
        return 2 * self.technique.objective(model, task, batch)


def focal(run: Run) -> None:
    run.data.task = Classification(Focal())


def balanced(run: Run) -> None:
    run.data.sampling = Balanced()


def augmented(run: Run) -> None:
    run.data.augment = TextAugment(dropout=0.1)  # type: ignore[attr-defined]


def own_loss(run: Run) -> None:
    class Own(Classification):
        def loss(self, outputs: Any, batch: Any) -> torch.Tensor:
            return super().loss(outputs, batch).sqrt()

    run.data.task = Own()


def wrapped(run: Run) -> None:
    run.technique = Louder(run.technique)


@pytest.mark.parametrize(("change", "why"), [
    (focal, "the loss is not known to be convex"),
    (own_loss, "the loss is not known to be convex"),
    (balanced, "sampling Balanced draws examples anew"),
    (augmented, "augmentation changes the examples every epoch"),
    (wrapped, "Louder has its own objective"),
])
def test_no_optimum__trains_by_epochs_and_says_why(
    change: Callable[[Run], None], why: str, texts: World, tmp_path: Path
) -> None:
    events: list[dict[str, Any]] = []
    run = a_run(texts, tmp_path / "run", LinearProbe(), change=change, max_epochs=1)
    search(run, events.append)
    assert f"the head trains by epochs: {why}" in notes(events)
    assert any("train/loss" in event["metrics"] for event in events if event["event"] == "metrics")


@pytest.mark.parametrize(("name", "solved"), [
    ("multi_label", True), ("token_classification", True), ("text_classification_decoder", True),
    ("image_classification_clip", True), ("object_detection", False),
])
def test_worlds__that_have_an_optimum(name: str, solved: bool, request: pytest.FixtureRequest) -> None:
    backbone, data = make_world(name, request.getfixturevalue)()
    data.augment = None
    data.load()
    data.connect(backbone, 0)
    technique = LinearProbe()
    model = technique.bind(backbone.build(data.task).eval(), data.task).model
    if solved:
        assert technique.optimum(model, data) is not None
        assert LinearProbe(solver=None).optimum(model, data) is None
    else:
        with pytest.raises(ByEpochs):
            technique.optimum(model, data)


def test_hash__of_epochs_is_what_it_was_and_of_the_solver_another() -> None:
    """What earlier versions trained by epochs is never shown as the solver's."""
    def hashed(**more: Any) -> str:
        technique = {"class_path": "ftlab.techniques.linear_probe.LinearProbe",
                     "init_args": {"lr": 0.005, **more}}
        return cell_hash({"backbone": {}, "data": {}, "technique": technique})

    assert hashed(solver=None, decay=None) == hashed()
    assert hashed(solver="lbfgs", decay=None) != hashed()


@pytest.mark.parametrize(("arguments", "message"), [
    ({"solver": "newton"}, "solver must be lbfgs or null, got 'newton'"),
    ({"decay": 0.0}, "decay must be above 0, got 0.0"),
    ({"decay": 1.0, "solver": None}, "decay must be null where solver is"),
])
def test_bad_values(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearProbe(**arguments)


def test_gradient__left_is_told(texts: World, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    search(a_run(texts, tmp_path / "run", LinearProbe(decay=DECAY)), events.append)
    (measured,) = [event["metrics"] for event in events if event["event"] == "metrics"]
    assert measured["train/grad_norm"] <= head_optimum.TIGHT
    assert math.isfinite(measured["train/epoch_loss"])


def test_subclass__with_a_fit_of_its_own_trains_by_epochs(texts: World, tmp_path: Path) -> None:
    class Halved(LinearProbe):
        def objective(self, model: Any, task: Any, batch: Any) -> torch.Tensor:
            return super().objective(model, task, batch) / 2

    events: list[dict[str, Any]] = []
    execute(a_run(texts, tmp_path / "run", Halved()), events.append)
    assert "the head trains by epochs: Halved has its own objective" in notes(events)
