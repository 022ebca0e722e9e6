"""LoRA trials on one network: each has the losses, scores and weights that it has alone."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matrix import World, make_world
from torch.nn.functional import dropout
from torch.nn.functional import scaled_dot_product_attention as attention

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import GuardFailed, Incompatible
from ftlab.tasks.classification import Classification
from ftlab.tasks.losses.weighted_cross_entropy import WeightedCrossEntropy
from ftlab.techniques.base import Optimization
from ftlab.techniques.lora import LoRA
from ftlab.training.guards import TensorGuard
from ftlab.training.packed import packing_check
from ftlab.training.packed.slot_dropout import SlotDropout
from ftlab.training.run import Run
from ftlab.training.shared_fit import execute_together
from ftlab.training.trainer_settings import TrainerSettings
from ftlab.training.trial import search

FLOAT64 = TrainerSettings(max_epochs=2, precision="64-true")


@pytest.fixture(autouse=True)
def always(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny models are packed whatever it takes, with a cache of the test's own."""
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packing_check, "worth", lambda pays: True)


@pytest.fixture
def texts(request: pytest.FixtureRequest) -> World:
    return make_world("text_classification", request.getfixturevalue)


def techniques(dropout: float) -> list[LoRA]:
    """Unlike in all that may differ."""
    return [
        LoRA(rank=2, dropout=dropout, lr=1e-2),
        LoRA(rank=4, alpha=3, lr=3e-2, optim=Optimization(optimizer="sgd", schedule="cosine")),
        LoRA(rank=1, dropout=dropout / 2, lr=1e-3, optim=Optimization(weight_decay=0.5, warmup=0)),
    ]


def run_of(world: World, technique: LoRA, plain: bool, directory: Path, seed: int = 3,
           settings: TrainerSettings = FLOAT64, dropout: float = 0.0,
           head_dropout: float = 0.1) -> Run:
    backbone, data = world()
    if isinstance(backbone, HuggingFace):
        backbone.dropout, backbone.head_dropout = dropout, head_dropout
    record = {"backbone": {"source": repr(vars(backbone))}, "data": {"init_args": {}}}
    return Run(backbone, data, technique, settings, seed, "val/loss", directory, record, plain)


Making = Callable[[bool], list[Run]]


def never() -> bool:
    return False


def both(make: Making, stops: Sequence[Callable[[], bool]] = (never,) * 3) -> tuple[list[Any], list[Any], list[str]]:
    """What each run alone and the pack gives: results, events by run, what was decided."""
    alone, together = [], []
    for run, stop in zip(make(True), stops, strict=False):
        events: list[dict[str, Any]] = []
        alone.append((search(run, events.append, stop), events, run))
    runs = make(False)
    heard: list[list[dict[str, Any]]] = [[] for _ in runs]
    results = execute_together(runs, [each.append for each in heard], stops[: len(runs)])
    together = list(zip(results, heard, runs, strict=True))
    notes = [event["text"] for each in heard for event in each if event["event"] == "shortcut"]
    return alone, together, notes


def assert_same(alone: Sequence[Any], together: Sequence[Any], tolerance: float) -> None:
    for (plain, said, one), (packed, heard, other) in zip(alone, together, strict=True):
        curve, ours = ([(e["step"], e["metrics"]) for e in events if e["event"] == "metrics"]
                       for events in (said, heard))
        assert [step for step, _ in curve] == [step for step, _ in ours]
        for (_, metrics), (_, own) in zip(curve, ours, strict=True):
            for name in (metrics.keys() | own.keys()) - {"train/step_seconds"}:
                # validation's are logged in float32
                rel = tolerance if name.startswith("train/") else max(tolerance, 1e-6)
                assert own[name] == pytest.approx(metrics[name], rel=rel, abs=1e-9), name
        assert packed.keys() == plain.keys()
        for name in plain:
            if "cost" not in name:
                assert packed[name] == pytest.approx(plain[name], rel=max(tolerance, 1e-6)), name
        weights = dict(one.technique.model.named_parameters())
        for name, parameter in other.technique.model.named_parameters():
            torch.testing.assert_close(parameter, weights[name], rtol=0, atol=10 * tolerance)


