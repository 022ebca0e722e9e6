"""Runs what a plan says, one run after another, and records it; holds no model itself."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from ftlab.errors import InputError
from ftlab.studies import provenance
from ftlab.studies.display import Display
from ftlab.studies.plan import Plan, PlannedCell, plan
from ftlab.studies.study import Study
from ftlab.studies.workers import OUTPUT, SPECIFICATION, Workers
from ftlab.tracking.records import CellRecord
from ftlab.tracking.tracker import Tracker

FLUSH = 5.0  # seconds from a metric to the UI


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM arrived; the store is in order and the same command continues."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass
class Outcome:
    """What became of a study's runs.

    Attributes:
        finished, failed: how many runs; the finished ones of earlier commands are counted.
        failures: one line each: which run, why, where its output is.
    """

    finished: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)


def run_study(
    study: Study,
    tracking_uri: str | None = None,
    results: str | Path = "results",
    display: Display | None = None,
) -> Outcome:
    """Do every run of a study that is not finished yet.

    Args:
        study: from `load_study`.
        tracking_uri: MLflow's store; None as in `Tracker`.
        results: folder in whose `<study>/.work` runs write while they go on.
        display: shows progress; None for the default one.

    Raises:
        InputError: the study cannot run; nothing was written.
        Interrupted: by Ctrl-C or SIGTERM.
    """
    workers = Workers()  # imports while we read the data
    display = display or Display()
    signals = _Signals()
    try:
        made = plan(study)
        tracker = Tracker(tracking_uri)
        work = Path(results) / study.name / ".work"
        made.check_space([work])
        for note in made.notes:
            display.note(note)
        signals.deferred = True
        return _run_all(made, tracker, workers, work, display, signals)
    finally:
        signals.restore()
        workers.close()


def _run_all(
    made: Plan,
    tracker: Tracker,
    workers: Workers,
    work: Path,
    display: Display,
    signals: _Signals,
) -> Outcome:
    study = made.study
    tracker.open_study(study.name, {"mlflow.note.content": study.question})
    environment = json.dumps(provenance.here(), sort_keys=True)
    cells = {
        tracker.open_cell(p.cell.key, p.cell.config, study.seeds, order): p
        for order, p in enumerate(made.cells)
    }
    finished = {cell_id: tracker.finished(cell_id) & set(study.seeds) for cell_id in cells}
    _refuse_changed(cells, tracker.cells(study.name))
    # Seed by seed, so that an early look at the study compares all its cells.
    waiting = [(c, s) for s in study.seeds for c in cells if s not in finished[c]]
    outcome = Outcome(finished=sum(map(len, finished.values())))
    left = Counter(cells[cell_id].cell.key.technique for cell_id, _ in waiting)
    display.start(study.name, outcome.finished, left)
    open_seeds = Counter(cell_id for cell_id, _ in waiting)
    one = _OneRun(tracker, workers, display, work, environment, study.report, signals)
    try:
        for cell_id in cells.keys() - open_seeds.keys():
            tracker.end_cell(cell_id)
        for cell_id, seed in waiting:
            one.execute(cell_id, cells[cell_id], seed, outcome)
            open_seeds[cell_id] -= 1
            if not open_seeds[cell_id]:
                tracker.end_cell(cell_id)
    except Interrupted:
        for cell_id in +open_seeds:
            tracker.end_cell(cell_id, interrupted=True)
        raise
    finally:
        display.close()
        tracker.close()
    _tidy(work, outcome)
    return outcome


def _tidy(work: Path, outcome: Outcome) -> None:
    """Leave of the runs' folders the failed ones' output alone."""
    for directory in work.iterdir() if work.exists() else ():
        if not any(str(directory) in failure for failure in outcome.failures):
            shutil.rmtree(directory)
    if work.exists() and not any(work.iterdir()):
        work.rmdir()


def _refuse_changed(cells: Mapping[str, PlannedCell], records: Sequence[CellRecord]) -> None:
    """Runs on other data or weights must not share a cell with the earlier ones."""
    for record in records:
        if record.cell_id not in cells:
            continue
        planned = cells[record.cell_id]
        for run in record.finished:
            for tag, now in _fingerprints(planned).items():
                if run.tags.get(tag, now) != now:
                    name = tag.removeprefix("ftlab.").removesuffix("_sha256")
                    raise InputError(
                        f"{planned.cell.key.title}: the {name} has changed since seed {run.seed} ran",
                        "put it back, or give the study or the changed part another name",
                    )


def _fingerprints(planned: PlannedCell) -> dict[str, str]:
    return {
        "ftlab.dataset_sha256": planned.data_fingerprint,
        "ftlab.backbone_sha256": planned.backbone_fingerprint,
    }


@dataclass
class _OneRun:
    """The life of one run as the coordinator sees it."""

    tracker: Tracker
    workers: Workers
    display: Display
    work: Path
    environment: str
    report: str
    signals: _Signals

    def execute(self, cell_id: str, planned: PlannedCell, seed: int, outcome: Outcome) -> None:
        key = planned.cell.key
        directory = (self.work / f"{key.technique}-{key.config}-seed{seed}").absolute()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        said = {**planned.cell.config, "seed": seed}
        record = {**said, "study": key.study, "fingerprints": _fingerprints(planned)}
        (directory / SPECIFICATION).write_text(json.dumps(record, indent=1), encoding="utf-8")
        run_id = self.tracker.open_run(cell_id, seed, said)
        tags = {provenance.TAG: self.environment, **_fingerprints(planned)}
        self.tracker.set_tags(run_id, tags)
        self._log_data(run_id, planned)
        self.display.run_started(planned.cell, seed)
        begin = time.monotonic()
        try:
            metrics, reason = self._follow(run_id, directory)
        except Interrupted as interrupted:
            name = signal.Signals(interrupted.number).name
            self.workers.close()
            self.tracker.end_run(run_id, "KILLED", f"interrupted by {name}")
            shutil.rmtree(directory)
            raise
        status = "FAILED" if reason else "FINISHED"
        self._store(run_id, directory, status)
        self.tracker.end_run(run_id, "FAILED" if reason else "FINISHED", reason)
        stored = self.tracker.flush()
        score = f"{self.report} {metrics[self.report]:.4f}" if self.report in metrics else ""
        self.display.run_ended(status, time.monotonic() - begin, score, reason)
        if reason:
            outcome.failed += 1
            where = directory / OUTPUT
            outcome.failures.append(f"{key.title}, seed {seed}: {reason} (output: {where})")
        else:
            outcome.finished += 1
            if stored:  # in an outage the files stay until the tracker's last attempt
                shutil.rmtree(directory)

    def _follow(self, run_id: str, directory: Path) -> tuple[dict[str, float], str]:
        """Forward a run's events; its final metrics, and why it failed if it did."""
        metrics: dict[str, float] = {}
        reason = ""
        flushed = time.monotonic()
        for event in self.workers.run(directory):
            self.signals.check()
            match event["event"]:
                case "progress":
                    self.display.progress(event["phase"], event["done"], event["total"])
                case "metrics":
                    step, now = event["step"], event["time"]
                    self.tracker.log_metrics(run_id, event["metrics"], step, now)
                case "note":
                    self.tracker.set_tags(run_id, {"ftlab.note": event["text"]})
                case "failed":
                    reason = event["reason"]
                case "done":
                    metrics = event["metrics"]
                    self.tracker.log_metrics(run_id, metrics, 0, int(time.time() * 1000))
                case "exit":
                    reason = reason or _died(event["code"], bool(metrics))
                case _:
                    self.display.idle()
                    if time.monotonic() - flushed > FLUSH:
                        flushed = time.monotonic()
                        self.tracker.flush()
        return metrics, reason

    def _log_data(self, run_id: str, planned: PlannedCell) -> None:
        key, profile = planned.cell.key, planned.data_profile
        source = str(planned.cell.data["init_args"].get("train", ""))
        for split, counts in profile.items():
            self.tracker.log_dataset(
                run_id, key.dataset, planned.data_fingerprint, source, split, counts
            )

    def _store(self, run_id: str, directory: Path, status: str) -> None:
        """Artifacts: all that a finished run wrote, of a failed one what tells why."""
        if status == "FAILED":
            shutil.rmtree(directory / "checkpoint", ignore_errors=True)
        self.tracker.log_artifacts(run_id, directory)


def _died(code: int, done: bool) -> str:
    if code == 0 and done:
        return ""
    if code < 0:
        hint = ", out of memory perhaps" if code == -signal.SIGKILL else ""
        return f"the run's process was killed by {signal.Signals(-code).name}{hint}"
    return f"the run's process ended with exit code {code}"


class _Signals:
    """Ctrl-C and SIGTERM as `Interrupted`.

    While nothing is written they interrupt at once; with `deferred` only where `check` is
    called, so that no write to the store is cut in two. The second one does not wait.
    """

    def __init__(self) -> None:
        self.deferred = False
        self._arrived: int | None = None
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # Python allows no other
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.deferred or self._arrived is not None:
            raise Interrupted(number)
        self._arrived = number

    def check(self) -> None:
        if self._arrived is not None:
            raise Interrupted(self._arrived)

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
