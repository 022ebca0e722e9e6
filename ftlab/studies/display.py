"""What a person sees while a study runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from ftlab.studies.study import Cell


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

    def ended(self, technique: str, seconds: float) -> None:
        self.seconds[technique].append(seconds)
        self.waiting[technique] -= 1

    def expected(self, technique: str) -> float | None:
        """Seconds that a run of the technique takes; None before any run has ended."""
        known = self.seconds.get(technique) or [s for all_ in self.seconds.values() for s in all_]
        return sum(known) / len(known) if known else None

    def left(self, technique: str, elapsed: float, fraction: float) -> float | None:
        """Seconds until the study ends, `elapsed` into a run that is done by `fraction`."""
        expected = self.expected(technique)
        if expected is None and fraction < 0.1:
            return None
        run = elapsed / fraction if fraction >= 0.1 else expected or 0.0
        rest = sum(
            (count - (name == technique)) * (self.expected(name) or run)
            for name, count in self.waiting.items()
        )
        return max(0.0, run - elapsed) + rest


class Display:
    """Follows a study's runs.

    Args:
        console: where to show; bars are drawn only on a terminal.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.live: Live | None = None

    def start(self, study: str, done: int, waiting: Mapping[str, int]) -> None:
        """Begin: `done` runs are finished already, `waiting` by technique are to do."""
        self.clock = Clock(waiting)
        self.total = done + sum(waiting.values())
        self.done, self.failed = done, 0
        self.begin = time.monotonic()
        if done:
            self.console.print(f"{done} of {self.total} runs are finished already")
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        self.bars = Progress(*columns, TextColumn("{task.fields[said]}"), console=self.console)
        self.all = self.bars.add_task(study, total=self.total, completed=done, said="")
        self.one = self.bars.add_task("", total=1.0, said="", visible=False)
        if self.console.is_terminal:
            self.live = Live(Group(self.bars), console=self.console, refresh_per_second=5)
            self.live.start()

    def run_started(self, cell: Cell, seed: int) -> None:
        self.cell, self.seed, self.fraction = cell, seed, 0.0
        self.run_begin = self.spoke = time.monotonic()
        self.phase = "starts"
        self._draw()

    def progress(self, phase: str, done: int, total: int) -> None:
        """Of the run: `phase`, `done` of `total` steps."""
        self.phase = phase
        # Loading and testing take about a tenth of a run each.
        self.fraction = {"load": 0.02, "test": 0.9}.get(phase, 0.05 + 0.85 * done / max(1, total))
        self._draw()

    def idle(self) -> None:
        """Nothing happened; keep the clock going."""
        self._draw()

    def note(self, text: str) -> None:
        self.console.print(f"note: {text}", markup=False, highlight=False)

    def run_ended(self, status: str, seconds: float, score: str, reason: str) -> None:
        """A run ended; `score` is a line such as `test/accuracy 0.912`."""
        self.done += 1
        self.failed += status != "FINISHED"
        self.clock.ended(self.cell.key.technique, seconds)
        left = self.clock.left(self.cell.key.technique, 0.0, 0.0)
        more = f", {clock(left)} left" if left and self.done < self.total else ""
        said = score if status == "FINISHED" else f"{status}: {reason}"
        line = f"[{self.done}/{self.total}] {self.cell.key.title}, seed {self.seed}: {said}"
        self.console.print(f"{line} ({clock(seconds)}{more})", markup=False, highlight=False)
        self.bars.update(self.all, completed=self.done)

    def close(self) -> None:
        if self.live is not None:
            self.bars.update(self.one, visible=False)
            self.live.stop()
            self.live = None

    def _draw(self) -> None:
        elapsed = time.monotonic() - self.run_begin
        left = self.clock.left(self.cell.key.technique, elapsed, self.fraction)
        still = f"{clock(left)} left" if left is not None else "estimating the time left"
        if self.live is not None:
            title = f"{self.cell.key.title}, seed {self.seed}"
            said = f"{self.done} of {self.total} runs, {still}"
            self.bars.update(self.all, said=said, completed=self.done + self.fraction)
            self.bars.update(
                self.one, description=title, completed=self.fraction, said=self.phase, visible=True
            )
        elif time.monotonic() - self.spoke > 30:  # plain lines: a sign of life in long runs
            self.spoke = time.monotonic()
            line = f"{self.cell.key.title}, seed {self.seed}: {self.phase} {self.fraction:.0%}"
            self.console.print(f"{line}, {still}", markup=False, highlight=False)


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
