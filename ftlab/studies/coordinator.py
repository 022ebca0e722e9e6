"""The runs of a study as jobs: which are to do, who may do them, what became of them."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from ftlab.errors import FtlabError
from ftlab.studies.adding_seeds import AddingSeeds
from ftlab.studies.changed_inputs import refuse_changed
from ftlab.studies.continuing import refuse_changed_states
from ftlab.studies.dispatch import Job, JobOutcome, Jobs
from ftlab.studies.display import Display
from ftlab.studies.engine import OUTPUT, Requirements
from ftlab.studies.held_elsewhere import HeldElsewhere
from ftlab.studies.plan import Plan, PlannedCell
from ftlab.studies.run_folders import folder_of, leftovers
from ftlab.studies.run_job import ATTEMPTS, StudyOutcome, StudyRun, Workspace, title_of
from ftlab.studies.run_queue import Claim, Queue, run_name
from ftlab.studies.shared_process import gather, seeds_together
from ftlab.studies.study import Study
from ftlab.tracking.metric_facts import to_tag
from ftlab.tracking.mirrored import Mirrors
from ftlab.tracking.tracker import Tracker

AGAIN = 1.0  # seconds until runs that others hold are looked at again
FLUSH = 3.0  # seconds from a metric to the UI; with a run's own wait below 5, which a kill may cost


def need(study: Study) -> Requirements:
    """The requirements of a study's largest run."""
    accelerators = {cell.trainer["accelerator"] for cell in study.cells}
    return Requirements(max(cell.trainer["devices"] for cell in study.cells),
                        accelerators.pop() if len(accelerators) == 1 else "auto",
                        max(cell.trainer.get("nodes") or 1 for cell in study.cells))


