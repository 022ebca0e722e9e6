"""Several runs of one cell in one process: to an engine one run, to its members a run each.

What sharing saves is never paid with a result: a member is done, or it fails for a reason of its
own, or it is run again alone, as where the process died, fell silent or ran out of memory.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ftlab.studies.components import class_of
from ftlab.studies.dispatch import Job, JobOutcome
from ftlab.studies.engine import EVENTS, OUTPUT, SPECIFICATION, Event, died
from ftlab.studies.run_job import RunJob
from ftlab.studies.study import Cell
from ftlab.training.trainer_settings import processes_of

LARGEST = {"heads": 64}
"""Runs a pack, by the way in which a technique's runs share a process."""


def together_of(cell: Cell, shortcuts: bool = True) -> str | None:
    """In what way runs of a cell may share a process; None where not.

    A class says so itself: one that is derived from it may train in another way.

    Args:
        cell: checked.
        shortcuts: of its study.
    """
    if not shortcuts or cell.before or processes_of(cell.trainer) > 1:
        return None
    way: str | None = vars(class_of(cell.technique)).get("together")
    return way


def seeds_together(cell: Cell, seeds: Sequence[int], shortcuts: bool = True) -> list[list[int]]:
    """The seeds of a study's cell that share a process.

    Args:
        cell: of the study.
        seeds: that wait.
        shortcuts: of the study.
    """
    # what a pack shares are the features of one set of examples
    way = None if cell.draws_split else together_of(cell, shortcuts)
    most = LARGEST.get(way or "", 1)
    return [list(seeds[start : start + most]) for start in range(0, len(seeds), most)]


def gather(directory: Path, makers: Sequence[Callable[..., RunJob]],
           say: Callable[[str], None]) -> Job:
    """One run, or several as one job.

    Args:
        directory: of the shared process; nobody else works there.
        makers: each makes a run, of a folder and its share where there are several.
        say: shows a line to the user.

    Raises:
        Exception: what a maker raises; the members made before it are interrupted.
    """
    if len(makers) == 1:
        return makers[0]()
    shutil.rmtree(directory, ignore_errors=True)  # a killed coordinator's
    members: list[RunJob] = []
    try:
        for number, make in enumerate(makers):
            members.append(make(directory / str(number), 1 / len(makers)))
        return SharedProcess(directory, members, say)
    except BaseException:
        for member in members:
            member.interrupted("another run of its process could not begin")
        raise


class SharedProcess(Job):
    """Runs of one cell in one process.

    Its specification is `{"members": [specification, ...], "trainer": ...}`. Events with a
    `member` are that one's, others everybody's.

    Args:
        directory: holds the members' folders, by number.
        members: at least two.
        say: shows a line to the user.
    """

    def __init__(self, directory: Path, members: Sequence[RunJob], say: Callable[[str], None]
                 ) -> None:
        self.directory, self.members, self._say = directory, members, say
        self._last: dict[int, Event] = {}  # of members that have reported `done` or `failed`
        self._reason = ""
        specification = {"members": [member.specification for member in members],
                "trainer": members[0].specification["trainer"]}
        text = json.dumps(specification, indent=1)
        (directory / SPECIFICATION).write_text(text, encoding="utf-8")

    def event(self, event: Event) -> None:
        number = event.get("member")
        if number is None:
            if event["event"] == "failed":  # all of it: no member's fault that is known
                self._reason = event["reason"]
                return
            for member in self.members:
                member.event(event)
            return
        if event["event"] in ("done", "failed"):
            self._last[number] = event
        if not event.get("alone"):
            self.members[number].event(event)

    def end(self, event: Event) -> Iterator[tuple[Job, JobOutcome]]:
        """End the members that have ended, each as if its process were its own."""
        self._share_out()
        undecided: dict[RunJob, str] = {}
        why = event.get("reason") or self._reason or died(event["code"], False)
        for number, member in enumerate(self.members):
            last = self._last.get(number, {"event": "nothing"})
            if last["event"] == "nothing" or last.get("alone"):
                undecided[member] = str(last.get("reason", why))
            elif last["event"] == "failed":
                yield from member.end({"event": "exit", "code": 1, "lost": False})
            elif event.get("machine_lost"):  # with its files
                undecided[member] = why
            else:
                yield from member.end({"event": "exit", "code": 0, "lost": False})
        for why in dict.fromkeys(undecided.values()):
            count = list(undecided.values()).count(why)
            self._say(f"{count} of {len(self.members)} runs in one process are run again, "
                      f"each by itself: {why}")
        for member, why in undecided.items():
            why = f"shared its process with {len(self.members) - 1} others: {why}"
            yield member, JobOutcome("alone", why)
        self._tidy()

    def _share_out(self) -> None:
        """Give each member what it printed with the others, and its events."""
        events: dict[int, list[str]] = {number: [] for number in range(len(self.members))}
        path = self.directory / EVENTS
        for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else ():
            with contextlib.suppress(ValueError):  # torn, on a full disk
                record = json.loads(line)
                for number in (record.pop("member"),) if "member" in record else events:
                    events[number].append(json.dumps(record))
        for number, member in enumerate(self.members):
            if member.directory.is_dir():
                (member.directory / EVENTS).write_text("\n".join([*events[number], ""]))
                if (self.directory / OUTPUT).exists():
                    shutil.copyfile(self.directory / OUTPUT, member.directory / OUTPUT)

    def _tidy(self) -> None:
        """Leave the failed members' folders alone."""
        with contextlib.suppress(FileNotFoundError):  # another command took the runs over
            if not any(path.is_dir() for path in self.directory.iterdir()):
                shutil.rmtree(self.directory)

    def interrupted(self, why: str) -> None:
        for member in self.members:
            member.interrupted(why)
        shutil.rmtree(self.directory, ignore_errors=True)
