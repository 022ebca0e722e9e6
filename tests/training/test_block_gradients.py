import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.task_model import TaskModel
from ftlab.data.text import TextClassification
from ftlab.techniques.base import Technique
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.lora import LoRA
from ftlab.training.block_gradients import BlockGradients
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings


def small() -> TaskModel:
    layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    return TaskModel(layers, [("first", ["0"]), ("second", ["1"])], head=["2"])


def with_gradients(model: TaskModel, factor: float) -> None:
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, factor * (number + 1))


def test_look__is_the_norm_of_all_and_take_of_each_block() -> None:
    model, gradients = small(), BlockGradients()
    with_gradients(model, 1.0)
    total = gradients.look(model)
    parameters = list(model.parameters())
    torch.testing.assert_close(total, nn.utils.get_total_norm([p.grad for p in parameters]))
    with_gradients(model, 3.0)
    gradients.look(model)
    found = gradients.take()
    assert list(found) == ["train/grad_norm/first", "train/grad_norm/second", "train/grad_norm/head"]
    first = (9 * 1 + 3 * 4) ** 0.5  # nine weights of 1 and three biases of 2, then three times that
    assert found["train/grad_norm/first"] == pytest.approx(first * ((1 + 9) / 2) ** 0.5)
    assert gradients.take() == {}


@pytest.mark.parametrize(("dtype", "kept"), [(torch.float64, torch.float64),
                                             (torch.bfloat16, torch.float32)])
def test_look__keeps_the_precision_of_the_gradients(
    dtype: torch.dtype, kept: torch.dtype
) -> None:
    model = small().to(dtype)
    with_gradients(model, 1.0)
    assert BlockGradients().look(model).dtype == kept


def test_look__of_a_model_without_gradients_leaves_the_complaint_to_the_guard() -> None:
    gradients = BlockGradients()
    assert gradients.look(small()) == 0
    assert gradients.take() == {}


def test_look__finds_what_was_added_outside_every_block() -> None:
    model, gradients = small(), BlockGradients()
    model.added = nn.Parameter(torch.zeros(1))
    model.added.grad = torch.ones(1)
    gradients.look(model)
    assert gradients.take() == {}  # alone there is nothing to compare it with
    for _, parameter in model.head.named_parameters():
        parameter.grad = torch.zeros_like(parameter)
    gradients.look(model)
    assert gradients.take() == {"train/grad_norm/rest": 1.0, "train/grad_norm/head": 0.0}


@pytest.mark.parametrize("technique", [FullFineTuning(1e-3), LoRA(rank=2)])
def test_run__says_the_gradient_norm_of_each_block_after_each_epoch(
    tiny_bert: Path, reviews: Path, tmp_path: Path, technique: Technique
) -> None:
    run = Run(HuggingFace(str(tiny_bert)), TextClassification(str(reviews), max_length=32),
              technique, TrainerSettings(max_epochs=2, log_every=1), 0, "val/loss", tmp_path)
    events: list[dict[str, Any]] = []
    execute(run, events.append)
    ends = [event["metrics"] for event in events if "train/epoch_loss" in event.get("metrics", ())]
    assert len(ends) == 2
    model = technique.model
    trained = {b.name for b in [*model.blocks, model.head] for name, _ in b.named_parameters()
               if name in technique.trained}
    for found in ends:
        blocks = {name.split("/", 2)[2] for name in found if name.startswith("train/grad_norm/")}
        assert blocks == trained
        assert all(found[f"train/grad_norm/{name}"] > 0 for name in blocks)


def test_look__costs_little_beside_the_norm_that_it_replaces() -> None:
    """Twelve blocks of six layers; the plain norm alone reads the same numbers."""
    torch.manual_seed(0)
    layers = nn.Sequential(*(nn.Sequential(*(nn.Linear(256, 256) for _ in range(6)))
                             for _ in range(12)))
    model = TaskModel(layers, [(f"layers.{i}", [str(i)]) for i in range(12)])
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    gradients = BlockGradients()
    found = [p.grad for p in model.parameters()]

    def fastest(action: Any) -> float:
        times = []
        for _ in range(7):
            begin = time.perf_counter()
            action()
            times.append(time.perf_counter() - begin)
        return min(times)

    fastest(lambda: gradients.look(model))
    ours, plain = fastest(lambda: gradients.look(model)), fastest(
        lambda: nn.utils.get_total_norm(found))
    assert ours < 3 * plain + 2e-3
