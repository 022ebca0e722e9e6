"""Wrappers that keep other weights than the last ones, held to outside formulas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matrix import make_world
from safetensors.torch import load_file
from steps import Bench, assert_equal, state
from torch import Tensor
from torch.optim.swa_utils import update_bn
from toy import Squares, toy

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.techniques.ada_lora import AdaLoRA
from ftlab.techniques.base import Technique
from ftlab.techniques.ema import EMA
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.l2sp import L2SP
from ftlab.techniques.linear_probe_then_fine_tune import LinearProbeThenFineTune
from ftlab.techniques.mixout import Mixout
from ftlab.techniques.swa import SWA
from ftlab.techniques.untuned import Untuned
from ftlab.techniques.wise_ft import WiSEFT
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
STEPS = 8


class Recorded(FullFineTuning):
    """Keeps the state after each step in float64."""

    def after_step(self, model: TaskModel, step: int) -> None:
        self.states = [*getattr(self, "states", ()), doubles(model)]


def doubles(model: TaskModel) -> dict[str, Tensor]:
    return {name: value.double() for name, value in state(model).items()}


def assert_near(some: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    for name, value in others.items():
        torch.testing.assert_close(some[name].double(), value, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def images(request: pytest.FixtureRequest) -> Bench:
    """A network with batch norms."""
    return Bench(make_world("image_classification", request.getfixturevalue))


@pytest.fixture
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Run]:
    def make(technique: Technique, **settings: Any) -> Run:
        backbone, data = make_world("image_classification", request.getfixturevalue)()
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        return Run(backbone, data, technique, TrainerSettings(max_epochs=2, **settings), 3,
                   "val/loss", folder)

    return make


def kept(run: Run) -> dict[str, Tensor]:
    return load_file(run.directory / "checkpoint" / "delta.safetensors")


def scores(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith(("val/", "test/"))}


def test_ema__is_the_recursion(images: Bench) -> None:
    inner = Recorded(lr=1e-2)
    one = images.bound(EMA(inner, decay=0.5))
    average = doubles(one.model)
    images.fit(one, STEPS)
    for step, weights in enumerate(inner.states, 1):
        decay = min(0.5, (1 + step) / (10 + step))
        average = {name: decay * average[name] + (1 - decay) * weights[name] for name in average}
    assert min(0.5, 2 / 11) != 0.5 == min(0.5, (1 + STEPS) / (10 + STEPS))
    before = state(one.model)
    with one.evaluated(one.model):
        held = state(one.model)
    assert any("running_var" in name for name in one.average)
    assert_near(held, {n: v for n, v in average.items() if "num_batches" not in n})
    assert_equal(state(one.model), before)


def test_ema__decay_0_is_plain_training_bit_for_bit(run: Any) -> None:
    plain, averaged = run(FullFineTuning(lr=1e-2)), run(EMA(FullFineTuning(lr=1e-2), decay=0))
    some, others = execute(plain, lambda event: None), execute(averaged, lambda event: None)
    assert scores(some) == scores(others)
    assert_equal(kept(plain), kept(averaged))


def test_ema__is_what_is_validated_and_kept(run: Any) -> None:
    one = run(EMA(FullFineTuning(lr=1e-2), decay=0.9))
    metrics = execute(one, lambda event: None)
    other = run(FullFineTuning(lr=1e-2))
    assert metrics["val/loss"] != execute(other, lambda event: None)["val/loss"]
    if metrics["best_epoch"] == 2:
        weights = kept(one)
        assert_equal(weights, {name: one.technique.average[name] if name in one.technique.average
                               else weights[name] for name in weights})
    assert metrics["best_epoch"] == 2  # the loss of so slow an average falls
    assert {"running_mean", "running_var"} <= {name.rpartition(".")[2] for name in kept(one)}


def test_swa__is_the_mean_of_the_last_steps(images: Bench) -> None:
    inner = Recorded(lr=1e-2)
    one = images.bound(SWA(inner))
    model = images.fit(one, STEPS).eval()
    with torch.no_grad():
        one.settle(model, images.data, lambda: 0.0)
    last = inner.states[-2:]  # a quarter of 8
    mean = {name: sum(weights[name] for weights in last) / 2
            for name, _ in model.named_parameters()}
    assert_near(state(model), mean)
    # torch's own pass over the training data gives the same statistics
    found = state(model)
    update_bn(images.data.train_dataloader(), model)
    assert_near(state(model), {name: value.double() for name, value in found.items()})
    assert any(not torch.equal(found[name].double(), last[-1][name]) for name in found
               if "running_mean" in name)


def test_swa__of_a_run_is_what_is_measured(run: Any) -> None:
    one = run(SWA(FullFineTuning(lr=1e-2), start=0.5))
    metrics = execute(one, lambda event: None)
    weights = kept(one)
    assert all(torch.equal(weights[name], value) for name, value in one.technique.mean.items())
    assert one.technique.count == 1 + (2 * len(one.data.train_dataloader()) - 1) // 2
    assert metrics["val/loss"] > 0


def test_swa__of_the_last_step_is_plain_training(images: Bench) -> None:
    plain = state(images.fit(images.bound(FullFineTuning(lr=1e-2)), STEPS))
    one = images.bound(SWA(FullFineTuning(lr=1e-2), start=0.9))
    model = images.fit(one, STEPS).eval()
    with torch.no_grad():
        one.settle(model, images.data, lambda: 0.0)
    assert_equal({n: p.detach() for n, p in model.named_parameters()},
                 {n: plain[n] for n, _ in model.named_parameters()})


def test_swa__refuses_a_fit_that_ended_before() -> None:
    one = SWA(FullFineTuning()).bind(toy(), Squares())
    one.begin_fit(one.model, None, 100)
    with pytest.raises(Incompatible, match="ended before the steps that count"):
        one.settle(one.model, None, lambda: 0.0)


def wise(images: Bench, alpha: float) -> tuple[dict, dict, dict]:
    """The model at the first epoch that trains the backbone, after the fit, and finished."""
    one = images.bound(WiSEFT(LinearProbeThenFineTune(lr=1e-2), alpha))
    seen: list[dict] = []
    inner = one.technique.begin_epoch
    one.technique.begin_epoch = lambda model, epoch, epochs: (
        inner(model, epoch, epochs), seen.append(state(model)))
    model = images.fit(one, 6)
    after = state(model)
    with torch.no_grad():
        one.settle(model.eval(), images.data, lambda: 0.0)
    return seen[one.technique.probing(6)], after, state(model)


def test_wise_ft__is_between(images: Bench) -> None:
    before, after, found = wise(images, 0.0)
    names = [name for name in found if "num_batches" not in name]
    assert_equal({n: found[n] for n in names}, {n: before[n] for n in names})
    assert any(not torch.equal(before[n], after[n]) for n in names if "running_mean" in n)
    before, after, found = wise(images, 1.0)
    assert_equal(found, after)
    before, after, found = wise(images, 0.3)
    assert_near(found, {n: 0.7 * before[n].double() + 0.3 * after[n].double() for n in names})


def test_wise_ft__of_a_run(run: Any) -> None:
    plain, one = (run(technique) for technique in (
        LinearProbeThenFineTune(lr=1e-2), WiSEFT(LinearProbeThenFineTune(lr=1e-2), alpha=1)))
    some, others = execute(plain, lambda event: None), execute(one, lambda event: None)
    assert scores(some) == scores(others)
    assert_equal(kept(plain), kept(one))
    start = run(WiSEFT(LinearProbeThenFineTune(lr=1e-2), alpha=0, curve=[0.0, 1.0]))
    measured = execute(start, lambda event: None)
    assert measured["test.alpha-0/loss"] == measured["test/loss"]
    assert measured["test.alpha-1/loss"] == some["test/loss"] != measured["test/loss"]
    trained = {name for name in kept(start) if name.endswith(("weight", "bias"))}
    assert trained == {name for name, _ in start.technique.model.head.named_parameters()}


def test_wise_ft__of_a_best_epoch_before_fine_tuning_is_that_epoch(images: Bench) -> None:
    """Two heads of one backbone would be interpolated otherwise."""
    one = images.bound(WiSEFT(LinearProbeThenFineTune(lr=1e-2), 0.5, curve=[0.3]))
    probed: dict[str, torch.Tensor] = {}
    inner = one.technique.begin_epoch
    one.technique.begin_epoch = lambda model, epoch, epochs: (
        inner(model, epoch, epochs), probed.update(state(model) if epoch == 1 else {}))
    model = images.fit(one, 6)
    model.load_state_dict(probed)
    with torch.no_grad():
        one.settle(model.eval(), images.data, lambda: 0.0)
    assert_equal(state(model), probed)
    (note,) = one.notes
    assert note.endswith("the head alone had trained by the best epoch, so that nothing was interpolated")
    assert one.variants(model) == {}


def test_wise_ft__refuses_a_random_head(images: Bench) -> None:
    with pytest.raises(Incompatible, match="the new head is random"):
        images.bound(WiSEFT(FullFineTuning()))
    with pytest.raises(Incompatible, match="no epoch trained more than the head"):
        one = images.bound(WiSEFT(LinearProbeThenFineTune()))
        one.settle(images.fit(one, 1), images.data, lambda: 0.0)


@pytest.mark.parametrize(("make", "message"), [
    (lambda t: EMA(t, decay=1), "decay must be from 0 to below 1, got 1"),
    (lambda t: SWA(t, start=1), "start is a fraction from 0 to below 1, got 1"),
    (lambda t: WiSEFT(t, alpha=2), "alpha must be from 0 to 1, got 2"),
    (lambda t: EMA(SWA(t)), ("EMA makes no sense around SWA, which averages the weights: "
                            "leave one of them out")),
    (lambda t: SWA(L2SP(EMA(t))), ("SWA makes no sense around EMA, which averages the weights: "
                                  "leave one of them out")),
    (lambda t: SWA(WiSEFT(t)), ("SWA makes no sense around WiSEFT, which has its own settle: "
                               "put WiSEFT around SWA")),
    (lambda t: Mixout(L2SP(t)), ("Mixout makes no sense around L2SP, which adds a penalty on the "
                                "weights: put L2SP around Mixout")),
    (lambda t: EMA(AdaLoRA()), ("EMA makes no sense around AdaLoRA, which has its own evaluated: "
                               "leave one of them out")),
    (lambda t: EMA(Untuned()), ("Untuned trains nothing, so EMA has nothing to change: "
                               "leave it out")),
])
def test_bad_values(make: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        make(FullFineTuning())
    assert str(caught.value) == message
