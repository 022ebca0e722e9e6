"""Runs what a plan says and records it; holds no model itself."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftlab.errors import InputError
from ftlab.studies import provenance
from ftlab.studies.dispatch import Job, Jobs, Signals, closing, dispatch
from ftlab.studies.display import Display
from ftlab.studies.engine import OUTPUT, SPECIFICATION, Engine, Event, Need
from ftlab.studies.plan import Plan, PlannedCell, plan
from ftlab.studies.study import Study
from ftlab.studies.workers import Workers
from ftlab.tracking.records import CellRecord
from ftlab.tracking.tracker import Status, Tracker

FLUSH = 5.0  # seconds from a metric to the UI
ATTEMPTS = 3  # at a run whose machine vanishes


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
    workers: int | None = 1,
    timeout: float | None = None,
    engine: Engine | None = None,
) -> Outcome:
    """Do every run of a study that is not finished yet.

    Args:
        study: from `load_study`.
        tracking_uri: MLflow's store; None as in `Tracker`.
        results: folder in whose `<study>/.work` runs write while they go on.
        display: shows progress; None for the default one.
        workers: runs at a time; several on one machine disturb each other's measured times. None
            for as many as the machine has room for.
        timeout: seconds without a sign of life after which a run fails.
        engine: executes the runs, and is closed at the end; None for this machine.

    Raises:
        InputError: the study cannot run; nothing was written.
        Interrupted: by Ctrl-C or SIGTERM.
    """
    engine = engine or Workers()  # imports while we read the data
    display = display or Display()
    signals = Signals()
    try:
        engine.prepare(need(study), workers, timeout)
        made = plan(study)
        tracker = Tracker(tracking_uri)
        work = Path(results) / study.name / ".work"
        made.check_space([work])
        for note in made.notes:
            display.note(note)
        signals.deferred = True
        runs = _Runs(made, tracker, work.absolute(), display, engine.slots)
        with closing(runs.close, display.note):
            dispatch(engine, runs, signals)
        _tidy(work, runs.outcome)
        return runs.outcome
    finally:
        signals.restore()
        engine.close()


def need(study: Study) -> Need:
    """What the largest run of a study wants."""
    devices = max(cell.trainer["devices"] for cell in study.cells)
    accelerators = {cell.trainer["accelerator"] for cell in study.cells}
    return Need(devices, accelerators.pop() if len(accelerators) == 1 else "auto")


class _Runs(Jobs):
    """The runs of a study that are not finished."""

    def __init__(
        self, made: Plan, tracker: Tracker, work: Path, display: Display, slots: int
    ) -> None:
        study = self.study = made.study
        self.tracker, self.work, self.display, self.report = tracker, work, display, study.report
        tracker.open_study(study.name, {"mlflow.note.content": study.question})
        self.environment = json.dumps(provenance.here(), sort_keys=True)
        self.cells = {
            tracker.open_cell(p.cell.key, p.cell.config, study.seeds, order): p
            for order, p in enumerate(made.cells)
        }
        done = {cell_id: tracker.finished(cell_id) & set(study.seeds) for cell_id in self.cells}
        _refuse_changed(self.cells, tracker.cells(study.name))
        # seed by seed, so that an early look at the study compares all its cells
        self.waiting = deque((c, s) for s in study.seeds for c in self.cells if s not in done[c])
        self.outcome = Outcome(finished=sum(map(len, done.values())))
        self.open = Counter(cell_id for cell_id, _ in self.waiting)
        self.attempts: Counter[tuple[str, int]] = Counter()
        self.flushed = time.monotonic()
        left = Counter(self.cells[cell_id].cell.key.technique for cell_id, _ in self.waiting)
        display.start(study.name, self.outcome.finished, left, slots)
        for cell_id in self.cells.keys() - self.open.keys():
            tracker.end_cell(cell_id)

    def next(self) -> Job | None:
        if not self.waiting:
            return None
        cell_id, seed = self.waiting.popleft()
        self.attempts[cell_id, seed] += 1
        return _Run(self, cell_id, self.cells[cell_id], seed)

    def over(self) -> bool:
        return not self.waiting

    def tick(self) -> None:
        self.display.idle()
        if time.monotonic() - self.flushed > FLUSH:
            self.flushed = time.monotonic()
            self.tracker.flush()

    def ended(self, cell_id: str) -> None:
        """One of a cell's runs has ended."""
        self.open[cell_id] -= 1
        if not self.open[cell_id]:
            self.tracker.end_cell(cell_id)

    def close(self) -> None:
        """Leave the store and the terminal in order, whatever has happened."""
        for cell_id in +self.open:
            self.tracker.end_cell(cell_id, interrupted=True)
        self.display.close()
        self.tracker.close()


def _tidy(work: Path, outcome: Outcome) -> None:
    """Leave of the runs' folders the failed ones' output alone; sweeps have theirs beside them."""
    for directory in work.iterdir() if work.exists() else ():
        ours = (directory / SPECIFICATION).exists()
        if ours and not any(str(directory) in failure for failure in outcome.failures):
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
            for tag, now in fingerprints(planned).items():
                if run.tags.get(tag, now) != now:
                    name = tag.removeprefix("ftlab.").removesuffix("_sha256")
                    raise InputError(
                        f"{planned.cell.key.title}: the {name} has changed since seed {run.seed} ran",
                        "put it back, or give the study or the changed part another name",
                    )


