"""Optimizers: each held to its formula, in a run, in a sweep, and refused where it is misspelt."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.text import TextClassification
from ftlab.errors import InputError
from ftlab.studies.study import load_study
from ftlab.studies.yaml_file import Place
from ftlab.sweeps.search_space import make_space
from ftlab.techniques.base import Optimization
from ftlab.techniques.freezing import matrices_apart
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.techniques.lora import LoRA
from ftlab.techniques.optimization import names
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
Array = NDArray[np.float64]
STEPS, LR, DECAY = 20, 0.03, 0.1
CURVATURE = np.diag([1.0, 3.0, 0.2, 10.0])
START = np.array([1.0, -2.0, 0.5, 3.0])


def slope(w: Array) -> Array:
    return CURVATURE @ w - 1


def adamw(w: Array) -> Array:
    m, v = np.zeros(4), np.zeros(4)
    for t in range(1, STEPS + 1):
        g = slope(w)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w * (1 - LR * DECAY)
        w = w - LR * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


def adam(w: Array) -> Array:
    m, v = np.zeros(4), np.zeros(4)
    for t in range(1, STEPS + 1):
        g = slope(w) + DECAY * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w - LR * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


def sgd(w: Array) -> Array:
    velocity = np.zeros(4)
    for _ in range(STEPS):
        velocity = 0.9 * velocity + slope(w) + DECAY * w
        w = w - LR * velocity
    return w


def lion(w: Array) -> Array:
    m = np.zeros(4)
    for _ in range(STEPS):
        g = slope(w)
        w = w - LR * (np.sign(0.9 * m + 0.1 * g) + DECAY * w)
        m = 0.99 * m + 0.01 * g
    return w


def schedule_free(w: Array) -> Array:
    """The paper's three sequences, of which the average x is the result."""
    x, z, v = w, w, np.zeros(4)
    for t in range(1, STEPS + 1):
        y = 0.1 * z + 0.9 * x
        g = slope(y)
        v = 0.999 * v + 0.001 * g * g
        z = z - LR * (g / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + DECAY * y)
        x = (1 - 1 / t) * x + z / t
    return x


def adafactor(w: Array) -> Array:
    v = np.zeros(4)
    for t in range(1, STEPS + 1):
        g, rho, weight = slope(w), LR, t**-0.8
        size = max(1e-3, float(np.sqrt((w**2).mean())))
        w = w * (1 - LR * DECAY)
        v = (1 - weight) * v + weight * g * g
        update = g / np.sqrt(np.maximum(v, np.finfo(np.float64).eps ** 2))
        update = update / max(1.0, float(np.sqrt((update**2).mean())))
        w = w - min(rho, t**-0.5) * size * update
    return w


FORMULAS: dict[str, Callable[[Array], Array]] = {
    "adamw": adamw, "adam": adam, "sgd": sgd, "lion": lion, "schedule_free": schedule_free,
    "adafactor": adafactor, "muon": adamw,  # of a vector, Muon's is AdamW's
    "adamw8bit": adamw}  # of few numbers, its state has 32 bits


def made(name: str, **settings: Any) -> Optimization:
    only = Optimization(name, schedule="constant").kind.schedule
    return Optimization(name, schedule=only or "constant", **settings)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """An optimizer whose package is there."""
    if (package := made(request.param).kind.package) is not None:
        pytest.importorskip(package)
    return str(request.param)


@pytest.mark.parametrize("name", names(), indirect=True)
def test_optimizer__takes_its_formula_s_steps(name: str) -> None:
    weight = torch.tensor(START, requires_grad=True)
    optimizer = made(name).build([{"params": [weight], "lr": LR, "weight_decay": DECAY}])
    for _ in range(STEPS):
        optimizer.zero_grad()
        weight.grad = torch.tensor(slope(weight.detach().numpy()))
        optimizer.step()
    getattr(optimizer, "eval", lambda: None)()
    np.testing.assert_allclose(weight.detach().numpy(), FORMULAS[name](START), rtol=1e-6)


def test_schedule_free__goes_back_and_forth() -> None:
    weight = torch.tensor(START, requires_grad=True)
    optimizer: Any = made("schedule_free").build([{"params": [weight], "lr": LR, "weight_decay": 0.0}])
    for _ in range(3):
        weight.grad = torch.tensor(slope(weight.detach().numpy()))
        optimizer.step()
    before = weight.detach().clone()
    optimizer.eval()
    optimizer.eval()
    assert not torch.allclose(weight, before)
    optimizer.train()
    torch.testing.assert_close(weight.detach(), before)


def test_muon__orthogonalises_the_matrices_of_blocks_alone(tiny_bert: Path) -> None:
    from ftlab.tasks.classification import Classification

    task = Classification()
    task.fit(["a", "b"])
    model = HuggingFace(str(tiny_bert), pooling="mean").build(task)
    technique = FullFineTuning(optim=Optimization("muon"))
    technique.bind(model, task)
    groups = matrices_apart(technique.param_groups(model), model)
    names_of = {id(p): name for name, p in model.named_parameters()}
    hidden = {names_of[id(p)] for group in groups if group["hidden"] for p in group["params"]}
    assert hidden
    assert all(name.endswith("weight") and "embeddings" not in name and "Norm" not in name
               for name in hidden)
    assert not any(model.head.holds(name) for name in hidden)
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))

    optimizer: Any = technique.optimizer(groups)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.param_groups[0]["lr"] *= 2  # as schedules do
    optimizer.step()
    assert optimizer.parts[0].param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    for name, parameter in model.named_parameters():
        step = before[name] - parameter.detach()
        if name in hidden and min(step.shape) > 1:
            values = torch.linalg.svdvals(step)
            # of AdamW's step it would be some six times
            assert values.max() < 2 * values.quantile(0.1), f"{name}: all directions alike"
    assert set(optimizer.state) == set(model.parameters())


