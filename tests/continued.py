"""Runs that are ended at a step, just after their state was written, and continued by others."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.run_state import RunState

Event = dict[str, Any]
CLOCKED = ("seconds", "bytes", "joules", "latency")  # what differs from run to run


class Killed(BaseException):
    """Ends a run as nothing in it expects."""


Execute = Callable[[Run, Callable[[Event], None]], dict[str, float]]


def run_to_end(run: Run, act: Execute = execute) -> tuple[dict[str, float], list[Event], dict[str, Tensor]]:
    """Metrics, events and weights of a run."""
    events: list[Event] = []
    torch.manual_seed(5)
    metrics = act(run, events.append)
    return metrics, events, {name: t.clone() for name, t in run.technique.model.state_dict().items()}


def killed_at(run: Run, step: int, act: Execute = execute) -> list[Event]:
    """The events of a run that is ended at the first batch after a step, its state written.

    Args:
        run: to be ended.
        step: updates before that.
    """
    write, events = RunState._write, []

    def due(self: RunState, trainer: Any, number: int) -> bool:
        return trainer.global_step == step and self._opens(trainer, number)

    def kill(self: RunState, trainer: Any) -> None:
        write(self, trainer)
        if self.files.states:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunState, "_due", due)
        patch.setattr(RunState, "_write", kill)
        torch.manual_seed(5)
        try:
            act(run, events.append)
        except Killed:
            return events
    pytest.fail(f"no state: {[event['text'] for event in events if event['event'] == 'note']}")


def points(events: list[Event]) -> list[tuple[int, str, float]]:
    """What a run has logged, but for what a clock says."""
    return [(event["step"], name, value) for event in events if event["event"] == "metrics"
            for name, value in event["metrics"].items()
            if not any(word in name for word in CLOCKED)]


def timeless(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics that no clock and no memory gives."""
    return {name: value for name, value in metrics.items()
            if not any(word in name for word in CLOCKED)}


def assert_continues(make: Callable[[Path], Run], folder: Path, *steps: int,
                     act: Execute = execute) -> None:
    """A run that is ended at some steps and continued gives what the whole one does, to the bit.

    Args:
        make: makes it, in a folder.
        folder: of both.
        steps: at which it ends.
        act: `execute`, or `search` for a trial.
    """
    (folder / "whole").mkdir(parents=True)
    (folder / "parts").mkdir()
    metrics, events, weights = run_to_end(make(folder / "whole"), act)
    said: list[Event] = []
    for step in steps:
        said += killed_at(make(folder / "parts"), step, act)
    metrics_now, rest, weights_now = run_to_end(make(folder / "parts"), act)
    said += rest
    assert not (folder / "parts" / "state").exists()
    assert [event["text"].partition(",")[0] for event in said
            if event.get("text", "").startswith("continued")] == [
                f"continued at step {step}" for step in steps]
    whole, parts = points(events), points(said)
    wrong = [pair for pair in zip_longest(whole, parts) if pair[0] != pair[1]]
    assert not wrong, wrong[:4]
    assert weights.keys() == weights_now.keys()
    assert [name for name, tensor in weights.items()
            if not torch.equal(tensor, weights_now[name])] == []
    assert timeless(metrics) == timeless(metrics_now)
