"""LoRA trials on one network: each has the losses, scores and weights that it has alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matrix import World, make_world

from ftlab.backbones.huggingface import HuggingFace
from ftlab.errors import GuardFailed
from ftlab.techniques.base import Optimization
from ftlab.techniques.lora import LoRA
from ftlab.training import packing_check
from ftlab.training.fit import Run
from ftlab.training.packed_adapters import fit_packed
from ftlab.training.search import search
from ftlab.training.settings import TrainerSettings

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
           settings: TrainerSettings = FLOAT64, dropout: float = 0.0) -> Run:
    backbone, data = world()
    if isinstance(backbone, HuggingFace):
        backbone.dropout = dropout
    record = {"backbone": {"source": repr(vars(backbone))}, "data": {"init_args": {}}}
    return Run(backbone, data, technique, settings, seed, "val/loss", directory, record, plain)


Making = Callable[[bool], list[Run]]


def never() -> bool:
    return False


def both(make: Making) -> tuple[list[Any], list[Any], list[str]]:
    """What each run alone and the pack gives: results, events by run, what was decided."""
    alone, together = [], []
    for run in make(True):
        events: list[dict[str, Any]] = []
        alone.append((search(run, events.append), events, run))
    runs = make(False)
    heard: list[list[dict[str, Any]]] = [[] for _ in runs]
    results = fit_packed(runs, [each.append for each in heard], [never] * len(runs))
    together = list(zip(results, heard, runs, strict=True))
    notes = [event["text"] for each in heard for event in each if event["event"] == "shortcut"]
    return alone, together, notes


def assert_same(alone: Sequence[Any], together: Sequence[Any], tolerance: float) -> None:
    for (plain, said, one), (packed, heard, other) in zip(alone, together, strict=True):
        curve, ours = ([(e["step"], e["metrics"]) for e in events if e["event"] == "metrics"]
                       for events in (said, heard))
        assert [step for step, _ in curve] == [step for step, _ in ours]
        for (_, metrics), (_, own) in zip(curve, ours, strict=True):
            for name in metrics.keys() | own.keys():
                exact = name.startswith("train/") and tolerance < 1e-8
                assert own[name] == pytest.approx(
                    metrics[name], rel=tolerance if exact else 1e-6, abs=1e-9), name
        assert packed.keys() == plain.keys()
        for name in plain:
            if "cost" not in name:
                assert packed[name] == pytest.approx(plain[name], rel=1e-5), name
        weights = dict(one.technique.model.named_parameters())
        for name, parameter in other.technique.model.named_parameters():
            torch.testing.assert_close(parameter, weights[name], rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_pack__gives_each_run_what_it_has_alone(
    texts: World, dropout: float, tmp_path: Path
) -> None:
    def make(plain: bool) -> list[Run]:
        return [run_of(texts, each, plain, tmp_path, dropout=dropout)
                for each in techniques(dropout)]

    alone, together, notes = both(make)
    assert all("3 runs packed" in note for note in notes), notes
    assert_same(alone, together, 1e-9)
