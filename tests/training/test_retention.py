"""What a run retains: zero where nothing changes, and each column against an outside computation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matrix import make_world

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.text import TextClassification
from ftlab.errors import GuardFailed, Incompatible
from ftlab.statistics.cka import linear_cka
from ftlab.techniques.base import Technique
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.techniques.logistic_regression import LogisticRegression
from ftlab.techniques.lora import LoRA
from ftlab.techniques.nearest_class_mean import NearestClassMean
from ftlab.techniques.nearest_neighbours import NearestNeighbours
from ftlab.techniques.prompt_tuning import PromptTuning
from ftlab.techniques.untuned import Untuned
from ftlab.training import retention
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
CHANGES = ("retain.old/linear", "retain.old/fixed")
Make = Callable[..., Run]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Texts of three classes, which other words tell apart."""
    draw = np.random.default_rng(0)
    words = {"one": ["movie", "plot"], "two": ["the", "a"], "three": ["film", "was"]}
    lines = [f"{' '.join(draw.permutation([*draw.choice(words[label], 3), 'good']))},{label}"
             for label in draw.choice(list(words), 150)]
    path = tmp_path / "old.csv"
    path.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path, old: Path,
         monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))

    def run(technique: Technique, retained: Any = None, world: str = "text_classification",
            folder: str = "run", known: bool = True, epochs: int = 2) -> Run:
        backbone, data = make_world(world, request.getfixturevalue)()
        (tmp_path / folder).mkdir()
        kept: DataModule = retained or TextClassification(str(old), max_length=16, batch_size=16)
        record = {"backbone": {"class_path": world, "init_args": {}}, "technique": "", "trainer": {},
                  "data": {"class_path": world, "init_args": {}}, "retain": {"old": str(old)}}
        return Run(backbone, data, technique, TrainerSettings(max_epochs=epochs), 5, "val/loss",
                   tmp_path / folder, record if known else {}, retain={"old": kept})

    return run


def silent(event: Any) -> None:
    """Drops an event."""


@pytest.mark.parametrize("technique", [LinearProbe(), LinearProbe(solver=None), NearestClassMean(),
                                       NearestNeighbours(), LogisticRegression()])
def test_frozen_backbone__has_exactly_zero(technique: Technique, make: Make) -> None:
    found = execute(make(technique), silent)
    assert [found[name] for name in CHANGES] == [0.0, 0.0]
    assert found["retain.old/cka"] == 1.0 and found[retention.DISTANCE] == 0.0
    assert found["retain.old/linear_after"] == found["retain.old/linear_before"] > 0.4


@pytest.mark.parametrize("technique", [FullFineTuning(lr=1e-2), LoRA(lr=1e-1)])
def test_trained_backbone__against_outside_computations(technique: Technique, make: Make, old: Path) -> None:
    run = make(technique)
    found = execute(run, silent)
    # before: the score of the baseline on these data by itself
    alone = make(LogisticRegression(), folder="alone")
    alone.data, alone.retain = TextClassification(str(old), max_length=16, batch_size=16), {}
    assert found["retain.old/linear_before"] == pytest.approx(execute(alone, silent)["test/accuracy"])
    for kind in ("linear", "fixed"):
        assert found[f"retain.old/{kind}"] == pytest.approx(
            found[f"retain.old/{kind}_after"] - found["retain.old/linear_before"])
    # fixed: the old layer on the new features
    data = run.retain["old"]
    data.connect(run.backbone, 0)
    (layer,) = (m for _, m in alone.technique.model.head.named_modules()
                if isinstance(m, torch.nn.Linear))
    features = {name: examples_of(model, data) for name, model in
                (("new", run.technique.model), ("old", alone.technique.model))}
    right = (layer(features["new"]).argmax(dim=1).numpy() == np.array(data.splits["test"].targets))
    assert found["retain.old/fixed_after"] == pytest.approx(right.mean())
    assert found["retain.old/cka"] == pytest.approx(
        linear_cka(features["old"].double().numpy(), features["new"].double().numpy()), abs=1e-5)
    assert found["retain.old/cka"] < 0.9999
    start, now = alone.technique.model.state_dict(), run.technique.model.state_dict()
    now = {name.replace(".base_layer", ""): tensor for name, tensor in now.items()}
    names = [name for name, _ in alone.technique.model.named_parameters()
             if name.startswith("network.") and not alone.technique.model.head.holds(name)]
    gap, size = (sum(float(x.double().square().sum()) for x in tensors) for tensors in (
        [now[name] - start[name] for name in names], [start[name] for name in names]))
    assert found[retention.DISTANCE] == pytest.approx((gap / size) ** 0.5, rel=1e-6)


