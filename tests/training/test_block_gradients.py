import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.task_model import TaskModel
from ftlab.data.text import TextClassification
from ftlab.reports.diagnoses.base import CellHistory, RunHistory, StudyHistory
from ftlab.reports.diagnoses.gradients import Gradients
from ftlab.techniques.base import Optimization, Technique
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.lora import LoRA
from ftlab.tracking.records import CellKey
from ftlab.training import block_gradients, fit
from ftlab.training.adapt import adapt
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
    assert [name for name in found if name.startswith("train/grad_norm/")] == [
        "train/grad_norm/first", "train/grad_norm/second", "train/grad_norm/head"]
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
    found = gradients.take()
    assert (found["train/grad_norm/rest"], found["train/grad_norm/head"]) == (1.0, 0.0)
    assert (found["train/grad_zeros/rest"], found["train/grad_zeros/head"]) == (0.0, 1.0)


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
        assert all(0 < found[f"train/update_ratio/{name}"] < 1 for name in blocks)


class Planted(nn.Module):
    """A residual-free block: `scale` times a linear layer, behind a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * torch.relu(self.linear(x))


BLOCKS = ["stem", "block.1", "block.2", "block.3", "head"]


def planted() -> TaskModel:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), Planted(), Planted(), Planted(), nn.Linear(8, 2))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.4)
    return TaskModel(network, [(name, [str(i)]) for i, name in enumerate(BLOCKS[:-1])], head=["4"])


def trained(model: TaskModel, change: Callable[[TaskModel, int], None],
            steps: int = 20) -> dict[str, float]:
    """Metrics of two epochs of a plain loop.

    Args:
        model: trained.
        change: given the model before each step and its number.
        steps: of an epoch.
    """
    gradients, draw = BlockGradients(), torch.Generator().manual_seed(1)
    optimizer, found = torch.optim.SGD(model.parameters(), lr=1e-3), {}
    for step in range(2 * steps):
        change(model, step)
        inputs = torch.randn(16, 4, generator=draw)
        optimizer.zero_grad()
        cross_entropy(model.network(inputs), (inputs[:, 0] > 0).long()).backward()
        gradients.look(model)
        optimizer.step()
        gradients.follow()
        if step % steps == steps - 1:
            found = gradients.take()
    return found


def said(metrics: dict[str, float]) -> list[str]:
    run = RunHistory(0, metrics=metrics, blocks=BLOCKS)
    key = CellKey("study", "net", "data", "full", "0")
    return [finding.seen for finding in Gradients().find(StudyHistory((CellHistory(key, (run,)),)))]


def scaled(model: TaskModel, scale: float) -> None:
    model.network[2].scale = scale


def test_healthy_network__has_no_finding() -> None:
    metrics = trained(planted(), lambda model, step: None)
    assert said(metrics) == []
    assert all(1e-5 < metrics[f"train/update_ratio/{name}"] < 1e-2 for name in BLOCKS)


def test_block_that_passes_on_next_to_nothing__is_the_first_named() -> None:
    (seen,) = said(trained(planted(), lambda model, step: scaled(model, 1e-6)))
    assert seen.startswith("gradients vanish in block.2, the first on the way back from the output")
    assert seen.endswith("and in 2 more behind it")


def test_block_that_begins_to_amplify__is_the_first_named() -> None:
    (seen,) = said(trained(planted(), lambda model, step: scaled(model, 1e4 if step == 30 else 1.0)))
    # what the head and block 3 are given grows too, and so do their gradients: they come first
    assert seen.startswith("gradients explode in head, the first on the way back from the output")

    def backwards(model: TaskModel, step: int) -> None:
        grow = 1e4 if step == 30 else 1.0
        model.network[2].linear.weight.register_hook(lambda gradient: grow * gradient)
        model.network[1].linear.weight.register_hook(lambda gradient: grow * gradient)

    (seen,) = said(trained(planted(), backwards))
    assert seen.startswith("gradients explode in block.2, the first on the way back")
    assert seen.endswith("times its own median, and in 1 more")


def test_gradients_that_fall_and_rise_to_what_they_were__are_no_burst() -> None:
    """Most of a converged fit's are next to nothing, and a hard batch's are as in the beginning."""
    gradients, model = BlockGradients(), small()
    for factors in ([5.0] * 8, [1e-4] * 30, [1e-4] * 30, [4.0]):
        for factor in factors:
            with_gradients(model, factor)
            gradients.look(model)
        found = gradients.take()
    assert found["train/grad_burst/head"] == pytest.approx(1.0)
    with_gradients(model, 700.0)
    gradients.look(model)
    assert gradients.take()["train/grad_burst/head"] == pytest.approx(140.0)


def test_dead_block__has_zeros_alone_and_is_named() -> None:
    def dead(model: TaskModel, step: int) -> None:
        nn.init.constant_(model.network[2].linear.bias, -1e3)

    metrics = trained(planted(), dead)
    assert metrics["train/grad_zeros/block.2"] == 1.0
    assert metrics["train/grad_zeros/head"] == 0.0 or metrics["train/grad_zeros/head"] < 1.0
    (seen,) = said(metrics)
    assert "100% of it exact zeros" in seen


def test_network_without_a_head__is_compared_with_the_block_next_to_the_output() -> None:
    metrics = {f"train/grad_norm/{name}": norm for name, norm in zip(
        ["stem", "block.1", "block.2"], [1e-5, 2.0, 1.0], strict=True)}
    (seen,) = said(metrics)
    assert seen.startswith("gradients vanish in stem")
    assert "beside 1 in block.2" in seen


def test_every_kth_entry_of_a_large_block__is_as_good_as_all() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(700, 700), nn.Linear(700, 2))
    model = TaskModel(layers, [("large", ["0"])], head=["1"])
    assert sum(p.numel() for p in model.blocks[0].parameters()) > 10 * block_gradients.ENTRIES
    gradients, large = BlockGradients(), layers[0].weight
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    large.grad[:, :210] = 0.0  # three tenths of the columns
    before = large.detach().clone()
    gradients.look(model)
    with torch.no_grad():
        large -= 1e-3 * torch.rand_like(large) * large.grad
    gradients.follow()
    found = gradients.take()
    ratio = float((large.detach() - before).norm() / before.norm())
    assert found["train/update_ratio/large"] == pytest.approx(ratio, rel=0.02)
    assert found["train/grad_zeros/large"] == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_run__has_the_updates_of_a_plain_loop(
    tiny_bert: Path, reviews: Path, tmp_path: Path, accumulate: int
) -> None:
    """Zeros, norms and updates; an epoch's last window is shorter."""
    def a_run(batch_size: int, **settings: Any) -> Run:
        backbone = HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0, head_dropout=0.0)
        data = TextClassification(str(reviews), max_length=32, batch_size=batch_size)
        return Run(backbone, data, FullFineTuning(1e-3), TrainerSettings(
            max_epochs=1, log_every=1, gradient_clip=None, **settings), 3, "val/loss", tmp_path)

    events: list[dict[str, Any]] = []
    execute(a_run(4, accumulate=accumulate), events.append)
    (ours,) = [e["metrics"] for e in events if "train/epoch_loss" in e.get("metrics", ())]
    other = a_run(4 * accumulate)
    torch.manual_seed(3)
    other.data.load()
    other.data.connect(other.backbone, 3)
    model, _ = adapt(other, lambda event: None)
    names = [block.name for block in (*model.blocks, model.head)]
    assert [e["text"] for e in events if e["event"] == "blocks"] == ["\n".join(names)]
    technique = FullFineTuning(1e-3)
    optimizer = technique.optimizer(technique.param_groups(model))
    batches = list(other.data.train_dataloader())
    change, weights, zeros, entries = ({name: 0.0 for name in names} for _ in range(4))
    for step, batch in enumerate(batches):
        optimizer.zero_grad()
        cross_entropy(model(batch), batch["target"]).backward()
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * technique.optim.factor(step, len(batches))
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer.step()
        for block in (*model.blocks, model.head):
            for name, parameter in block.named_parameters():
                change[block.name] += float((parameter.detach() - before[name]).square().sum())
                weights[block.name] += float(before[name].square().sum())
                if parameter.grad is not None and accumulate == 1:
                    zeros[block.name] += int((parameter.grad == 0).sum())
                    entries[block.name] += parameter.numel()
    for name in names:
        expected = (change[name] / weights[name]) ** 0.5
        assert ours[f"train/update_ratio/{name}"] == pytest.approx(expected, rel=1e-3), name
        if accumulate == 1:  # of parts added up some are zeros but for rounding
            assert ours[f"train/grad_zeros/{name}"] == pytest.approx(zeros[name] / entries[name],
                                                                    abs=1e-3)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # the first step is skipped