def test_pack__gives_each_run_what_it_has_alone(texts: World, tmp_path: Path) -> None:
    def make(plain: bool) -> list[Run]:
        return [run_of(texts, each, plain, tmp_path, dropout=0.2) for each in techniques(0.2)]

    alone, together, notes = both(make)
    assert all("3 runs packed" in note for note in notes), notes
    assert_same(alone, together, 1e-9)


@pytest.mark.parametrize(("name", "last"), [
    ("seq2seq", None),  # generates
    ("image_classification_clip", 1),  # whose pixels nobody reads once the prefix is cached
])
def test_pack__of_other_tasks(
    name: str, last: int | None, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    world = make_world(name, request.getfixturevalue)

    def make(plain: bool) -> list[Run]:
        settings = replace(FLOAT64, max_epochs=1)
        runs = [run_of(world, LoRA(rank=rank, lr=1e-2, last=last), plain, tmp_path, dropout=0.1,
                       settings=settings) for rank in (1, 4)]
        for run in runs:
            run.data.augment = None
        return runs

    alone, together, notes = both(make)
    assert all("2 runs packed" in note for note in notes), notes
    assert_same(alone, together, 1e-9)


@pytest.mark.parametrize("settings", [
    TrainerSettings(max_epochs=2, gradient_clip=0.1, accumulate=3),
    TrainerSettings(max_epochs=1, gradient_clip=None, precision="bf16-mixed"),
], ids=lambda settings: settings.precision)
def test_pack__of_the_last_block_starts_from_the_cache(
    texts: World, settings: TrainerSettings, tmp_path: Path
) -> None:
    """In float32, where Adam makes steps of rounding, SGD alone."""
    optim = Optimization(optimizer="sgd")

    def make(plain: bool) -> list[Run]:
        return [run_of(texts, LoRA(rank=rank, last=1, lr=0.1 / rank, optim=optim), plain, tmp_path,
                       settings=settings) for rank in (1, 4)]

    alone, together, notes = both(make)
    assert all("3 of 4 blocks are frozen" in note and "2 runs packed" in note
               for note in notes), notes
    tolerance = 1e-5 if settings.precision == "32-true" else 2e-2
    assert_same(alone, together, tolerance)


def test_pack__of_other_seeds_has_each_ones_order(texts: World, tmp_path: Path) -> None:
    def make(plain: bool) -> list[Run]:
        settings = replace(FLOAT64, accumulate=3)
        runs = [run_of(texts, LoRA(rank=2, lr=1e-2), plain, tmp_path, seed=seed, head_dropout=0,
                       settings=settings) for seed in (3, 4, 3)]
        for run in runs:
            run.data.task = Classification(WeightedCrossEntropy())
        return runs

    alone, together, notes = both(make)
    assert all("3 runs packed" in note for note in notes), notes
    assert together[0][0]["val/loss"] != pytest.approx(together[1][0]["val/loss"], rel=1e-6)
    assert together[0][0]["val/loss"] == pytest.approx(together[2][0]["val/loss"], rel=1e-9)
    assert_same(alone, together, 1e-9)


def test_pack__prunes_and_fails_each_alone(texts: World, tmp_path: Path) -> None:
    """The first is pruned, the second's loss overflows; the third is as if alone."""
    def make(plain: bool) -> list[Run]:
        chosen = techniques(0.2)
        chosen[1] = LoRA(rank=4, lr=1e200, optim=Optimization(optimizer="sgd", warmup=0))
        runs = [run_of(texts, each, plain, tmp_path, dropout=0.2) for each in chosen]
        return [runs[0], runs[2]] if plain else runs

    def always_stop() -> bool:
        return True

    alone = []
    for run, stop in zip(make(True), (always_stop, never), strict=True):
        events: list[dict[str, Any]] = []
        alone.append((search(run, events.append, stop), events, run))
    runs = make(False)
    heard: list[list[dict[str, Any]]] = [[] for _ in runs]
    first, failure, third = execute_together(
        runs, [each.append for each in heard], [always_stop, never, never])
    assert isinstance(failure, GuardFailed) and "non-finite loss" in str(failure)
    assert isinstance(first, dict) and first["pruned"] == 1 and first["best_epoch"] == 1
    assert_same(alone, [(first, heard[0], runs[0]), (third, heard[2], runs[2])], 1e-9)


def test_pack__a_guard_at_an_update_fails_its_run_alone(
    texts: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def make(plain: bool) -> list[Run]:
        return [run_of(texts, each, plain, tmp_path) for each in techniques(0.0)]

    alone = []
    for run in make(True):
        events: list[dict[str, Any]] = []
        alone.append((search(run, events.append, never), events, run))
    judge, seen = TensorGuard.before_update, Counter[str]()

    def before_update(self: TensorGuard, model: Any, trained: set[str], optimizer: Any) -> None:
        judge(self, model, trained, optimizer)
        seen[type(optimizer).__name__] += 1
        if seen["SGD"] == 3:
            seen["SGD"] += 1
            raise GuardFailed("planted")

    monkeypatch.setattr(TensorGuard, "before_update", before_update)
    runs = make(False)
    heard: list[list[dict[str, Any]]] = [[] for _ in runs]
    first, failure, third = execute_together(runs, [each.append for each in heard], [never] * 3)
    assert isinstance(failure, GuardFailed) and "planted" in str(failure)
    assert_same([alone[0], alone[2]], [(first, heard[0], runs[0]), (third, heard[2], runs[2])], 1e-9)


@pytest.mark.parametrize("why", ["plain", "slow", "widths", "bias"])
def test_runs__go_one_after_another_where_a_pack_declines(
    texts: World, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"plain": "--plain", "slow": "times as long packed", "widths": "to other widths",
            "bias": "LayerNorm"}[why]
    monkeypatch.setattr(packing_check, "worth", lambda pays: why != "slow")
    settings = replace(FLOAT64, max_epochs=1)
    runs = [run_of(texts, LoRA() if why != "bias" else NormToo(), why == "plain", tmp_path, seed,
                   settings) for seed in ((3, 4) if why == "widths" else (3, 3))]
    heard: list[list[dict[str, Any]]] = [[], []]
    results = execute_together(runs, [each.append for each in heard], [never, never])
    assert all(isinstance(each, dict) and "val/loss" in each for each in results), results
    for events in heard:
        (note,) = (event["text"] for event in events if event["event"] == "shortcut")
        assert "trained by itself" in note and said in note


class NormToo(LoRA):
    """A technique of whose layers not all can be stacked."""

    def adapt(self, model: TaskModel) -> None:
        super().adapt(model)
        for name, parameter in model.named_parameters():
            if "LayerNorm" in name and "layer.2" in name:
                parameter.requires_grad_(True)


def test_lora__of_the_last_blocks(texts: World) -> None:
    backbone, data = texts()
    data.load()
    data.connect(backbone, 0)

    def adapted(last: int) -> set[str]:
        model = backbone.build(data.task)
        LoRA(last=last).adapt(model)
        return {name for name, p in model.named_parameters() if p.requires_grad and "lora" in name}

    assert {name.split("layer.")[1][0] for name in adapted(2)} == {"1", "2"}
    assert {name.split("layer.")[1][0] for name in adapted(4)} == {"0", "1", "2"}
    with pytest.raises(Incompatible, match="has 4 blocks"):
        adapted(5)
    with pytest.raises(ValueError, match="last must be at least 1"):
        LoRA(last=0)


def test_dropout__of_a_slot_is_that_of_its_state_alone() -> None:
    states = [torch.Generator().manual_seed(seed).get_state() for seed in (1, 2)]
    x, before = torch.ones(2, 5), torch.get_rng_state()
    q = torch.randn(2, 1, 4, 3, generator=torch.Generator().manual_seed(0))
    alone = []
    for slot, state in enumerate(states):
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state)
            own = q[slot : slot + 1]
            alone.append((dropout(x[slot : slot + 1]), attention(own, own, own, dropout_p=0.5)))
    with SlotDropout(states, torch.device("cpu")) as dropping:
        found = dropout(x), attention(q, q, q, dropout_p=0.5)
    assert torch.equal(torch.get_rng_state(), before) and not dropping.strayed
    for packed, plain in zip(found, zip(*alone, strict=True), strict=True):
        assert torch.equal(packed, torch.cat(plain))
    with dropping:
        torch.rand(1)
    assert dropping.strayed
