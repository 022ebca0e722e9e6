"""One run of a study on its way: its events, its end, and what the store hears of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ftlab.errors import FtlabError
from ftlab.files import write
from ftlab.studies import provenance
from ftlab.studies.display import Display
from ftlab.studies.engine import OUTPUT, SPECIFICATION, Event, died
from ftlab.studies.plan import PlannedCell
from ftlab.studies.run_queue import Claim, Queue
from ftlab.studies.shared_process import SharedJob
from ftlab.studies.study import Study
from ftlab.tracking.artifacts import sha256_tags
from ftlab.tracking.tracker import Status, Tracker
from ftlab.training.manifest import FAILED, MANIFEST

ATTEMPTS = 3  # at a run whose machine vanishes


@dataclass
class StudyOutcome:
    """What became of a study's runs.

    Attributes:
        finished, failed: how many runs; the finished ones of earlier commands are counted.
        failures: one line each: which run, why, where its output is.
    """

    finished: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)


class RunContext(Protocol):
    """What a run needs of the study's coordinator.

    Attributes:
        queue: of which the runs are held.
        work: folder of the runs' folders.
        environment: provenance, as JSON.
        report: the metric that is shown.
        waiting: cells and seeds to do.
        attempts: at each of them.
        solitary: those that share no process.
        outcome: counts the ends.
    """

    study: Study
    tracker: Tracker
    queue: Queue
    display: Display
    work: Path
    environment: str
    report: str
    waiting: deque[tuple[str, int]]
    attempts: Counter[tuple[str, int]]
    solitary: set[tuple[str, int]]
    outcome: StudyOutcome

    def ended(self, cell_id: str, claim: Claim) -> None:
        """One of a cell's runs has ended, which we held by a claim."""

    def to_come(self, planned: PlannedCell) -> int:
        """How many runs that have not ended read the frozen prefix of a cell; at least one."""