def fingerprints(planned: PlannedCell) -> dict[str, str]:
    """Tags of the data and weights that a cell stands on."""
    return {
        "ftlab.dataset_sha256": planned.data_fingerprint,
        "ftlab.backbone_sha256": planned.backbone_fingerprint,
    }


class _Run(Job):
    """One run, as the coordinator sees it."""

    def __init__(self, runs: _Runs, cell_id: str, planned: PlannedCell, seed: int) -> None:
        key, self.tracker = planned.cell.key, runs.tracker
        self.runs, self.cell_id, self.planned, self.seed = runs, cell_id, planned, seed
        self.title = f"{key.title}, seed {seed}"
        self.directory = runs.work / f"{key.technique}-{key.config}-seed{seed}"
        self.metrics: dict[str, float] = {}
        self.step = 0
        self.reason = ""
        said = runs.study.specification(planned.cell, seed)
        write_specification(
            self.directory, {**said, "study": key.study, "fingerprints": fingerprints(planned)}
        )
        self.run_id = self.tracker.open_run(cell_id, seed, said)
        tags = {provenance.TAG: runs.environment, **fingerprints(planned)}
        self.tracker.set_tags(self.run_id, tags)
        log_data(self.tracker, self.run_id, planned)
        self.begin = time.monotonic()
        runs.display.run_started(self.title, key.technique)

    def event(self, event: Event) -> None:
        match event["event"]:
            case "progress":
                self.runs.display.progress(
                    self.title, event["phase"], event["done"], event["total"])
            case "metrics":
                self.step, now = event["step"], event["time"]
                self.tracker.log_metrics(self.run_id, event["metrics"], self.step, now)
            case "note" | "shortcut" | "precision" | "hardware" | "compile" as about:
                self.tracker.set_tags(self.run_id, {f"ftlab.{about}": event["text"]})
            case "environment":
                said = json.dumps(event["said"], sort_keys=True)
                self.tracker.set_tags(self.run_id, {provenance.TAG: said})
            case "failed":
                self.reason = event["reason"]
            case "done":
                self.metrics, now = event["metrics"], int(time.time() * 1000)
                # MLflow's value of a metric is the one of the highest step: the restored epoch's
                self.tracker.log_metrics(self.run_id, self.metrics, self.step + 1, now)

    def end(self, event: Event) -> None:
        runs, outcome = self.runs, self.runs.outcome
        reason = event.get("reason") or self.reason or died(event["code"], bool(self.metrics))
        if event.get("machine_lost") and runs.attempts[self.cell_id, self.seed] < ATTEMPTS:
            self._again(reason)
            return
        status: Status = "FAILED" if reason else "FINISHED"
        if reason:  # of a failed run what tells why, of a finished one all that it wrote
            shutil.rmtree(self.directory / "checkpoint", ignore_errors=True)
        self.tracker.log_artifacts(self.run_id, self.directory)
        self.tracker.end_run(self.run_id, status, reason)
        stored = self.tracker.flush()
        known = runs.report in self.metrics
        score = f"{runs.report} {self.metrics[runs.report]:.4f}" if known else ""
        seconds = time.monotonic() - self.begin
        runs.display.run_ended(self.title, status, seconds, score, reason)
        if reason:
            outcome.failed += 1
            where = self.directory / OUTPUT
            outcome.failures.append(f"{self.title}: {reason} (output: {where})")
        else:
            outcome.finished += 1
            if stored:  # in an outage the files stay until the tracker's last attempt
                shutil.rmtree(self.directory)
        runs.ended(self.cell_id)

    def _again(self, reason: str) -> None:
        """Let another attempt be made; this one stays in the store as KILLED."""
        self.tracker.end_run(self.run_id, "KILLED", reason)
        shutil.rmtree(self.directory)
        self.runs.display.note(f"{self.title}: {reason}; it will be begun again")
        self.runs.display.run_dropped(self.title)
        self.runs.waiting.append((self.cell_id, self.seed))

    def interrupted(self, why: str) -> None:
        self.tracker.end_run(self.run_id, "KILLED", why)
        shutil.rmtree(self.directory, ignore_errors=True)


def write_specification(directory: Path, said: Mapping[str, Any]) -> None:
    """Make a run's folder anew, with its specification."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / SPECIFICATION).write_text(json.dumps(said, indent=1), encoding="utf-8")


def log_data(tracker: Tracker, run_id: str, planned: PlannedCell) -> None:
    """Say in the store which data a run used."""
    source = str(planned.cell.data["init_args"].get("train", ""))
    for split, counts in planned.data_profile.items():
        name, digest = planned.cell.key.dataset, planned.data_fingerprint
        tracker.log_dataset(run_id, name, digest, source, split, counts)


def died(code: int, done: bool) -> str:
    """Why a process that gave no reason has ended; empty where it did what it should."""
    if code == 0 and done:
        return ""
    if code < 0:
        hint = ", out of memory perhaps" if code == -signal.SIGKILL else ""
        return f"the run's process was killed by {signal.Signals(-code).name}{hint}"
    return f"the run's process ended with exit code {code}"