class StudyRuns(Jobs):
    """The runs of a study that are not finished.

    Args:
        made: the plan.
        tracker: the store.
        queue: says who does which run.
        work: folder of the runs' folders, absolute.
        display: shows progress.
        slots: runs at a time.
        mirrors: other trackers.

    Attributes:
        outcome: counts the ends.
    """

    def __init__(self, made: Plan, tracker: Tracker, queue: Queue, work: Path, display: Display,
                 slots: int, mirrors: Mirrors) -> None:
        study = self.study = made.study
        self.tracker, self.queue, self.display = tracker, queue, display
        self.space = Workspace(tracker, display, work, mirrors)
        queue.look(run_name(p.cell, seed) for p in made.cells for seed in study.seeds)
        self.cells = self._open_cells(made)
        self.names = {(cell_id, seed): run_name(p.cell, seed)
                      for cell_id, p in self.cells.items() for seed in study.seeds}
        self.elsewhere = HeldElsewhere(study.name, queue, tracker, display)
        records = tracker.cells(study.name)
        refuse_changed(self.cells, records)
        refuse_changed_states(work, made.cells, study.seeds)
        self.elsewhere.begin(records)
        done = {cell_id: tracker.finished(cell_id) & set(study.seeds) for cell_id in self.cells}
        self.outcome = StudyOutcome(finished=sum(map(len, done.values())))
        self.attempts: Counter[tuple[str, int]] = Counter()
        self.solitary: set[tuple[str, int]] = set()
        self.going: dict[tuple[str, int], Claim] = {}
        self.ended_cells: set[str] = set()
        self.unread: set[str] = set()  # cells with runs that a decision has not seen
        self.adding = None if study.until is None else AddingSeeds(
            study, study.until, self.cells, tracker, display)
        if self.adding is None:
            # seed by seed, so that an early look at the study compares all its cells
            self._wait_for((c, s) for s in study.seeds for c in self.cells if s not in done[c])
        else:
            self._wait_for(self.adding.begin(records))
        display.start(study.name, self.outcome.finished, self._left(), slots)
        self.unsent: list[Claim] = []
        self.begun = self.outcome.finished
        self.looked = self.flushed = time.monotonic()
        self.elsewhere.greet(self.names.values())
        for cell_id in self.cells.keys() - self.unfinished.keys():
            self._end_cell(cell_id)

    def _open_cells(self, made: Plan) -> dict[str, PlannedCell]:
        study, tracker = self.study, self.tracker
        tracker.open_study(study.name, {"mlflow.note.content": study.question})
        tracker.set_view(study.name, study.report)
        names = list(dict.fromkeys(p.cell.key.technique for p in made.cells))
        return {
            tracker.open_cell(p.cell.key, p.cell.config, study.first_seeds, order,
                              names.index(p.cell.key.technique), to_tag(p.facts)): p
            for order, p in enumerate(made.cells)
        }

    def _wait_for(self, runs: Iterable[tuple[str, int]]) -> None:
        """Do these runs, and no others that have not begun."""
        self.waiting = deque(run for run in runs if run not in self.going)
        self.unfinished = Counter(cell_id for cell_id, _ in (*self.waiting, *self.going))
        self.ended_cells -= self.unfinished.keys()

    def _left(self) -> Counter[str]:
        """Count the runs that are to do, by technique."""
        return Counter(self.cells[cell_id].cell.key.technique for cell_id in self.unfinished.elements())

    def _add_seeds(self) -> None:
        """Decide on what has ended, once the store has it, and do the runs that would tell more."""
        if self.adding is None or not self.unread:
            return
        try:
            for cell_id in self.unread:
                self.adding.take(cell_id, self.tracker.latest_runs(cell_id))
        except FtlabError:  # an outage of the store; `tick` comes again
            return
        self.unread.clear()
        self._wait_for(self.adding.wanted())
        self.display.expect(self._left())
        for cell_id in self.cells.keys() - self.unfinished.keys() - self.ended_cells:
            self._end_cell(cell_id)

    def next(self) -> Job | None:
        while self.waiting and time.monotonic() >= self.looked:
            claims = self._claim()
            if not claims:
                self.looked = time.monotonic() + AGAIN
                helped = bool(self.attempts) or self.outcome.finished > self.begun
                self.elsewhere.wait([self.names[run] for run in self.waiting], helped)
                return None
            try:
                ours = {run: claim for run, claim in claims.items() if not self._done(run, claim)}
            except FtlabError:  # an outage of the store: they may be done already
                for claim in claims.values():
                    self.queue.release(claim)
                self.looked = time.monotonic() + 10 * AGAIN
                return None
            if ours:
                return self._job(ours)
        return None

    def _claim(self) -> dict[tuple[str, int], Claim]:
        """The first run that nobody works at, and those that share its process."""
        named = {self.names[run]: run for run in self.waiting}

        def choose(free: list[str]) -> list[str]:
            return [self.names[run] for run in self._together([named[name] for name in free])]

        return {named[claim.run]: claim for claim in self.queue.claim(list(named), choose)}

    def _done(self, run: tuple[str, int], claim: Claim) -> bool:
        """Count a run that another command has ended since we began."""
        ended = self.elsewhere.ended(*run) if claim.shared else None
        if ended is None:
            return False
        self.queue.release(claim, done=True)
        self.waiting.remove(run)
        planned, seed = self.cells[run[0]], run[1]
        title = title_of(planned, seed)
        if ended.status == "FINISHED":
            self.outcome.finished += 1
        else:
            self.outcome.failed += 1
            left = [str(path) for path in leftovers(self.space.work, planned, seed)]
            where = f", output: {left[-1]}" if left else ""
            self.outcome.failures.append(f"{title}: {ended.reason} (in another command{where})")
            self._note_failure(*run, ended.reason)
        self.display.run_ended_elsewhere(title, planned.cell.key.technique, ended.status)
        self._count(run[0])
        self.unread |= self.cells.keys()  # it may have ended others that we never waited for
        return True

    def _job(self, claims: Mapping[tuple[str, int], Claim]) -> Job:
        for run in claims:
            self.waiting.remove(run)
            self.attempts[run] += 1
        self.going |= claims
        (cell_id, seed), first = next(iter(claims.items()))
        planned = self.cells[cell_id]
        makers = [partial(StudyRun, self.space, self.study, cell_id, planned, s,
                          claim.token, self._to_come(planned)) for (_, s), claim in claims.items()]
        shared = folder_of(self.space.work, planned, seed, first.token, "-together")
        try:
            return gather(shared, makers, self.display.note)
        except BaseException:
            self._give_back(claims)
            raise

    def _together(self, free: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """The first of these runs, and those that may share its process."""
        first = cell_id, _ = free[0]
        if first in self.solitary:
            return [first]
        seeds = [s for c, s in free if c == cell_id and (c, s) not in self.solitary]
        together = seeds_together(self.cells[cell_id].cell, seeds, self.study.shortcuts)
        return [(cell_id, seed) for seed in together[0]]

    def ended(self, run: Job, outcome: JobOutcome) -> None:
        assert isinstance(run, StudyRun)
        place, reason = (run.cell_id, run.seed), outcome.reason
        claim = self.going[place]
        if outcome.kind == "alone":
            self.attempts[place] -= 1
            self.solitary.add(place)
        elif not self._ours(claim):
            reason = "another command took the run over; this result is refused"
        elif outcome.kind == "again" and self.attempts[place] < ATTEMPTS:
            self.display.note(f"{run.title}: {reason}; it will be begun again")
        else:
            self._close(run, reason)
            return
        run.drop(reason)
        self._give_back([place])
        self.waiting.append(place)

    def _give_back(self, runs: Iterable[tuple[str, int]]) -> None:
        for run in list(runs):
            self.queue.release(self.going.pop(run))

    def _ours(self, claim: Claim) -> bool:
        try:
            return self.queue.ours(claim)
        except FtlabError:  # an outage of the queue: a result is not thrown away for that
            return True

    def _close(self, run: StudyRun, reason: str) -> None:
        run.close(reason)
        if reason:
            self.outcome.failed += 1
            where = run.directory / OUTPUT
            self._note_failure(run.cell_id, run.seed, reason)
            self.outcome.failures.append(f"{run.title}: {reason} (output: {where})")
        else:
            self.outcome.finished += 1
        # until the store has it, others would do it again
        self.unsent.append(self.going.pop((run.cell_id, run.seed)))
        self._count(run.cell_id)
        self.unread.add(run.cell_id)
        self._release_sent()

    def _note_failure(self, cell_id: str, seed: int, reason: str) -> None:
        if self.adding is not None:
            self.adding.failed[cell_id] = f"seed {seed}: {reason}"

    def over(self) -> bool:
        return not self.waiting and (self.adding is None or not self.unread)

    def tick(self) -> None:
        self.queue.beat()
        self.display.idle()
        if time.monotonic() - self.flushed > FLUSH:
            self.flushed = time.monotonic()
            self._release_sent()

    def _release_sent(self) -> None:
        if self.tracker.flush():
            while self.unsent:
                self.queue.release(self.unsent.pop(), done=True)
            self._add_seeds()

    def _count(self, cell_id: str) -> None:
        """Count a run of a cell that has ended, here or in another command."""
        self.unfinished[cell_id] -= 1
        if not self.unfinished[cell_id] and self.adding is None:
            self._end_cell(cell_id)

    def _end_cell(self, cell_id: str) -> None:
        """Aggregate a cell, unless a command that works at it will."""
        self.ended_cells.add(cell_id)
        if not self.elsewhere.work(self.cells[cell_id].cell):
            self.tracker.end_cell(cell_id)

    def _to_come(self, planned: PlannedCell) -> int:
        """Count the runs that have not ended and read the frozen prefix of a cell; at least one."""
        return max(1, sum(min(count, 1) if planned.draws else count  # of seeds with their own examples
                          for cell_id, count in self.unfinished.items() if planned.shares_prefix(self.cells[cell_id])))

    def interrupted(self, why: str) -> None:
        self.queue.hurry()
        with contextlib.suppress(FtlabError):  # others take them over where they see us gone
            self._give_back(self.going)

    def close(self) -> None:
        """Leave the store and the terminal in order, whatever has happened."""
        self.display.close()
        left = [cell_id for cell_id in self.cells if cell_id not in self.ended_cells]
        if left and not self.elsewhere.work():  # others may come to these cells yet
            for cell_id in left:
                self.tracker.end_cell(cell_id, interrupted=True)
        self.tracker.close()
