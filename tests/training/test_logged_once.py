"""Every loop logs each metric of a step once, and the rate that the step was taken with."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matrix import World, make_world

from ftlab.techniques.base import Optimization
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.techniques.linear_probe_then_fine_tune import LinearProbeThenFineTune
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.shared_fit import execute_together
from ftlab.training.shortcuts.prefix_cache import prefix_source
from ftlab.training.shortcuts.prefix_cache.cache_estimate import Forecast
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
LINEAR = Optimization("sgd", schedule="linear", warmup=0.0)
Events = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def shortcuts_pay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny networks are stacked whatever it takes."""
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prefix_source, "foresee", lambda *_: Forecast(1, 2.0, 1.0, 0.0, 1000))


@pytest.fixture
def world(request: pytest.FixtureRequest) -> World:
    return make_world("text_classification", request.getfixturevalue)


def a_run(world: World, technique: Any, directory: Path, plain: bool) -> Run:
    backbone, data = world()
    directory.mkdir(parents=True)
    record = {"backbone": {"source": repr(vars(backbone))}, "data": {"init_args": {}}}
    settings = TrainerSettings(max_epochs=2, precision="64-true", log_every=1)
    return Run(backbone, data, technique, settings, 3, "val/loss", directory, record, plain)


def lightnings(world: World, folder: Path) -> Events:
    events: Events = []
    execute(a_run(world, LinearProbe(1e-2, LINEAR, None), folder / "run", True), events.append)
    return events


def in_two_fits(world: World, folder: Path) -> Events:
    events: Events = []
    technique = LinearProbeThenFineTune(lr=1e-3, optim=LINEAR)
    execute(a_run(world, technique, folder / "run", True), events.append)
    return events


def together(world: World, folder: Path, techniques: list[Any], word: str) -> Events:
    events: list[Events] = [[] for _ in techniques]
    runs = [a_run(world, technique, folder / str(number), False)
            for number, technique in enumerate(techniques)]
    execute_together(runs, [each.append for each in events], [lambda: False] * len(runs))
    assert any(word in str(event.get("text")) for event in events[0]), "another loop ran"
    return events[0]


def stacked_heads(world: World, folder: Path) -> Events:
    return together(world, folder, [LinearProbe(1e-2, LINEAR, None), LinearProbe(2e-2, LINEAR, None)], "heads")


LOOPS: list[Callable[[World, Path], Events]] = [lightnings, in_two_fits, stacked_heads]


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_loop__logs_each_metric_of_a_step_once(loop, world: World, tmp_path: Path) -> None:
    events = [event for event in loop(world, tmp_path) if event["event"] == "metrics"]
    counts = Counter((name, event["step"]) for event in events for name in event["metrics"])
    assert {key: count for key, count in counts.items() if count > 1} == {}
    rates = {event["step"]: event["metrics"]["train/lr"] for event in events
             if "train/lr" in event["metrics"]}
    assert sorted(rates) == list(range(1, max(rates) + 1))
    if loop is not in_two_fits:  # of each step before the schedule's next: lr * (1 - done / all)
        expected = [1e-2 * (1 - step / len(rates)) for step in range(len(rates))]
        assert [rates[step] for step in sorted(rates)] == pytest.approx(expected)
