"""Runs what a plan says and records it; holds no model itself."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from ftlab.errors import InputError
from ftlab.studies import provenance
from ftlab.studies.dispatch import Job, Jobs, Signals, closing, dispatch
from ftlab.studies.display import Display
from ftlab.studies.engine import SPECIFICATION, Engine, Need
from ftlab.studies.pack import gather, seeds_together
from ftlab.studies.plan import Plan, PlannedCell, plan
from ftlab.studies.run import Outcome, StudyRun, fingerprints
from ftlab.studies.study import Study
from ftlab.studies.workers import Workers
from ftlab.tracking.records import CellRecord
from ftlab.tracking.spool import FOLDER as UNSENT
from ftlab.tracking.tracker import Tracker

FLUSH = 3.0  # seconds from a metric to the UI; with a run's own wait below 5, which a kill may cost


def run_study(
    study: Study,
    tracking_uri: str | None = None,
    results: str | Path = "results",
    display: Display | None = None,
    workers: int | None = 1,
    timeout: float | None = None,
    engine: Engine | None = None,
    approve: Callable[[Plan], None] | None = None,
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
        approve: looks at the plan before anything is written, and raises where it is not to be.

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
        if approve is not None:
            approve(made)
        tracker = Tracker(tracking_uri, unsent=Path(results) / study.name / UNSENT)
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
        tracker.set_view(study.name, study.report)
        names = list(dict.fromkeys(p.cell.key.technique for p in made.cells))
        self.cells = {
            tracker.open_cell(p.cell.key, p.cell.config, study.seeds, order,
                              names.index(p.cell.key.technique)): p
            for order, p in enumerate(made.cells)
        }
        done = {cell_id: tracker.finished(cell_id) & set(study.seeds) for cell_id in self.cells}
        _refuse_changed(self.cells, tracker.cells(study.name))
        # seed by seed, so that an early look at the study compares all its cells
        self.waiting = deque((c, s) for s in study.seeds for c in self.cells if s not in done[c])
        self.outcome = Outcome(finished=sum(map(len, done.values())))
        self.open = Counter(cell_id for cell_id, _ in self.waiting)
        self.attempts: Counter[tuple[str, int]] = Counter()
        self.solitary: set[tuple[str, int]] = set()
        self.flushed = time.monotonic()
        left = Counter(self.cells[cell_id].cell.key.technique for cell_id, _ in self.waiting)
        display.start(study.name, self.outcome.finished, left, slots)
        for cell_id in self.cells.keys() - self.open.keys():
            tracker.end_cell(cell_id)

    def next(self) -> Job | None:
        if not self.waiting:
            return None
        cell_id, seed = self.waiting[0]
        planned, seeds = self.cells[cell_id], self._company(cell_id, seed)
        for each in seeds:
            self.waiting.remove((cell_id, each))
            self.attempts[cell_id, each] += 1
        if len(seeds) == 1:
            return StudyRun(self, cell_id, planned, seed)
        key = planned.cell.key
        return gather(self.work / f"{key.technique}-{key.config}-seed{seed}-together",
                      [partial(StudyRun, self, cell_id, planned, each) for each in seeds],
                      self.display.note)

    def _company(self, cell_id: str, seed: int) -> list[int]:
        """The seed and those that wait with it and may share its process."""
        if (cell_id, seed) in self.solitary:
            return [seed]
        waiting = [s for c, s in self.waiting if c == cell_id and (c, s) not in self.solitary]
        return seeds_together(self.cells[cell_id].cell, waiting, self.study.shortcuts)[0]

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

    def to_come(self, planned: PlannedCell) -> int:
        """How many runs that have not ended read the frozen prefix of a cell; at least one."""
        return max(1, sum(count for cell_id, count in self.open.items()
                          if planned.shares_prefix(self.cells[cell_id])))

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
