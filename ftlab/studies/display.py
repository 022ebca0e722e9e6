"""Shows a study while it runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from ftlab.activity import quiet
from ftlab.terminal import Terminal
from ftlab.visible import guard_streams


class Clock:
    """Foresees how long a study still takes, from the runs that have ended.

    A technique's runs are taken to last as long as its earlier ones, an unseen technique's as
    long as the mean of all.

    Args:
        waiting: how many runs of each technique are still to do.
    """

    def __init__(self, waiting: Mapping[str, int]) -> None:
        self.waiting = dict(waiting)
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def ended(self, technique: str, seconds: float | None) -> None:
        if seconds is not None:  # None: another command measured it
            self.seconds[technique].append(seconds)
        self.waiting[technique] -= 1

    def expected(self, technique: str) -> float | None:
        """Seconds that a run of the technique takes; None before any run has ended."""
        seconds = self.seconds.get(technique) or [s for all_ in self.seconds.values() for s in all_]
        return sum(seconds) / len(seconds) if seconds else None

    def left(self, running: Sequence[RunningJob] = (), slots: int = 1) -> float | None:
        """Seconds until the study ends; None where nothing has been measured yet.

        Args:
            running: what goes on; counted as waiting until it has ended.
            slots: runs at a time.
        """
        waiting = dict(self.waiting)
        rest, seen = 0.0, []
        for run in running:
            waiting[run.technique] -= 1
            expected = self.expected(run.technique)
            if run.fraction >= 0.1:
                expected = run.elapsed / run.fraction
            elif expected is None:
                continue
            seen.append(expected)
            rest += max(0.0, expected - run.elapsed)
        if running and not seen:
            return None
        guess = sum(seen) / len(seen) if seen else 0.0
        rest += sum(n * (self.expected(name) or guess) for name, n in waiting.items())
        return rest / slots


@dataclass
class RunningJob:
    """A run that goes on.

    Attributes:
        technique: of its cell.
        phase, fraction: how far it is.
        measured: each metric's last value.
        score: the metric by which its best epoch is chosen.
        begin, share: since when, and its share of its process's time.
    """

    technique: str
    phase: str = "starts"
    fraction: float = 0.0
    measured: dict[str, float] = field(default_factory=dict)
    score: str = ""
    begin: float = field(default_factory=time.monotonic)
    share: float = 1.0

    @property
    def elapsed(self) -> float:
        """Its seconds since it started."""
        return self.share * (time.monotonic() - self.begin)

    @property
    def state(self) -> str:
        """`fit, epoch 2, loss 0.41, val/accuracy 0.873`: its phase and what it measured last."""
        words = {"epoch": "epoch {:g}", "train/loss": "loss {:.3g}", self.score: self.score + " {:.4g}"}
        known = [text.format(self.measured[name]) for name, text in words.items() if name in self.measured]
        return ", ".join([self.phase, *known])


class Display:
    """Follows the runs of a study.

    Args:
        console: where to show; bars are drawn only on a terminal.
    """

    noun = "runs"

    def __init__(self, console: Terminal | None = None) -> None:
        self.console = console or Terminal()
        self.live: Live | None = None

    def start(self, name: str, done: int, waiting: Mapping[str, int], slots: int = 1) -> None:
        """Begin: `done` runs are finished already, `waiting` by technique are to do."""
        quiet()
        self.clock, self.slots = Clock(waiting), slots
        self.total = done + sum(waiting.values())
        self.done, self.failed = done, 0
        self.running: dict[str, RunningJob] = {}
        self.spoke = time.monotonic()
        if done:
            self.console.say(f"{done} of {self.total} {self.noun} are finished already")
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
        self.bars = Progress(*columns, TextColumn("{task.fields[state]}"), console=self.console)
        self.all = self.bars.add_task(name, total=self.total, completed=done, state="")
        self.tasks: dict[str, TaskID] = {}
        if self.console.is_terminal:
            self.live = Live(Group(self.bars), console=self.console, refresh_per_second=5)
            self.live.start()
            guard_streams()  # what others print goes above the bars, decoded by rich

    def run_started(self, title: str, technique: str, share: float = 1.0) -> None:
        """A run begins; `title` names it until its end, `share` of its process's time is its own."""
        if not self.running:
            self.spoke = time.monotonic()
        self.running[title] = RunningJob(technique, share=share)
        self.tasks[title] = self.bars.add_task(title, total=1.0, state="")
        self._draw()

    def progress(self, title: str, phase: str, done: int, total: int) -> None:
        """Show how far a run is: `done` of `total` steps of its `phase`."""
        run = self.running[title]
        run.phase = phase
        # Loading and testing take about a tenth of a run each.
        run.fraction = {"load": 0.02, "test": 0.9}.get(phase, 0.05 + 0.85 * done / max(1, total))
        self._draw()

    def measured(self, title: str, metrics: Mapping[str, float], score: str) -> None:
        """Take what a run has measured while it trains, and by which metric its epochs are judged."""
        run = self.running[title]
        run.measured |= metrics
        run.score = score

    def idle(self) -> None:
        """Nothing happened; keep the clock going."""
        self._draw()

    def note(self, text: str) -> None:
        """Say something once."""
        self.console.say(f"note: {text}")

    def say(self, text: str) -> None:
        """Show a line above the bars."""
        self.console.say(text)

    def expect(self, waiting: Mapping[str, int]) -> None:
        """Take note that other runs than before are to do, by technique; those that go on included."""
        self.clock.waiting = dict(waiting)
        self.total = self.done + sum(waiting.values())
        self.bars.update(self.all, total=self.total)

    def run_ended(self, title: str, status: str, seconds: float, score: str, reason: str,
                  metrics: Mapping[str, float] | None = None) -> None:
        """A run ended; `score` is a line such as `test/accuracy 0.912`, of the final `metrics`."""
        technique = self.running.pop(title).technique
        self.bars.remove_task(self.tasks.pop(title))
        self._count(technique, status, seconds)
        left = self.clock.left(list(self.running.values()), self.slots)
        more = f", {clock(left)} left" if left and self.done < self.total else ""
        result = score if not reason else f"{status}: {reason}"
        line = f"[{self.done}/{self.total}] {title}: {result}"
        self.console.say(f"{line} ({clock(seconds)}{more})")
        self.bars.update(self.all, completed=self.done)

    def run_ended_elsewhere(self, title: str, technique: str, status: str) -> None:
        """Another command has ended a run that we waited for."""
        self._count(technique, status, None)
        self.console.print(f"[{self.done}/{self.total}] {title}: {status} in another command",
                           markup=False, highlight=False)
        self.bars.update(self.all, completed=self.done)

    def _count(self, technique: str, status: str, seconds: float | None) -> None:
        self.done += 1
        self.failed += status == "FAILED"
        self.clock.ended(technique, seconds)

    def run_dropped(self, title: str) -> None:
        """A run went away without an end, and will come again."""
        self.running.pop(title)
        self.bars.remove_task(self.tasks.pop(title))

    def close(self) -> None:
        """Leave the terminal as it is."""
        if self.live is not None:
            for task in self.tasks.values():
                self.bars.remove_task(task)
            self.live.stop()
            self.live = None

    def _draw(self) -> None:
        left = self.clock.left(list(self.running.values()), self.slots)
        still = f"{clock(left)} left" if left is not None else "estimating the time left"
        if self.done >= self.total:
            still = "all ended"
        if self.live is not None:
            failed = f", {self.failed} failed" if self.failed else ""
            summary = f"{self.done} of {self.total} {self.noun}{failed}, {still}"
            going = sum(run.fraction for run in self.running.values())
            self.bars.update(self.all, state=summary, completed=self.done + going)
            for title, run in self.running.items():
                self.bars.update(self.tasks[title], completed=run.fraction, state=run.state)
        elif self.running and time.monotonic() - self.spoke > 30:  # a sign of life in long runs
            self.spoke = time.monotonic()
            states = "; ".join(f"{title}: {run.fraction:.0%}, {run.state}"
                               for title, run in self.running.items())
            self.console.say(f"{states}, {still}")


def clock(seconds: float) -> str:
    """A time as a person says it: 8.3 s, 2 min 5 s, 1 h 3 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
