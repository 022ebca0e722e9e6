"""One trial on its way: its events, its end, and what the board and the store hear of it."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ftlab.errors import FtlabError
from ftlab.studies import provenance
from ftlab.studies.display import Display
from ftlab.studies.engine import OUTPUT, Engine, Event, died
from ftlab.studies.plan import PlannedCell
from ftlab.studies.run_job import fingerprints, log_data, write_specification
from ftlab.studies.shared_process import SharedJob
from ftlab.sweeps.sweep import Sweep
from ftlab.sweeps.trial_queue import ATTEMPTS, LeasedTrial, TrialQueue
from ftlab.tracking.sweeps import SweepTracker
from ftlab.tracking.tracker import Status

STATUS: dict[str, Status] = {"COMPLETE": "FINISHED", "FAIL": "FAILED"}


class TrialContext(Protocol):
    """What a trial needs of the sweep's coordinator.

    Attributes:
        work: folder of the trials' folders.
        parents: MLflow's parent runs by config.
        environment: provenance, as JSON.
        begun: trials that wait for their next seed.
        solitary: held, to be run again by themselves.
        failures: one line each.
        steps: whether the pruner compares seeds, not epochs.
    """

    sweep: Sweep
    board: TrialQueue
    tracker: SweepTracker
    engine: Engine
    display: Display
    work: Path
    parents: dict[str, str]
    environment: str
    begun: deque[Trial]
    solitary: deque[LeasedTrial]
    failures: list[str]
    steps: bool

    def to_come(self, planned: PlannedCell) -> int:
        """How many runs of the whole sweep read the frozen prefix of a cell; at least one."""


class Trial(SharedJob):
    """One trial, as the coordinator sees it; a job for each of its seeds in turn.

    Args:
        trials: the coordinator's.
        held: the trial.
        planned: its cell.
        directory: in a pack; a trial by itself has one of its own.
        share: of its process's time that counts as this trial's.
    """

    def __init__(self, trials: TrialContext, held: LeasedTrial, planned: PlannedCell,
                 directory: Path | None = None, share: float = 1.0) -> None:
        self.trials, self.held, self.planned, self.share = trials, held, planned, share
        self.title = f"{held.cell.key.title}, trial {held.number}"
        self.values: list[list[float]] = []  # of each seed, of each objective
        self.curves: set[str] = set()  # metrics that were logged epoch by epoch
        self.begin = time.monotonic()
        config = trials.sweep.config(held.cell, held.values, trials.sweep.seeds[0])
        parent = trials.parents[held.cell.key.config]
        self.run_id = trials.tracker.open_trial(
            parent, held.number, held.attempts, held.values, config)
        tags = {provenance.TAG: trials.environment, **fingerprints(planned)}
        trials.tracker.set_tags(self.run_id, tags)
        log_data(trials.tracker, self.run_id, planned)
        trials.display.run_started(self.title, held.cell.key.technique, share)
        for left in (*trials.work.glob(f"{_folder(held)}-*"), *_packs(trials.work, held)):
            shutil.rmtree(left, ignore_errors=True)  # an earlier attempt's, which nobody holds
        self._prepare(directory)

    def _prepare(self, directory: Path | None = None) -> None:
        """The folder of the next seed."""
        held, seed = self.held, self.trials.sweep.seeds[len(self.values)]
        own = self.trials.work / f"{_folder(held)}-{held.token}-seed{seed}"
        self.directory = directory or own
        self.metrics: dict[str, float] = {}
        self.reason = ""
        self.remarks = {}
        config = self.trials.sweep.config(held.cell, held.values, seed)
        self.specification = {**config, "runs_to_come": self.trials.to_come(self.planned)}
        write_specification(self.directory, self.specification)

    def event(self, event: Event) -> None:
        trials = self.trials
        match event["event"]:
            case "progress":
                done = len(self.values) * event["total"] + event["done"]
                total = len(trials.sweep.seeds) * event["total"]
                trials.display.progress(self.title, event["phase"], done, total)
            case "metrics":
                trials.tracker.log_metrics(
                    self.run_id, event["metrics"], self._step(event["step"]), event["time"])
                self.curves |= event["metrics"].keys()
                if "epoch" in event["metrics"] and not trials.steps:
                    self._report(event["metrics"])
            case "note" | "shortcut" | "precision" | "hardware" | "compile" | "environment":
                trials.tracker.set_tags(self.run_id, self.tags(event))
            case "failed":
                self.reason = event["reason"]
            case "done":
                self.metrics = event["metrics"]

    def _step(self, step: int) -> int:
        """Steps of later seeds follow those of the first."""
        return len(self.values) * 1_000_000 + step

    def _report(self, metrics: dict[str, float]) -> None:
        """An epoch's validation score; epochs of later seeds follow those of the first."""
        objective, held = self.trials.sweep.objectives[0], self.held
        if len(self.trials.sweep.objectives) > 1 or objective not in metrics:
            return
        epochs = held.cell.trainer["max_epochs"]
        step = len(self.values) * epochs + int(metrics["epoch"])
        if self.trials.board.report(held, step, metrics[objective]):
            self.trials.engine.prune(self.directory)

    def end(self, event: Event) -> None:
        board, held, sweep = self.trials.board, self.held, self.trials.sweep
        reason = (event.get("reason") or self.reason or died(event["code"], bool(self.metrics))
                  or self._lacking())
        if event["lost"] and held.attempts < ATTEMPTS:
            board.release(held, attempted=True)
            self._lose(reason)
            return
        if reason:
            reason += f", in {held.attempts} attempts" if event["lost"] else ""
            self._tell("FAIL", board.fail(held, reason), reason)
            return
        self.values.append([self.metrics[name] for name in sweep.objectives])
        means = [statistics.fmean(each) for each in zip(*self.values, strict=True)]
        if self.metrics["pruned"] or (
            self.trials.steps and board.report(held, len(self.values), self.values[-1][0])
        ):
            self._tell("PRUNED", board.prune(held), "pruned", means)
        elif len(self.values) < len(sweep.seeds):
            shutil.rmtree(self.directory)
            self._prepare()
            self.trials.begun.append(self)
        else:
            self._tell("COMPLETE", board.complete(held, means), "", means)

    def _lacking(self) -> str:
        """What is wrong with the scores of a run that ended well; empty where nothing is."""
        for name in self.trials.sweep.objectives:
            if name not in self.metrics:
                return f"the run measured no {name}"
            if not math.isfinite(self.metrics[name]):
                return f"{name} is {self.metrics[name]}"
        return ""

    def _tell(self, state: str, ours: bool, reason: str, values: Sequence[float] = ()) -> None:
        if not ours:
            self._lose("another coordinator took the trial over; this result is refused")
            return
        self.metrics |= dict(zip(self.trials.sweep.objectives, values, strict=False))
        self._close(state, reason)

    def _lose(self, reason: str) -> None:
        """This attempt gave nothing."""
        self.trials.display.note(f"{self.title}: {reason}")
        self._close("LOST", reason)

    def alone(self, why: str) -> None:
        self._close("LOST", why)
        self.trials.solitary.append(self.held)

    def _close(self, state: str, reason: str) -> None:
        trials, seconds = self.trials, self.share * (time.monotonic() - self.begin)
        tracker, objective = trials.tracker, trials.sweep.objectives[0]
        # The best epoch's value would be one more point of its curve; `settle` keeps what counts.
        final = {name: self.metrics[name] for name in self.metrics.keys() - self.curves}
        tracker.log_metrics(self.run_id, final, 0, int(time.time() * 1000))
        if state == "FAIL":
            if self.directory.is_dir():  # not swept away by someone
                tracker.log_artifacts(self.run_id, self.directory)
            where = self.directory / OUTPUT
            trials.failures.append(f"{self.title}: {reason} (output: {where})")
        else:
            shutil.rmtree(self.directory, ignore_errors=True)
        tracker.end_run(self.run_id, STATUS.get(state, "KILLED"), reason)
        gave = self.metrics if state in ("COMPLETE", "PRUNED") else {}
        tracker.settle(self.run_id, state, {  # last: what lacks it is made good by the next command
            name: gave[name] for name in trials.sweep.objectives if name in gave})
        if state == "LOST":
            trials.display.run_dropped(self.title)
            return
        known = objective in self.metrics
        score = f"{objective} {self.metrics[objective]:.4f}" if known else ""
        trials.display.run_ended(self.title, state, seconds, score, reason)

    def interrupted(self, why: str) -> None:
        trials = self.trials
        try:
            trials.board.release(self.held)
        except FtlabError as error:  # others take it over where they see us gone, a lease later
            trials.display.note(f"{self.title} could not be given back: {error.what}")
        shutil.rmtree(self.directory, ignore_errors=True)
        trials.tracker.end_run(self.run_id, "KILLED", why)
        trials.tracker.settle(self.run_id, "LOST", {})


def pack_folder(work: Path, last: LeasedTrial) -> Path:
    """Of trials that share a process; whoever takes the last one over removes it."""
    return work / f"{last.cell.key.technique}-{last.cell.key.config}-together-{last.number}-{last.token}"


def _packs(work: Path, last: LeasedTrial) -> list[Path]:
    """Folders of packs before this attempt."""
    now = pack_folder(work, last)
    same = now.name.rpartition("-")[0]
    return [left for left in work.glob(f"{same}-*") if left != now]


def _folder(held: LeasedTrial) -> str:
    return f"{held.cell.key.technique}-{held.cell.key.config}-{held.number}"
