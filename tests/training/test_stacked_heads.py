"""Heads that train as one matrix product: the same as one run after another with the Trainer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matrix import World, make_world
from safetensors.torch import load_file

from ftlab.techniques.base import Optimization
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.training.checkpoint import WEIGHTS
from ftlab.training.fit import Run
from ftlab.training.run import execute
from ftlab.training.settings import TrainerSettings
from ftlab.training.together import execute_together


@pytest.fixture
def texts(request: pytest.FixtureRequest) -> World:
    return make_world("text_classification", request.getfixturevalue)


Settings = tuple[int, float, Optimization]
MEMBERS: list[Settings] = [
    (7, 3e-2, Optimization(weight_decay=0.0)),
    (7, 1e-2, Optimization(weight_decay=0.3, schedule="cosine")),
    (8, 3e-2, Optimization(weight_decay=0.1, warmup=0.0)),
    (9, 3e-2, Optimization("adam", weight_decay=0.1, schedule="one-cycle")),
    (8, 1e-1, Optimization("sgd", weight_decay=0.1, schedule="constant")),
]


def a_run(world: World, directory: Path, settings: Settings, plain: bool, **trainer: Any) -> Run:
    backbone, data = world()
    seed, lr, optim = settings
    directory.mkdir(parents=True)
    told = {"max_epochs": 3, "precision": "64-true", "log_every": 4} | trainer
    record = {"backbone": {"source": repr(vars(backbone))}, "data": {"init_args": {}}}
    return Run(backbone, data, LinearProbe(lr, optim), TrainerSettings(**told), seed, "val/loss",
               directory, record, plain)


def agree(found: dict[str, float], expected: dict[str, float]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if not name.startswith("cost/") or "flops" in name or "parameters" in name:
            assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-7, nan_ok=True), name


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "checkpoint" / WEIGHTS)


def curves(events: list[dict[str, Any]]) -> list[tuple[int, dict[str, float]]]:
    return [(event["step"], {name: value for name, value in event["metrics"].items()
                             if "seconds" not in name})
            for event in events if event["event"] == "metrics"]


def held_together(
    world: World, tmp_path: Path, members: list[Settings], change: Callable[[Run], None] | None = None,
    **trainer: Any,
) -> list[list[dict[str, Any]]]:
    """Train as a stack and one by one with the Trainer, and compare all; the stack's events."""
    change = change or (lambda run: None)
    stacked = [a_run(world, tmp_path / f"s{i}", m, False, **trainer) for i, m in enumerate(members)]
    for run in stacked:
        change(run)
    events: list[list[dict[str, Any]]] = [[] for _ in members]
    results = execute_together(stacked, [each.append for each in events], None)
    for i, settings in enumerate(members):
        run, said = a_run(world, tmp_path / f"p{i}", settings, True, **trainer), []
        change(run)
        expected = execute(run, said.append)
        assert not isinstance(results[i], Exception), results[i]
        agree(results[i], expected)
        ours, plain = weights(tmp_path / f"s{i}"), weights(tmp_path / f"p{i}")
        assert ours.keys() == plain.keys()
        for name in plain:
            torch.testing.assert_close(ours[name], plain[name], rtol=0, atol=1e-9)
        for (step, values), (at, known) in zip(curves(events[i]), curves(said), strict=True):
            assert step == at
            assert values == pytest.approx(known, rel=1e-6, abs=1e-7, nan_ok=True)
    return events


def test_stack__gives_what_each_run_gives_with_the_trainer(texts: World, tmp_path: Path) -> None:
    events = held_together(texts, tmp_path, MEMBERS)
    for each in events:
        assert "trained as one of 5 heads by one matrix product" in [
            event["text"] for event in each if event["event"] == "shortcut"]
