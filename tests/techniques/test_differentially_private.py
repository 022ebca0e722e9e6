"""Private gradients are clipped sums with noise: by hand, by Opacus, and exact without noise."""

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from matrix import FEW, TECHNIQUES, WORLDS, make_technique, make_world
from steps import Bench
from torch import Tensor

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible
from ftlab.techniques.base import Optimization, Technique
from ftlab.techniques.bitfit import BitFit
from ftlab.techniques.differentially_private import DifferentiallyPrivate
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.techniques.lora import LoRA
from ftlab.techniques.wrapper import Wrapper
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
INNER = [name for name, cls in TECHNIQUES.items() if cls.trains and not issubclass(cls, Wrapper)]


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest) -> Callable[[str], Bench]:
    made: dict[str, Bench] = {}

    def make(world: str) -> Bench:
        if world not in made:
            made[world] = Bench(make_world(world, request.getfixturevalue))
        return made[world]

    return make


def in_double(value: Any) -> Any:
    """A batch with the numbers of its inputs in float64."""
    if isinstance(value, Mapping):
        return {name: in_double(part) for name, part in value.items()}
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def gradients(loss: Tensor, model: torch.nn.Module) -> dict[str, Tensor]:
    """Of what trains, by name; zero where nothing reaches it."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for name, p in model.named_parameters() if p.requires_grad}


def attached(here: Bench, technique: Technique) -> Technique | None:
    """In eval mode and float64; None where it is refused."""
    try:
        here.bound(technique)
    except Incompatible as error:
        assert error.what and "\n" not in error.what + error.mend
        return None
    return technique.double().eval()


@pytest.mark.parametrize("world", FEW)
@pytest.mark.parametrize("inner", INNER)
def test_without_noise__is_the_gradient_of_the_batch(inner: str, world: str, bench: Any) -> None:
    here = bench(world)
    try:
        technique = DifferentiallyPrivate(make_technique(inner), noise=0.0, clip=1e9)
    except ValueError:
        assert TECHNIQUES[inner].single_batches
        return
    if attached(here, technique) is None:
        return
    technique.begin_epoch(technique.model, 3, 6)
    batch, model = in_double(here.batches[0]), technique.model
    of_batch = technique.technique.objective(model, here.data.task, batch)
    loss = technique.objective(model, here.data.task, batch)
    assert float(loss.detach()) == pytest.approx(float(of_batch.detach()), rel=1e-6)
    plain = gradients(of_batch, model)
    private = gradients(loss, model)
    assert any(value.any() for value in plain.values())
    largest = max(float(value.abs().max()) for value in plain.values())
    for name, value in plain.items():
        torch.testing.assert_close(private[name], value, rtol=1e-7, atol=1e-9 * largest, msg=name)


@pytest.mark.parametrize("world", [world for world in WORLDS if world not in FEW])
def test_without_noise__is_the_mean_over_examples_in_every_world(world: str, bench: Any) -> None:
    """Of tasks whose loss is of tokens, or of boxes, each example counts alike."""
    here = bench(world)
    technique = DifferentiallyPrivate(LoRA(lr=1e-2), noise=0.0, clip=1e9)
    try:
        here.bound(technique).eval()
    except Incompatible as error:
        assert error.mend
        return
    batch, model, task = here.batches[0], technique.model, here.data.task
    losses = task.losses(model(batch), batch) if task.of_examples else None
    private = gradients(technique.objective(model, task, batch), model)
    assert any(value.any() for value in private.values())
    for name, value in gradients(losses.mean(), model).items() if losses is not None else ():
        torch.testing.assert_close(private[name], value, rtol=1e-2, atol=1e-5, msg=name)


@pytest.fixture
def tiny(tiny_bert: Path, reviews: Path) -> Any:
    """A bound technique without dropout, its data and its model."""
    def make(technique: Technique, **settings: Any) -> Any:
        data = TextClassification(str(reviews), max_length=16, batch_size=8, **settings)
        backbone = HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0, head_dropout=0.0)
        data.load()
        data.connect(backbone, 0)
        technique.prepare(data)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            technique.bind(backbone.build(data.task), data.task).eval()
        return data, technique.model

    return make


def test_steps__are_those_of_a_plain_loop(tiny: Any) -> None:
    """Each example's `backward`, torch's own clipping, a sum, noise, and SGD, written out."""
    clip, noise = 0.05, 1.3
    optim = Optimization(optimizer="sgd", weight_decay=0.0, schedule="constant", warmup=0.0)
    technique = DifferentiallyPrivate(LoRA(lr=0.1, optim=optim), noise=noise, clip=clip)
    data, model = tiny(technique)
    twin = copy.deepcopy(model)
    start = copy.deepcopy(dict(model.named_parameters()))
    optimizer = technique.optimizer(technique.param_groups(model))
    technique.begin_fit(model, data, 3)
    momentum: dict[str, Tensor] = {}
    trained = {name: p for name, p in twin.named_parameters() if p.requires_grad}
    cut = 0
    for step, batch in enumerate([*data.train_dataloader()][:3]):
        silent = copy.copy(technique)
        silent.sigma, silent.noise = 0.0, 0.0
        noisy = gradients(technique.objective(model, data.task, batch), model)
        clean = gradients(silent.objective(model, data.task, batch), model)
        for name in trained:
            model.get_parameter(name).grad = noisy[name]
        optimizer.step()
        technique.after_step(model, step + 1)

        sums = {name: torch.zeros_like(p) for name, p in trained.items()}
        for position in range(len(batch["index"])):
            one = {"inputs": {name: value[position:position + 1] for name, value in batch["inputs"].items()},
                   "target": batch["target"][position:position + 1],
                   "index": batch["index"][position:position + 1]}
            twin.zero_grad(set_to_none=True)
            data.task.loss(twin(one), one).backward()
            norm = torch.nn.utils.clip_grad_norm_(list(trained.values()), clip)
            cut += int(norm > clip)
            for name, p in trained.items():
                sums[name] += p.grad
        for name, p in trained.items():
            # the noise is what the technique drew: its distribution is held to below
            gradient = sums[name] / 8 + (noisy[name] - clean[name])
            momentum[name] = gradient if step == 0 else 0.9 * momentum[name] + gradient
            p.data -= 0.1 * momentum[name]
    assert cut > 10, "most examples are clipped"
    for name, p in trained.items():
        assert not torch.equal(p, start[name])
        torch.testing.assert_close(model.get_parameter(name), p, rtol=1e-4, atol=1e-6)


def test_clipped_sum__is_bounded_for_each_example(tiny: Any) -> None:
    technique = DifferentiallyPrivate(FullFineTuning(), noise=0.0, clip=0.01)
    data, model = tiny(technique)
    batch = next(iter(data.train_dataloader()))
    found = gradients(technique.objective(model, data.task, batch), model)
    norm = math.sqrt(sum(float(value.square().sum()) for value in found.values())) * 8
    assert norm <= 0.01 * len(batch["index"]) * (1 + 1e-5)
    alone = {**batch, "index": batch["index"][:1], "target": batch["target"][:1],
             "inputs": {name: value[:1] for name, value in batch["inputs"].items()}}
    found = gradients(technique.objective(model, data.task, alone), model)
    norm = math.sqrt(sum(float(value.square().sum()) for value in found.values())) * 8
    assert norm == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("technique", [LinearProbe, BitFit, LoRA])
def test_clipped_sum__is_that_of_opacus_hooks(technique: Any, tiny: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opacus = pytest.importorskip("opacus")
    private = DifferentiallyPrivate(technique(), noise=0.0, clip=0.05)
    data, model = tiny(private)
    batch = next(iter(data.train_dataloader()))
    twin = copy.deepcopy(model).train()  # its hooks look at nothing else; no unit is dropped
    ours = gradients(private.objective(model, data.task, batch), model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of full backward hooks
        hooked = opacus.GradSampleModule(twin, strict=False, loss_reduction="mean")
        data.task.loss(twin(batch), batch).backward()
        theirs = {name: p.grad_sample for name, p in twin.named_parameters() if p.requires_grad}
        hooked.remove_hooks()
    assert theirs.keys() == ours.keys()
    norms = torch.stack([value.flatten(1).norm(dim=1) for value in theirs.values()]).norm(dim=0)
    factors = (0.05 / (norms + 1e-6)).clamp(max=1)
    assert bool((factors < 1).any())
    for name, value in theirs.items():
        wanted = torch.einsum("b,b...->...", factors, value) / 8
        torch.testing.assert_close(ours[name], wanted, rtol=1e-4, atol=1e-7, msg=name)


def test_noise__has_its_variance_and_follows_from_seed_and_step(tiny: Any) -> None:
    technique = DifferentiallyPrivate(FullFineTuning(), noise=1.5, clip=0.2)
    data, model = tiny(technique)
    technique.begin_fit(model, data, 10)
    full = next(iter(data.train_dataloader()))
    none: Any = {"index": full["index"][:0], "inputs": {}, "target": full["target"][:0]}

    def drawn() -> Tensor:
        loss = technique.objective(model, data.task, none)
        assert float(loss.detach()) == 0
        return torch.cat([value.flatten() for value in gradients(loss, model).values()])

    first, again = drawn(), drawn()
    assert torch.equal(first, again), "a step's noise is the same whatever was drawn before"
    count, deviation = len(first), 1.5 * 0.2 / 8
    assert count > 5_000
    assert float(first.mean()) == pytest.approx(0, abs=4 * deviation / math.sqrt(count))
    assert float(first.std()) == pytest.approx(deviation, rel=4 / math.sqrt(2 * count))
    assert float((first.abs() < deviation).double().mean()) == pytest.approx(
        0.6827, abs=4 * math.sqrt(0.22 / count))
    technique.after_step(model, 1)
    second = drawn()
    technique.begin_fit(model, data, 10)
    assert torch.equal(drawn(), first), "a fit begins anew"
    technique.seed += 1
    for other in (second, drawn()):
        ratio = float((first @ other) / (first.norm() * other.norm()))
        assert abs(ratio) < 4 / math.sqrt(count)


@pytest.fixture
def run(tiny_bert: Path, reviews: Path, tmp_path: Path) -> Any:
    def make(technique: Technique, folder: str = "run", batch_size: int = 8, **settings: Any) -> Run:
        (tmp_path / folder).mkdir()
        return Run(HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0, head_dropout=0.0),
                   TextClassification(str(reviews), max_length=16, batch_size=batch_size, bucketing=True),
                   technique, TrainerSettings(**({"max_epochs": 2} | settings)), 3, "val/loss",
                   tmp_path / folder)

    return make


def test_run__has_its_epsilon_and_is_reproducible(run: Any) -> None:
    events: list[dict[str, Any]] = []
    metrics = execute(run(DifferentiallyPrivate(LoRA(lr=1e-2), epsilon=3.0), "one"), events.append)
    assert metrics["cost/epsilon"] == metrics["cost/epsilon_rdp"] == pytest.approx(3, abs=0.01)
    assert 0 < metrics["cost/epsilon_prv"] < metrics["cost/epsilon"] <= 3
    assert metrics["cost/noise"] > 0
    assert metrics["cost/membership_auc_low"] < metrics["cost/membership_auc"] < (
        metrics["cost/membership_auc_high"])
    assert any("epsilon is of one fit" in event.get("text", "") for event in events)
    again = execute(run(DifferentiallyPrivate(LoRA(lr=1e-2), epsilon=3.0), "two"), events.append)
    same = [name for name in metrics if name.startswith(("val/", "test/"))]
    assert {n: again[n] for n in same} == {n: metrics[n] for n in same}


def test_run__with_empty_batches_takes_steps_of_noise(run: Any) -> None:
    one = run(DifferentiallyPrivate(LinearProbe(lr=1e-2), noise=1.0), batch_size=1, max_epochs=1)
    metrics = execute(one, lambda event: None)
    sizes = [len(batch["index"]) for batch in one.data.train_dataloader()]
    assert 0 in sizes and max(sizes) > 1
    assert one.technique.done == len(sizes)
    assert math.isfinite(metrics["val/loss"])


def test_run__without_noise_and_one_batch_an_epoch_is_plain_training(run: Any) -> None:
    """A batch of all examples is the same by Poisson sampling."""
    def inner() -> Technique:
        return BitFit(lr=0.3, optim=Optimization(optimizer="sgd"))  # Adam steps by rounding too

    plain = execute(run(inner(), "plain", batch_size=1000, gradient_clip=None, max_epochs=6),
                    lambda event: None)
    private = execute(run(DifferentiallyPrivate(inner(), noise=0.0, clip=1e9), "private",
                          batch_size=1000, max_epochs=6), lambda event: None)
    assert "cost/epsilon" not in private
    assert private["cost/noise"] == 0
    assert private["test/loss"] == pytest.approx(plain["test/loss"], rel=1e-4)
    assert plain["best_epoch"] == private["best_epoch"] > 1


def test_trainer__does_not_clip(run: Any) -> None:
    scores = [execute(run(DifferentiallyPrivate(LoRA(lr=1e-2), noise=1.0), str(clip), gradient_clip=clip),
                      lambda event: None)["test/loss"] for clip in (None, 1e-6)]
    assert scores[0] == scores[1]
    optim = Optimization(optimizer="sgd")
    plain = [execute(run(LoRA(lr=1e-2, optim=optim), f"plain{clip}", gradient_clip=clip),
                     lambda event: None)["test/loss"] for clip in (None, 1e-6)]
    assert plain[0] != plain[1], "of others it does"
