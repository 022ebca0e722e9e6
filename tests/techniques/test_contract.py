"""What every technique keeps, on a tiny transformer and a tiny CNN.

A file dropped into `ftlab/techniques` is held to this without an edit here.
"""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ftlab.backbones.base import Backbone
from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.base import DataModule
from ftlab.data.image import ImageClassification
from ftlab.data.image_augment import ImageAugment
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible
from ftlab.studies.discover import members
from ftlab.techniques.base import Optimization, Technique
from ftlab.training import checkpoint
from ftlab.training.run import Run, execute
from ftlab.training.settings import TrainerSettings

TECHNIQUES = members(Technique)
TEXT_ONLY = {"PrefixTuning", "PromptTuning"}
World = Callable[[], tuple[Backbone, DataModule]]


def make(name: str) -> Technique:
    """With a rate that a tiny random network needs, everything else as shipped."""
    cls = TECHNIQUES[name]
    if "technique" in inspect.signature(cls).parameters:
        return cls(technique=TECHNIQUES["LoRA"](lr=3e-2))
    return cls(lr=3e-2 if name in {"IA3", "LinearProbe", "BitFit", "NormTuning"} else 1e-2)


@pytest.fixture(params=["transformer", "cnn"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "transformer":
        folder, table = request.getfixturevalue("tiny_bert"), request.getfixturevalue("reviews")
        return lambda: (
            HuggingFace(str(folder), pooling="mean", dropout=0.0),
            TextClassification(str(table), max_length=32, batch_size=8),
        )
    folder, images = request.getfixturevalue("tiny_resnet"), request.getfixturevalue("shapes")
    return lambda: (
        HuggingFace(str(folder)),
        ImageClassification(
            str(images), image_size=32, batch_size=8, augment=ImageAugment(policy="none")
        ),
    )


@pytest.fixture(params=TECHNIQUES)
def name(request: pytest.FixtureRequest, world: World) -> str:
    chosen: str = request.param
    if chosen in TEXT_ONLY and isinstance(world()[1], ImageClassification):
        backbone, data = world()
        data.load()
        with pytest.raises(Incompatible, match=r"needs a text encoder"):
            make(chosen).attach(backbone.build(data.task), data.task)
        pytest.skip(f"{chosen} is refused on a CNN, which was just shown")
    return chosen


def losses(events: list[dict]) -> list[float]:
    return [
        event["metrics"]["train/epoch_loss"]
        for event in events
        if event["event"] == "metrics" and "train/epoch_loss" in event["metrics"]
    ]


def test_contract(name: str, world: World, tmp_path: Path) -> None:
    backbone, data = world()
    technique = make(name)
    torch.manual_seed(7)
    events: list[dict] = []
    settings = TrainerSettings(max_epochs=6, gradient_clip=None)
    run = Run(backbone, data, technique, settings, 7, "val/loss", tmp_path)
    metrics = execute(run, events.append)

    # The loss falls.
    course = losses(events)
    assert len(course) == 6
    assert course[-1] < course[0]

    # What was frozen is bit-identical to a fresh build, what trained has moved. The guards in
    # `execute` said so of the last epoch; this looks at the restored one, from outside.
    torch.manual_seed(7)
    fresh_backbone, fresh_data = world()
    fresh_data.load()
    fresh = make(name).attach(fresh_backbone.build(fresh_data.task), fresh_data.task).model
    trained_now = dict(technique.model.named_parameters())
    before = dict(fresh.named_parameters())
    frozen = [n for n in before if n in trained_now and n not in technique.trained]
    if not name.startswith(("FullFine", "Gradual", "LinearProbeThen")):
        assert frozen, "a cheaper technique keeps something"
    # Measuring merged the run's model, which folds PEFT's weights into frozen ones.
    for n in frozen if "cost/latency_merged_seconds" not in metrics else ():
        assert torch.equal(before[n], trained_now[n]), n
    assert technique.trained
    assert metrics["cost/trainable_parameters"] == sum(
        trained_now[n].numel() for n in technique.trained
    )

    # The checkpoint on a fresh build gives the logits of the run's own model.
    manifest = checkpoint.load(tmp_path / "checkpoint", fresh)
    assert manifest["epoch"] == metrics["best_epoch"]
    batch = next(iter(data.test_dataloader()))
    with torch.no_grad():
        ours, again = technique.model.eval()(batch), fresh.eval()(batch)
    torch.testing.assert_close(ours, again, rtol=1e-4, atol=1e-4)


def test_identity_at_start(name: str, world: World) -> None:
    backbone, data = world()
    data.load()
    data.connect(backbone, seed=0)
    model = backbone.build(data.task).eval()
    batch = next(iter(data.test_dataloader()))
    technique = make(name)
    with torch.no_grad():
        before = model(batch)
        after = technique.attach(model, data.task).eval().model(batch)
    same = torch.allclose(before, after, atol=1e-6)
    assert same == technique.identity_at_start


def test_frozen_blocks_run_in_eval_mode(name: str, world: World) -> None:
    backbone, data = world()
    data.load()
    model = backbone.build(data.task)
    technique = make(name).attach(model, data.task)
    technique.begin_epoch(model, 0, 6)
    technique.train()
    for block in model.blocks:
        trains = any(parameter.requires_grad for parameter in block.parameters())
        modes = {module.training for _, module in block.named_modules()}
        assert trains or modes == {False}, block


@pytest.mark.parametrize("name", TECHNIQUES)
def test_docstring_names_its_source(name: str) -> None:
    said = inspect.getdoc(TECHNIQUES[name]) or ""
    assert re.search(r"\(\d{4}\)", said), "authors and year"
    assert re.search(r"https://arxiv\.org/abs/\d{4}\.\d{5}", said), "a link"


@pytest.mark.parametrize("name", TECHNIQUES)
def test_search_space_names_arguments(name: str) -> None:
    space = TECHNIQUES[name].search_space
    assert space
    assert space.keys() <= inspect.signature(TECHNIQUES[name]).parameters.keys()


@pytest.mark.parametrize("lr", [0.0, -1.0])
@pytest.mark.parametrize("name", [n for n in TECHNIQUES if n != "DiscriminativeLR"])
def test_rate_must_be_positive(name: str, lr: float) -> None:
    with pytest.raises(ValueError, match=f"lr must be above 0, got {lr}"):
        TECHNIQUES[name](lr=lr)


def test_optimization__schedules() -> None:
    total = 100
    linear = Optimization(schedule="linear", warmup=0.1)
    assert linear.factor(0, total) == 0
    assert linear.factor(5, total) == pytest.approx(0.5)
    assert linear.factor(10, total) == 1
    assert linear.factor(55, total) == pytest.approx(0.5)
    assert linear.factor(100, total) == 0
    cosine = Optimization(schedule="cosine", warmup=0.0)
    assert cosine.factor(25, total) == pytest.approx(0.5 + 0.5 * 2**-0.5)
    assert cosine.factor(100, total) == pytest.approx(0)
    cycle = Optimization(schedule="one-cycle", warmup=0.3)
    assert cycle.factor(0, total) == pytest.approx(1 / 25)
    assert max(cycle.factor(s, total) for s in range(total)) == cycle.factor(30, total) == 1
    constant = Optimization(schedule="constant", warmup=0.0)
    assert {constant.factor(s, total) for s in range(total)} == {1.0}
