"""Gradients added up over batches make the update of all their examples in one batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matrix import make_world

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.base import DataModule
from ftlab.data.text import TextClassification
from ftlab.tasks.classification import Classification
from ftlab.tasks.losses.class_balanced import ClassBalanced
from ftlab.tasks.losses.cross_entropy import CrossEntropy
from ftlab.tasks.losses.focal import Focal
from ftlab.tasks.losses.weighted_cross_entropy import WeightedCrossEntropy
from ftlab.tasks.regression import Regression
from ftlab.techniques.base import Optimization
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.training.adapt import adapt
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings
from ftlab.training.trial import search

SGD = Optimization("sgd", weight_decay=0.0, schedule="constant", warmup=0.0)


class Decayed(FullFineTuning):
    """Adds the squares of the weights to the loss."""

    def penalty(self, model: Any) -> torch.Tensor:
        return 1e-3 * torch.stack([p.square().sum() for p in model.parameters()]).sum()


@pytest.fixture
def unequal(reviews: Path, tmp_path: Path) -> Path:
    """Reviews of which few are bad."""
    header, *rows = reviews.read_text().splitlines()
    table = tmp_path / "unequal.csv"
    kept = [row for i, row in enumerate(rows) if row.endswith("good") or i % 6 == 0]
    table.write_text("\n".join([header, *kept]))
    return table


def a_run(world: Callable[[], Any], folder: Path, batch_size: int, **settings: Any) -> Run:
    backbone, data = world()
    backbone.dropout = 0.0
    data.batch_size, data.augment = batch_size, None
    folder.mkdir()
    trainer = TrainerSettings(**{"max_epochs": 1, "precision": "64-true", "log_every": 1} | settings)
    return Run(backbone, data, Decayed(1e-2, SGD), trainer, 3, "val/loss", folder, plain=True)


def curve(run: Run) -> list[tuple[int, dict[str, float]]]:
    events: list[dict[str, Any]] = []
    search(run, events.append)
    return [(event["step"], {name: value for name, value in event["metrics"].items()
                             if "seconds" not in name and name.count("/") < 2})
            for event in events if event["event"] == "metrics"]


WORLDS = ["seq2seq", "token_classification", "causal_lm", "speech_recognition_ctc",
          "speech_recognition_whisper", "multi_label"]
LOSSES = [WeightedCrossEntropy(2.0), ClassBalanced(), Focal(), CrossEntropy(0.1)]


@pytest.mark.parametrize("made", [*WORLDS, *LOSSES, Regression()],
                         ids=lambda made: made if isinstance(made, str) else type(made).__name__)
def test_window__is_one_batch(
    made: Any, tiny_bert: Path, unequal: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Losses, gradient norms, clipping, penalty and scores; an epoch's last window is shorter."""
    lengths = tmp_path / "lengths.csv"
    _, *rows = unequal.read_text().splitlines()
    lengths.write_text("\n".join(["text,label", *(f"{row.split(',')[0]},{len(row)}" for row in rows)]))

    def texts() -> tuple[HuggingFace, DataModule]:
        numbers = isinstance(made, Regression)
        return (HuggingFace(str(tiny_bert), pooling="mean", head_dropout=0.0),
                TextClassification(str(lengths if numbers else unequal), max_length=32,
                                   task=made if numbers else Classification(made)))

    world = make_world(made, request.getfixturevalue) if isinstance(made, str) else texts
    whole = curve(a_run(world, tmp_path / "whole", 8, gradient_clip=0.3))
    cut = curve(a_run(world, tmp_path / "cut", 2, accumulate=4, gradient_clip=0.3))
    assert [step for step, _ in cut] == [step for step, _ in whole]
    for (_, ours), (_, expected) in zip(cut, whole, strict=True):
        rel = 1e-6 if "epoch" in expected else 1e-8
        assert ours == pytest.approx(expected, rel=rel, abs=1e-8, nan_ok=True)


def test_weighted_loss__is_that_of_torch_over_whole_batches(
    tiny_bert: Path, unequal: Path, tmp_path: Path
) -> None:
    def world() -> tuple[HuggingFace, DataModule]:
        return (HuggingFace(str(tiny_bert), pooling="mean", head_dropout=0.0),
                TextClassification(str(unequal), max_length=32, bucketing=False,
                                   task=Classification(WeightedCrossEntropy())))

    ours = a_run(world, tmp_path / "ours", 3, accumulate=3, gradient_clip=None)
    ours.technique = FullFineTuning(1e-2, SGD)
    told = curve(ours)
    steps = {step: values for step, values in told if "train/loss" in values}
    other = a_run(world, tmp_path / "other", 9)
    torch.manual_seed(3)
    other.data.load()
    other.data.connect(other.backbone, 3)
    model, _ = adapt(other, lambda event: None)
    counts = torch.bincount(torch.tensor(other.data.splits["train"].targets)).double()
    loss = torch.nn.CrossEntropyLoss(weight=1 / counts)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    total, units = 0.0, 0.0
    for step, batch in enumerate(other.data.train_dataloader(), 1):
        optimizer.zero_grad()
        found = loss(model(batch), batch["target"])
        found.backward()
        assert steps[step]["train/loss"] == pytest.approx(found.item(), rel=1e-9)
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
        assert steps[step]["train/grad_norm"] == pytest.approx(float(norm), rel=1e-8)
        optimizer.step()
        weight = float((1 / counts)[batch["target"]].sum())
        total, units = total + weight * found.item(), units + weight
    assert len(steps) == step
    assert told[-1][1]["train/epoch_loss"] == pytest.approx(total / units)


def test_lone_example__joins_the_batch_before(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Of a network whose last maps have one pixel, in batches of all images but one."""
    runs = [a_run(make_world("image_classification", request.getfixturevalue), tmp_path / name, 8,
                  max_epochs=2, gradient_clip=None) for name in ("ours", "other")]
    for run in runs:
        run.technique, run.data.image_size = FullFineTuning(1e-2, SGD), 8  # type: ignore[attr-defined]
        run.data.load()
        run.data.batch_size = len(run.data.splits["train"]) - 1
    losses = [values["train/loss"] for _, values in curve(runs[0]) if "train/loss" in values]
    torch.manual_seed(3)
    data = runs[1].data
    data.connect(runs[1].backbone, 3)
    model, _ = adapt(runs[1], lambda event: None)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    everything = data.collate(True)([data.dataset("train", True)[i]
                                     for i in range(data.batch_size + 1)])
    everything["inputs"] = {name: value.double() for name, value in everything["inputs"].items()}
    expected = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(everything), everything["target"])
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    assert losses == pytest.approx(expected, rel=1e-8)
