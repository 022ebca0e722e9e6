"""Several runs of one cell in one process: to an engine one run, to its members a run each.

What a pack saves is never paid with a result: a member is done, or it fails for a reason of its
own, or it is run again alone, as where the process died, fell silent or ran out of memory.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ftlab.studies import provenance
from ftlab.studies.components import class_of
from ftlab.studies.dispatch import Job
from ftlab.studies.engine import EVENTS, OUTPUT, SPECIFICATION, Event, died
from ftlab.studies.study import Cell

LARGEST = {"heads": 64}
"""Runs a pack, by the way in which a technique's runs share a process."""


def together_of(cell: Cell, shortcuts: bool = True) -> str | None:
    """In what way runs of a cell may share a process; None where not.

    A class says so itself: one that is derived from it may train in another way.

    Args:
        cell: checked.
        shortcuts: of its study.
    """
    if not shortcuts or cell.trainer["devices"] > 1:
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
    most = LARGEST.get(together_of(cell, shortcuts) or "", 1)
    return [list(seeds[start : start + most]) for start in range(0, len(seeds), most)]


class SharedJob(Job):
    """A job that may share its process with others; in a pack its folder lies in the pack's.

    Attributes:
        specification: what its process is told.
        remarks: what its process has said so far, by tag.
    """

    specification: dict[str, Any]
    remarks: dict[str, list[str]]

    def tags(self, event: Event) -> dict[str, str]:
        """Of an event that says something about the run; each text is a line below earlier ones."""
        if event["event"] == "environment":
            return {provenance.TAG: json.dumps(event["said"], sort_keys=True)}
        name = f"ftlab.{event['event']}"
        said = self.remarks.setdefault(name, [])
        if event["text"] not in said:
            said.append(event["text"])
        return {name: "\n".join(said)}

    @abstractmethod
    def alone(self, why: str) -> None:
        """Have it run again by itself: the process that it shared gave no result of it."""


def gather(directory: Path, makers: Sequence[Callable[[Path, float], SharedJob]],
           say: Callable[[str], None]) -> SharedProcess:
    """Several runs as one job.

    Args:
        directory: of the pack; nobody else works there.
        makers: each makes a member, of a folder and its share.
        say: hears what the user should know.

    Raises:
        Exception: what a maker raises; the members made before it hear that they are interrupted.
    """
    shutil.rmtree(directory, ignore_errors=True)  # a killed coordinator's
    members: list[SharedJob] = []
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
        say: hears what the user should know.
    """

    def __init__(self, directory: Path, members: Sequence[SharedJob], say: Callable[[str], None]) -> None:
        self.directory, self.members, self._say = directory, members, say
        self._told: dict[int, Event] = {}  # which members have said `done` or `failed`
        self._reason = ""
        said = {"members": [member.specification for member in members],
                "trainer": members[0].specification["trainer"]}
        (directory / SPECIFICATION).write_text(json.dumps(said, indent=1), encoding="utf-8")

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
            self._told[number] = event
        if not event.get("alone"):
            self.members[number].event(event)

    def end(self, event: Event) -> None:
        """End the members that have ended, each as if its process were its own."""
        self._share_out()
        undecided: dict[SharedJob, str] = {}
        why = event.get("reason") or self._reason or died(event["code"], False)
        for number, member in enumerate(self.members):
            told = self._told.get(number, {"event": "nothing"})
            if told["event"] == "nothing" or told.get("alone"):
                undecided[member] = str(told.get("reason", why))
            elif told["event"] == "failed":
                member.end({"event": "exit", "code": 1, "lost": False})
            elif event.get("machine_lost"):  # with its files
                undecided[member] = why
            else:
                member.end({"event": "exit", "code": 0, "lost": False})
        for why in dict.fromkeys(undecided.values()):
            count = list(undecided.values()).count(why)
            self._say(f"{count} of {len(self.members)} runs in one process are run again, "
                      f"each by itself: {why}")
        for member, why in undecided.items():
            member.alone(f"shared its process with {len(self.members) - 1} others: {why}")
        self._tidy()

    def _share_out(self) -> None:
        """Give each member what it printed with the others, and its events."""
        events: dict[int, list[str]] = {number: [] for number in range(len(self.members))}
        path = self.directory / EVENTS
        for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else ():
            with contextlib.suppress(ValueError):  # torn, on a full disk
                said = json.loads(line)
                for number in (said.pop("member"),) if "member" in said else events:
                    events[number].append(json.dumps(said))
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
