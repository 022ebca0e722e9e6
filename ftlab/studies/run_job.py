"""A run on its way: its events, its outcome, and its record in the store."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from ftlab.studies import continuing, provenance
from ftlab.studies.dispatch import Job, JobOutcome
from ftlab.studies.display import Display
from ftlab.studies.engine import Event, died
from ftlab.studies.plan import PlannedCell
from ftlab.studies.run_folders import folder_of, leftovers, mark_failed, write_specification
from ftlab.studies.study import Study
from ftlab.tracking.artifacts import sha256_tags
from ftlab.tracking.mirrored import Mirrors
from ftlab.tracking.mirrors.base import MirroredRun
from ftlab.tracking.mlflow_values import flatten
from ftlab.tracking.records import TRAINING_SHARE
from ftlab.tracking.tracker import Status, Tracker

ATTEMPTS = 3  # at a run whose machine vanishes
PART = 1_000_000  # steps from the first of a fit to the first of the next one of the same job


@dataclass
class StudyOutcome:
    """The outcome of a study's runs.

    Attributes:
        finished, failed: how many runs; the finished ones of earlier commands are counted.
        failures: one line each: which run, why, where its output is.
    """

    finished: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Workspace:
    """The places that the runs of a command write to.

    Attributes:
        tracker: the store.
        display: the terminal.
        work: folder of the runs' folders.
        mirrors: other trackers.
        environment: provenance, as JSON.
    """

    tracker: Tracker
    display: Display
    work: Path
    mirrors: Mirrors = field(default_factory=Mirrors)
    environment: str = field(default_factory=lambda: json.dumps(provenance.here(), sort_keys=True))


class RunJob(Job):
    """One fit on its way, or several one after another in one MLflow run.

    It reads what the process reports and writes the record. It holds no queue: `end` gives the
    outcome of the run, and whoever made the job calls `close` or `drop`.

    Args:
        space: where it writes.
        planned: its cell.
        title: names it to people.
        run_id: of the store.
        share: of its process's time that counts as this run's.
        remarks: tags that later remarks of the process are added to.
        continued: whether an earlier attempt has left a state, from which it goes on.

    Attributes:
        directory: of the present fit.
        specification: of the run, for its process.
        part, parts: the number of the present fit, from 0, and how many there are.
        metrics: that the fit ended with; empty before.
        curves: names of metrics that were logged step by step.
    """

    logged: dict[str, int] | None = None
    """Last steps of the metrics, where the run goes on; None where each is new."""
    vanished = "lost"
    """The key of the event `exit` that makes another attempt worth while."""
    part, parts = 0, 1

    def __init__(self, space: Workspace, planned: PlannedCell, title: str, run_id: str,
                 share: float, remarks: Mapping[str, Sequence[str]],
                 continued: bool = False) -> None:
        self.tracker, self.display = space.tracker, space.display
        self.planned, self.title, self.run_id, self.share = planned, title, run_id, share
        self.remarks = {name: list(texts) for name, texts in remarks.items()}
        self.curves: set[str] = set()
        self.measured: dict[str, float] = {}  # so far; of a run that fails it is all there is
        self.step = 0
        tags = {provenance.TAG: provenance.used(space.environment, planned.cell.config), **fingerprints(planned), **drawn_tag(planned),
                **{name: "\n".join(texts) for name, texts in self.remarks.items()}}
        self.tracker.set_tags(run_id, tags)
        log_data(self.tracker, run_id, planned)
        self.begin = time.monotonic()
        key = planned.cell.key
        self.mirrored = space.mirrors.begin(MirroredRun(
            key.study, key.title, key.config, title.removeprefix(f"{key.title}, "), continuing.token_of(self.directory),
            flatten(self.specification)))
        self.display.run_started(title, planned.cell.key.technique, share)
        if continued:
            self.logged = self.tracker.logged(run_id)
            for event in continuing.reported(self.directory):
                self.event(event)

    def prepare(self, directory: Path, specification: Mapping[str, Any],
                left: Iterable[Path] = ()) -> str:
        """Make the folder of the next fit, from that of an earlier attempt where it left a state.

        Args:
            directory: of the fit.
            specification: of it.
            left: folders of earlier attempts, which nobody holds.

        Returns:
            The token of the store's run that it goes on with; empty for a new one.
        """
        self.directory, self.specification = directory, dict(specification)
        self.metrics: dict[str, float] = {}
        self.reason = ""
        token = continuing.take_over(left, directory, specification)
        if not token:
            write_specification(directory, specification)
        return token

    def log(self, metrics: Mapping[str, float], step: int, at: int) -> None:
        """Log metrics, each of a step once: a run that goes on repeats what followed its state."""
        if metrics.keys() <= self.curves:
            self.mirrored.metrics(metrics, step, at)
            while self.mirrored.notes:
                self.event({"event": "note", "text": self.mirrored.notes[0]})
                self.display.note(f"{self.title}: {self.mirrored.notes.popleft()}")
        if self.logged is not None:
            metrics = {name: value for name, value in metrics.items()
                       if step > self.logged.get(name, -1)}
            self.logged |= dict.fromkeys(metrics, step)
        self.tracker.log_metrics(self.run_id, metrics, step, at)

    def event(self, event: Event) -> None:
        match event["event"]:
            case "progress":
                total = event["total"]
                self.display.progress(self.title, event["phase"], self.part * total + event["done"],
                                      self.parts * total)
            case "metrics":
                self.step = self.part * PART + event["step"]
                self.curves |= event["metrics"].keys()
                self.display.measured(self.title, event["metrics"], self.specification["select_by"])
                self.log(event["metrics"], self.step, event["time"])
                if "epoch" in event["metrics"]:
                    self.validated(event["metrics"],
                                   int(event.get("validation", event["metrics"]["epoch"])))
            case "note" | "shortcut" | "precision" | "hardware" | "compile" | "blocks":
                texts = self.remarks.setdefault(f"ftlab.{event['event']}", [])
                if event["text"] not in texts:
                    texts.append(event["text"])
                self.tracker.set_tags(self.run_id, {f"ftlab.{event['event']}": "\n".join(texts)})
            case "environment":
                environment = provenance.used(json.dumps(event["said"]), self.planned.cell.config)
                self.tracker.set_tags(self.run_id, {provenance.TAG: environment})
            case "measured":
                self.measured |= event["metrics"]
            case "failed":
                self.reason = event["reason"]
            case "done":
                self.metrics = event["metrics"]
                self.fit_ended()

    def validated(self, metrics: Mapping[str, float], number: int) -> None:  # a study's runs are not pruned
        """Take the metrics of a fit's validation, as they were logged, and its number, from 1."""

    def fit_ended(self) -> None:  # a trial's metrics are logged with its last seed's
        """Take `metrics` as the fit's last ones."""

    def lacking(self) -> str:
        """The reason why a fit that ended well has metrics of no use; empty where there is none."""
        return ""

    def end(self, event: Event) -> Iterator[tuple[Job, JobOutcome]]:
        reason = (event.get("reason") or self.reason or died(event["code"], bool(self.metrics))
                  or self.lacking())
        again = bool(event.get(self.vanished))
        yield self, JobOutcome("again" if again else "failed" if reason else "done", reason)

    def show(self, status: str, metric: str, reason: str) -> None:
        """Show the end of the job, with its value of a metric."""
        score = f"{metric} {self.metrics[metric]:.4f}" if metric in self.metrics else ""
        seconds = self.share * (time.monotonic() - self.begin)
        self.display.run_ended(self.title, status, seconds, score, reason, self.metrics)

    def drop(self, reason: str) -> None:
        """Record that this attempt gives nothing and another will be made."""
        self.interrupted(reason)
        self.display.run_dropped(self.title)

    def interrupted(self, why: str) -> None:
        self.tracker.end_run(self.run_id, "KILLED", why)
        self.mirrored.end("KILLED", {})
        if not continuing.has_state(self.directory):
            shutil.rmtree(self.directory, ignore_errors=True)  # whoever took it over has removed it


