"""Processes that begin at the same moment on the same empty store."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

from ftlab.tracking.records import CellKey
from ftlab.tracking.tracker import Tracker

TECHNIQUES = ("full", "lora", "probe")
EPOCHS = 5


def at_once(count: int, act: Callable[[int], None]) -> list[str]:
    """`act(number)` in so many forks of this process that begin together; what they raised."""
    context = get_context("fork")
    gate, raised = context.Barrier(count), context.Queue()

    def one(number: int) -> None:
        gate.wait(60)
        try:
            act(number)
        except BaseException:  # noqa: BLE001  whatever it is, the test shows it
            raised.put(traceback.format_exc())
        else:
            raised.put("")
        raised.close()
        raised.join_thread()
        os._exit(0)

    processes = [context.Process(target=one, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    told = [raised.get(timeout=300) for _ in processes]
    for process in processes:
        process.join(60)
    return [text for text in told if text]


def begin_study(uri: str, study: str, folder: Path) -> Callable[[int], None]:
    """What a first `ftlab run` writes, with a seed of its own for each process."""

    def act(number: int) -> None:
        tracker = Tracker(uri)
        tracker.open_study(study, {"mlflow.note.content": "which?"})
        tracker.set_view(study, "test/accuracy")
        (folder / str(number)).mkdir()
        (folder / str(number) / "run.json").write_text("{}")
        for place, technique in enumerate(TECHNIQUES):
            key = CellKey(study, "bert", "reviews", technique, "c0ffee")
            cell = tracker.open_cell(key, {"technique": {"lr": 0.1}}, [number], place, place)
            run = tracker.open_run(cell, number, {"seed": number})
            tracker.set_tags(run, {"ftlab.backbone_sha256": "b" * 64})
            tracker.log_dataset(run, "reviews", "d" * 64, "a.csv", {"train": {"rows": 3}})
            for epoch in range(EPOCHS):
                tracker.log_metrics(run, {"val/accuracy": epoch / 10}, epoch, 1000 + epoch)
            tracker.log_metrics(run, {"test/accuracy": number / 10}, 0, 2000)
            tracker.log_artifacts(run, folder / str(number))
            tracker.end_run(run, "FINISHED")
            tracker.end_cell(cell)
        tracker.close()

    return act