def test_muon__keeps_the_order_of_groups() -> None:
    weights = [torch.nn.Parameter(torch.randn(*shape)) for shape in ((3,), (2, 2), (4,))]
    groups = [{"params": [w], "lr": 0.1 * n, "weight_decay": 0.0, "hidden": w.ndim == 2}
              for n, w in enumerate(weights, 1)]
    optimizer = Optimization("muon").build(groups)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2, pytest.approx(0.3)]
    assert [group["params"][0] is w for group, w in zip(optimizer.param_groups, weights, strict=True)
            ] == [True] * 3


@pytest.fixture
def run(tiny_bert: Path, reviews: Path, tmp_path: Path) -> Callable[..., dict[str, float]]:
    def make(technique: Any, report: Any = lambda event: None) -> dict[str, float]:
        return execute(Run(
            HuggingFace(str(tiny_bert), pooling="mean"),
            TextClassification(str(reviews), max_length=16, batch_size=8), technique,
            TrainerSettings(max_epochs=3), 3, "val/loss", tmp_path), report)

    return make


@pytest.mark.parametrize("name", names(), indirect=True)
def test_optimizer__learns(name: str, run: Callable[..., dict[str, float]]) -> None:
    losses: list[float] = []

    def report(event: dict[str, Any]) -> None:
        if event["event"] == "metrics" and "train/epoch_loss" in event["metrics"]:
            losses.append(event["metrics"]["train/epoch_loss"])

    rate = 1e-3 * made(name).kind.rate
    metrics = run(FullFineTuning(lr=min(rate, 1e-2), optim=made(name)), report)
    assert losses[-1] < losses[0]
    assert metrics["best_epoch"] >= 1


def test_probe__of_another_optimizer_is_trained_by_the_trainer(
    run: Callable[..., dict[str, float]]
) -> None:
    assert np.isfinite(run(LinearProbe(optim=Optimization("lion")))["test/loss"])


def test_adamw8bit__is_adamw_s_within_its_rounding() -> None:
    pytest.importorskip("bitsandbytes", reason="8-bit state is bitsandbytes'")
    start = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    aim = torch.sin(torch.arange(start.numel(), dtype=torch.float32)).view(start.shape)
    ends, sizes = {}, {}
    for name in ("adamw", "adamw8bit"):
        weight = torch.nn.Parameter(start.clone())
        optimizer = made(name).build([{"params": [weight], "lr": LR / 3, "weight_decay": DECAY}])
        for _ in range(STEPS):
            weight.grad = weight.detach() - aim
            optimizer.step()
        ends[name] = weight.detach()
        kept = [value for value in optimizer.state[weight].values()
                if isinstance(value, torch.Tensor) and value.ndim and len(value) != 256]  # a table
        sizes[name] = sum(value.numel() * value.element_size() for value in kept)
    way = (ends["adamw"] - start).norm()
    assert 0 < (ends["adamw8bit"] - ends["adamw"]).norm() < 0.05 * way
    # 8 of 32 bits, and a number in float32 for each block of 256
    assert sizes["adamw8bit"] == sizes["adamw"] // 4 + 2 * 4 * (start.numel() // 256)


def test_adamw8bit__says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    optim = Optimization("adamw8bit")
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(InputError, match="bitsandbytes', which is not installed") as caught:
        optim.build([{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": 1.0}])
    assert "ftlab[quantized]" in caught.value.mend


def test_sweep__shifts_the_range_of_the_rate() -> None:
    def space(**optim: Any) -> Any:
        entry = {"class_path": "ftlab.techniques.lora.LoRA", "init_args": {
            "rank": 8, "alpha": None, "dropout": 0.0, "targets": None, "last": None, "lr": 1e-3,
            "optim": {"optimizer": "adamw", "weight_decay": 0.01, "schedule": "linear",
                      "warmup": 0.1, **optim}}}
        return make_space(entry, {}, Place("a sweep"))[0]["lr"]

    usual, lion_space = space(), space(optimizer="lion")
    own = LoRA.search_space["lr"]
    assert (usual.low, usual.high) == (own.low, own.high)  # type: ignore[union-attr]  # a range
    assert lion_space.low == pytest.approx(usual.low / 5)


def test_optimizer__misspelt_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no optimizer 'adanw'.*'adamw'"):
        Optimization("adanw")
    with pytest.raises(ValueError, match="schedule_free has its own schedule: set schedule: const"):
        Optimization("schedule_free")
    text = ("name: x\nbackbones: {b: {class_path: HuggingFace, init_args: {source: b}}}\n"
            "datasets: {d: {class_path: TextClassification, init_args: {train: d.csv}}}\n"
            "techniques: {t: {class_path: FullFineTuning, init_args: {optim: {optimizer: adm}}}}\n")
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"there is no optimizer 'adm'.*adam"):
        load_study(path)


def test_matrices__of_a_linear_layer_alone() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.layer = nn.Embedding(3, 2), nn.Linear(2, 2)
            self.blocks = [self]

    model: Any = Model()
    groups = matrices_apart([{"params": list(model.parameters()), "lr": 1.0}], model)
    assert [group["hidden"] for group in groups] == [True, False]
    assert groups[0]["params"] == [model.layer.weight]
    assert groups[0]["lr"] == 1.0