class StudyRun(RunJob):
    """One run of a study.

    Args:
        space: where it writes.
        study: its study.
        cell_id: MLflow's parent run.
        planned: the cell.
        seed: of the run.
        token: of the claim by which this command holds it.
        runs_to_come: how many runs read the frozen prefix of the cell, this one included.
        directory: in a shared process; a run by itself has one of its own.
        share: of its process's time that counts as this run's.
    """

    vanished = "machine_lost"

    def __init__(self, space: Workspace, study: Study, cell_id: str, planned: PlannedCell,
                 seed: int, token: int, runs_to_come: int, directory: Path | None = None,
                 share: float = 1.0) -> None:
        self.cell_id, self.seed, self.report = cell_id, seed, study.report
        planned = planned.of_seed(seed)
        config = study.specification(planned.cell, seed)
        tracked = self.prepare(directory or folder_of(space.work, planned, seed, token), {
            **config, "study": planned.cell.key.study, "fingerprints": fingerprints(planned),
            "runs_to_come": runs_to_come}, leftovers(space.work, planned, seed))
        continuing.note_token(self.directory, name := tracked or uuid4().hex)
        run_id = space.tracker.open_run(cell_id, seed, config, name)
        remarks = {"ftlab.note": planned.notes} if planned.notes else {}
        super().__init__(space, planned, title_of(planned, seed), run_id, share, remarks,
                         bool(tracked))

    def fit_ended(self) -> None:
        now = int(time.time() * 1000)
        # MLflow's value of a metric is the one of the highest step: the restored epoch's.
        # What was measured once is at step 0, where the UI draws bars; later, empty lines.
        for again in (True, False):
            last = {k: v for k, v in self.metrics.items() if (k in self.curves) is again}
            self.log(last, self.step + 1 if again else 0, now)

    def close(self, reason: str) -> None:
        """Record the end of the run, and its files; `reason` where it failed."""
        status: Status = "FAILED" if reason else "FINISHED"
        if reason:
            mark_failed(self.directory / "checkpoint", reason)
            continuing.put_aside(self.directory)
            self.log(self.measured, 0, int(time.time() * 1000))
        try:
            self.tracker.set_tags(self.run_id, sha256_tags(self.directory))
            self.tracker.log_artifacts(self.run_id, self.directory)
        finally:  # Ctrl-C in a long upload too, which the tracker's last attempt completes
            self.tracker.end_run(self.run_id, status, reason)
            self.mirrored.end(status, self.measured if reason else self.metrics)
            if not reason:
                self.tracker.discard(self.run_id, self.directory)
        self.show(status, self.report, reason)


def title_of(planned: PlannedCell, seed: int) -> str:
    """The name of a run for people."""
    return f"{planned.cell.key.title}, seed {seed}"


def fingerprints(planned: PlannedCell) -> dict[str, str]:
    """Tags of the data and weights that a cell stands on, as far as they are known."""
    stands_on = {"dataset": planned.data_fingerprint, "pool": planned.pool_fingerprint,
                 "backbone": planned.backbone_fingerprint, "before": planned.before_fingerprint,
                 "retain": planned.retain_fingerprint}
    return {f"ftlab.{name}_sha256": digest for name, digest in stands_on.items() if digest}


def drawn_tag(planned: PlannedCell) -> dict[str, str]:
    """Tag of how much two draws of the training set have in common, where seeds draw it."""
    return {TRAINING_SHARE: repr(planned.training_share)} if planned.training_share else {}


def log_data(tracker: Tracker, run_id: str, planned: PlannedCell) -> None:
    """Say in the store which data a run used."""
    source = str(planned.cell.data["init_args"].get("train", ""))
    digest = planned.data_fingerprint or planned.pool_fingerprint
    tracker.log_dataset(run_id, planned.cell.key.dataset, digest, source, planned.data_profile)