class StudyRun(SharedJob):
    """One run, as the coordinator sees it.

    Args:
        runs: the coordinator's.
        cell_id: MLflow's parent run.
        planned: the cell.
        seed: of the run.
        claim: by which this command holds it.
        directory: in a pack; a run by itself has one of its own.
        share: of its process's time that counts as this run's.
    """

    def __init__(self, runs: RunContext, cell_id: str, planned: PlannedCell, seed: int,
                 claim: Claim, directory: Path | None = None, share: float = 1.0) -> None:
        key, self.tracker = planned.cell.key, runs.tracker
        self.runs, self.cell_id, self.planned, self.seed = runs, cell_id, planned, seed
        self.claim = claim
        self.title, self.share = f"{key.title}, seed {seed}", share
        for left in leftovers(runs.work, planned, seed):  # which nobody holds
            shutil.rmtree(left, ignore_errors=True)
        self.directory = directory or folder_of(runs.work, planned, seed, claim.token)
        self.metrics: dict[str, float] = {}
        self.measured: dict[str, float] = {}  # so far; of a run that fails it is all there is
        self.step = 0
        self.course: set[str] = set()  # metrics that have one
        self.reason = ""
        self.remarks = {"ftlab.note": list(planned.notes)} if planned.notes else {}
        said = runs.study.specification(planned.cell, seed)
        self.specification = {**said, "study": key.study, "fingerprints": fingerprints(planned),
                              "runs_to_come": runs.to_come(planned)}
        write_specification(self.directory, self.specification)
        self.run_id = self.tracker.open_run(cell_id, seed, said)
        tags = {provenance.TAG: runs.environment, **fingerprints(planned),
                **{name: "\n".join(texts) for name, texts in self.remarks.items()}}
        self.tracker.set_tags(self.run_id, tags)
        log_data(self.tracker, self.run_id, planned)
        self.begin = time.monotonic()
        runs.display.run_started(self.title, key.technique, share)

    def event(self, event: Event) -> None:
        match event["event"]:
            case "progress":
                self.runs.display.progress(
                    self.title, event["phase"], event["done"], event["total"])
            case "metrics":
                self.step, now = event["step"], event["time"]
                self.course |= event["metrics"].keys()
                self.tracker.log_metrics(self.run_id, event["metrics"], self.step, now)
            case "note" | "shortcut" | "precision" | "hardware" | "compile" | "environment":
                self.tracker.set_tags(self.run_id, self.tags(event))
            case "measured":
                self.measured |= event["metrics"]
            case "failed":
                self.reason = event["reason"]
            case "done":
                self.metrics, now = event["metrics"], int(time.time() * 1000)
                # MLflow's value of a metric is the one of the highest step: the restored epoch's.
                # What was measured once is at step 0, where the UI draws bars; later, empty lines.
                for again in (True, False):
                    last = {k: v for k, v in self.metrics.items() if (k in self.course) is again}
                    step = self.step + 1 if again else 0
                    self.tracker.log_metrics(self.run_id, last, step, now)

    def end(self, event: Event) -> None:
        runs, outcome = self.runs, self.runs.outcome
        reason = event.get("reason") or self.reason or died(event["code"], bool(self.metrics))
        if not self._ours():
            self._again("another command took the run over; this result is refused")
            return
        if event.get("machine_lost") and runs.attempts[self.cell_id, self.seed] < ATTEMPTS:
            self._again(reason)
            runs.display.note(f"{self.title}: {reason}; it will be begun again")
            return
        status: Status = "FAILED" if reason else "FINISHED"
        if reason:
            mark_failed(self.directory / "checkpoint", reason)
            self.tracker.log_metrics(self.run_id, self.measured, 0, int(time.time() * 1000))
        try:
            self.tracker.set_tags(self.run_id, sha256_tags(self.directory))
            self.tracker.log_artifacts(self.run_id, self.directory)
        finally:  # Ctrl-C in a long upload too, which the tracker's last attempt completes
            self.tracker.end_run(self.run_id, status, reason)
            if not reason:
                self.tracker.discard(self.run_id, self.directory)
        known = runs.report in self.metrics
        score = f"{runs.report} {self.metrics[runs.report]:.4f}" if known else ""
        seconds = self.share * (time.monotonic() - self.begin)
        runs.display.run_ended(self.title, status, seconds, score, reason)
        if reason:
            outcome.failed += 1
            where = self.directory / OUTPUT
            outcome.failures.append(f"{self.title}: {reason} (output: {where})")
        else:
            outcome.finished += 1
        runs.ended(self.cell_id, self.claim)

    def _ours(self) -> bool:
        try:
            return self.runs.queue.ours(self.claim)
        except FtlabError:  # an outage of the queue: a result is not thrown away for that
            return True

    def _again(self, reason: str) -> None:
        """Let another attempt be made; this one stays in the store as KILLED."""
        self.tracker.end_run(self.run_id, "KILLED", reason)
        shutil.rmtree(self.directory, ignore_errors=True)  # whoever took it over has removed it
        self.runs.queue.release(self.claim)
        self.runs.display.run_dropped(self.title)
        self.runs.waiting.append((self.cell_id, self.seed))

    def alone(self, why: str) -> None:
        self.runs.attempts[self.cell_id, self.seed] -= 1
        self.runs.solitary.add((self.cell_id, self.seed))
        self._again(why)

    def interrupted(self, why: str) -> None:
        self.tracker.end_run(self.run_id, "KILLED", why)
        shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(FtlabError):  # others take it over where they see us gone
            self.runs.queue.release(self.claim)


def folder_of(work: Path, planned: PlannedCell, seed: int, token: object, end: str = "") -> Path:
    """The folder of an attempt at a run; `end` follows its name."""
    key = planned.cell.key
    return work / f"{key.technique}-{key.config}-{token}-seed{seed}{end}"


def leftovers(work: Path, planned: PlannedCell, seed: int) -> list[Path]:
    """The folders of earlier attempts at a run."""
    return sorted(work.glob(folder_of(work, planned, seed, "*").name))


def fingerprints(planned: PlannedCell) -> dict[str, str]:
    """Tags of the data and weights that a cell stands on."""
    return {
        "ftlab.dataset_sha256": planned.data_fingerprint,
        "ftlab.backbone_sha256": planned.backbone_fingerprint,
    }


def mark_failed(checkpoint: Path, reason: str) -> None:
    """Write into a checkpoint's manifest why its run failed; a part of a checkpoint goes.

    Hours may be in it, and nobody is to take it for a result: `restored` refuses it.
    """
    manifest = checkpoint / MANIFEST
    if not manifest.exists():
        shutil.rmtree(checkpoint, ignore_errors=True)
        return
    said = {FAILED: reason, **json.loads(manifest.read_text(encoding="utf-8"))}
    write(manifest, json.dumps(said, indent=1) + "\n")
    for rest in checkpoint.glob("*.tmp"):
        rest.unlink()


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