def examples_of(model: TaskModel, data: DataModule) -> torch.Tensor:
    """Features of the test split, in its order."""
    with torch.no_grad():
        seen = [(batch["index"], model.eval().features(batch)) for batch in data.eval_loader("test")]
    index, features = (torch.cat(parts) for parts in zip(*seen, strict=True))
    return features[index.argsort()]


def test_prompts__change_features_and_no_weight(make: Make) -> None:
    found = execute(make(PromptTuning(lr=1e-1)), silent)
    assert found[retention.DISTANCE] == 0.0
    assert found["retain.old/cka"] < 1.0


def test_before__is_computed_once(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = execute(make(LoRA(lr=1e-2)), silent)
    assert len(list((tmp_path / "cache" / "retained").glob("*.safetensors"))) == 1
    looks: list[Any] = []
    probed = retention._Look._probed

    def counted(look: Any, model: Any, before: Any) -> Any:
        looks.append(before)
        return probed(look, model, before)

    monkeypatch.setattr(retention._Look, "_probed", counted)
    assert execute(make(LinearProbe(), folder="other"), silent)[
        "retain.old/linear_before"] == first["retain.old/linear_before"]
    assert looks == []
    again = execute(make(LoRA(lr=1e-2), folder="again"), silent)
    assert len(looks) == 1 and looks[0] is not None
    assert {n: v for n, v in again.items() if n.startswith("retain")} == {
        n: v for n, v in first.items() if n.startswith("retain")}
    execute(make(LoRA(lr=1e-2), folder="unknown", known=False), silent)
    assert len(looks) == 3


def test_pre_trained_output_layer__is_asked_its_loss(make: Make, request: pytest.FixtureRequest) -> None:
    def retained() -> DataModule:
        return make_world("causal_lm", request.getfixturevalue)()[1]

    still = execute(make(Untuned(), retained(), "causal_lm"), silent)
    assert still["retain.old/output"] == 0.0
    # the same data as the run's own
    assert still["retain.old/output_before"] == pytest.approx(still["test/loss"], rel=1e-6)
    found = execute(make(FullFineTuning(lr=1e-2), retained(), "causal_lm", "tuned"), silent)
    assert found["retain.old/output_before"] == still["retain.old/output_before"]
    assert found["retain.old/output_after"] == pytest.approx(found["test/loss"], rel=1e-6)
    assert found["retain.old/output"] < 0 and "retain.old/linear" not in found


def test_guard__features_that_change_although_no_weight_does(make: Make) -> None:
    class Shifts(NearestClassMean):
        def begin_fit(self, model: Any, data: Any, steps: int) -> None:
            super().begin_fit(model, data, steps)
            layer = next(m for m in model.trunk.modules() if isinstance(m, torch.nn.LayerNorm))
            layer.register_forward_hook(lambda _, inputs, output: output + 0.1)

    with pytest.raises(GuardFailed, match="retain old: no weight of the backbone has changed"):
        execute(make(Shifts()), silent)


def test_without__nothing_is_looked_at(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "measure", lambda *_: pytest.fail("asked"))
    run = make(LoRA())
    run.retain = {}
    assert not [name for name in execute(run, silent) if name.startswith("retain")]


def test_kinds__that_make_no_sense(request: pytest.FixtureRequest) -> None:
    def world(name: str) -> tuple[TaskModel, DataModule]:
        backbone, data = make_world(name, request.getfixturevalue)()
        data.load()
        data.connect(backbone, 0)
        return backbone.build(data.task), data

    texts, numbers, language = (world(name) for name in (
        "text_classification", "regression", "causal_lm"))
    assert retention.kinds(*texts, texts[1]) == ["linear"]
    assert retention.kinds(*numbers, texts[1]) == ["linear"]
    assert retention.kinds(*language, language[1]) == ["output"]
    with pytest.raises(Incompatible, match="which cannot be asked"):
        retention.kinds(*language, texts[1])
    with pytest.raises(Incompatible, match="a probe tells classes"):
        retention.kinds(*texts, numbers[1])


def test_cka__of_turned_and_of_unlike_features() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(40, 5))
    turn, _ = np.linalg.qr(draw.normal(size=(5, 5)))
    assert linear_cka(x, 3 * x @ turn + 2) == pytest.approx(1)
    y = draw.normal(size=(40, 7))
    kernels = [z @ z.T for z in (x - x.mean(0), y - y.mean(0))]
    expected = np.trace(kernels[0] @ kernels[1]) / np.sqrt(
        np.prod([np.trace(kernel @ kernel) for kernel in kernels]))
    assert linear_cka(x, y) == pytest.approx(expected)
    assert np.isnan(linear_cka(x, np.ones((40, 3))))
