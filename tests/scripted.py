"""An engine whose runs are a function of their specification: sweeps without training."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from ftlab.studies.engine import EVENTS, SPECIFICATION, STOP, Engine, Event, Requirements
from ftlab.studies.fork_server import execute_folder

Play = Callable[[dict[str, Any], Path], Iterator[Event]]
"""(specification, folder) -> the run's events; without an `exit` of its own it ends well."""


class ScriptedEngine(Engine):
    """Plays runs, as many at a time as there are slots, an event of each at a time."""

    def __init__(self, play: Play, slots: int = 2) -> None:
        self.play, self.slots, self.closed = play, slots, False
        self.playing: dict[Path, Iterator[Event]] = {}
        self.started: list[dict[str, Any]] = []

    def prepare(self, need: Requirements, workers: int | None, timeout: float | None) -> None:
        pass

    def start(self, directory: Path) -> None:
        assert len(self.playing) < self.slots
        said = json.loads((directory / SPECIFICATION).read_text())
        self.started.append(said)
        if "members" in said:
            self.playing[directory] = self._together(said["members"], directory)
        else:
            self.playing[directory] = self.play(said, directory)

    def _together(self, members: list[dict[str, Any]], directory: Path) -> Iterator[Event]:
        """A member's events in turn; an `exit` of one is the end of all."""
        runs = {i: self.play(said, directory / str(i)) for i, said in enumerate(members)}
        while runs:
            for number, run in list(runs.items()):
                event = next(run, None)
                if event is None:
                    del runs[number]
                elif event["event"] == "exit":
                    yield event
                    return
                else:
                    yield {**event, "member": number}

    def events(self, patience: float) -> list[tuple[Path, Event]]:
        assert not self.closed
        news = []
        for directory, run in list(self.playing.items()):
            event = next(run, {"event": "exit", "code": 0, "lost": False})
            news.append((directory, event))
            if event["event"] == "exit":
                del self.playing[directory]
        return news

    def prune(self, directory: Path) -> None:
        (directory / STOP).touch()

    def close(self) -> None:
        self.closed = True
        self.playing.clear()


class HereEngine(ScriptedEngine):
    """Executes runs in this process, which has the imports done, one after another."""

    def __init__(self) -> None:
        super().__init__(lambda said, folder: iter(()), 1)

    def start(self, directory: Path) -> None:
        self.started.append(json.loads((directory / SPECIFICATION).read_text()))
        code = execute_folder(directory, None)
        said = (directory / EVENTS).read_text().splitlines()
        self.playing[directory] = iter([*map(json.loads, said), ended(code)])


def epochs(folder: Path, scores: list[float], **more: float) -> Iterator[Event]:
    """The events of a run with these validation accuracies; ends early where it is pruned."""
    reached, pruned = [], 0.0
    for epoch, score in enumerate(scores, 1):
        metrics = {"val/accuracy": score, "epoch": epoch}
        yield {"event": "metrics", "step": epoch, "time": time.time_ns() // 10**6, "metrics": metrics}
        reached.append(score)
        if (folder / STOP).exists() and epoch < len(scores):
            pruned = 1.0
            break
    yield {"event": "done", "metrics": {"val/accuracy": max(reached), "pruned": pruned, **more}}


def ended(code: int, lost: bool = False, **more: Any) -> Event:
    """The end of a run that did not go well."""
    return {"event": "exit", "code": code, "lost": lost, **more}


def write_sweep(folder: Path, backbone: Path, data: Path, study: dict[str, Any] | None = None,
                **keys: Any) -> Path:
    """The files of a sweep over a small study, in `folder`; the sweep file's path."""
    said: dict[str, Any] = {
        "name": "small",
        "backbones": {"bert": {"class_path": "HuggingFace",
                               "init_args": {"source": str(backbone), "pooling": "mean"}}},
        "datasets": {"reviews": {"class_path": "TextClassification", "init_args": {
            "train": str(data), "max_length": 32, "batch_size": 8}}},
        "techniques": {"probe": {"class_path": "LinearProbe", "init_args": {"lr": 0.01, "solver": None}}},
        "seeds": [0], "trainer": {"max_epochs": 3},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(said | (study or {}), sort_keys=False))
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"study": str(folder / "study.yaml"), "trials": 6,
                                    "sampler": "Random", **keys}, sort_keys=False))
    return path