def test_scaled_gradients__are_seen_as_they_are_and_skipped_steps_are_not(
    tiny_bert: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As 16-mixed computes on a GPU: the first scale overflows, so that its steps are skipped."""
    def metrics(folder: str) -> dict[str, float]:
        events: list[dict[str, Any]] = []
        backbone = HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0, head_dropout=0.0)
        data = TextClassification(str(reviews), max_length=32)
        optim = Optimization("sgd", weight_decay=0.0, schedule="constant", warmup=0.0)
        (tmp_path / folder).mkdir()
        execute(Run(backbone, data, FullFineTuning(1e-3, optim), TrainerSettings(
            max_epochs=1, log_every=1, gradient_clip=None), 3, "val/loss", tmp_path / folder),
            events.append)
        (found,) = [e["metrics"] for e in events if "train/epoch_loss" in e.get("metrics", ())]
        return {name: value for name, value in found.items()
                if name.count("/") == 2 and name.startswith("train/")}

    plain = metrics("plain")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60, backoff_factor=2.0**-25)
    half = MixedPrecision("16-mixed", "cpu", scaler)
    made = fit.make_trainer

    def with_scaler(*args: Any) -> Any:
        trainer = made(*args)
        trainer.strategy._precision_plugin = half
        return trainer

    monkeypatch.setattr(fit, "make_trainer", with_scaler)
    scaled_ = metrics("scaled")
    assert scaler.get_scale() < 2.0**60
    assert scaled_.keys() == plain.keys()
    for name, value in plain.items():
        if "grad_zeros" not in name:  # half precision makes some more, and the first batch is left out
            assert 0.25 * value <= scaled_[name] <= 4 * value, name


def test_look_and_follow__cost_a_twentieth_of_the_steps_that_they_look_at() -> None:
    """Twelve blocks of six layers; one step of ten is looked at."""
    torch.manual_seed(0)
    layers = nn.Sequential(*(nn.Sequential(*(nn.Linear(256, 256) for _ in range(6)))
                             for _ in range(12)))
    model = TaskModel(layers, [(f"layers.{i}", [str(i)]) for i in range(12)])
    inputs, gradients = torch.randn(64, 256), BlockGradients()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        layers(inputs).square().mean().backward()
        optimizer.step()

    def seen() -> None:
        gradients.look(model)
        gradients.follow()

    def fastest(action: Callable[[], None]) -> float:
        times = []
        for _ in range(7):
            begin = time.process_time()
            action()
            times.append(time.process_time() - begin)
        return min(times)

    assert fastest(step) > 0  # with gradients and the optimizer's state
    assert fastest(seen) < 0.5 * fastest(step)
