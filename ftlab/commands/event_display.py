"""Shows a study's runs to a program: an event a line."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ftlab.commands.json_lines import emit
from ftlab.studies.display import Display
from ftlab.terminal import Terminal

EVERY = 1.0
"""Seconds between two events of a run's progress within a phase."""


class EventDisplay(Display):
    """Writes what a display is told as events (docs/programs.md)."""

    def __init__(self) -> None:
        super().__init__(Terminal(quiet=True))
        self._shown: dict[str, tuple[str, float]] = {}

    def start(self, name: str, done: int, waiting: Mapping[str, int], slots: int = 1) -> None:
        super().start(name, done, waiting, slots)
        emit({"event": "start", "study": name, "finished": done, "total": self.total, "waiting": waiting})

    def run_started(self, title: str, technique: str, share: float = 1.0) -> None:
        super().run_started(title, technique, share)
        emit({"event": "run_started", "run": title, "technique": technique})

    def progress(self, title: str, phase: str, done: int, total: int) -> None:
        super().progress(title, phase, done, total)
        before, when = self._shown.get(title, ("", 0.0))
        if phase != before or time.monotonic() - when >= EVERY:
            self._shown[title] = phase, time.monotonic()
            emit({"event": "progress", "run": title, "phase": phase, "step": done, "steps": total,
                  "fraction": self.running[title].fraction, "seconds_left": self._left()})

    def measured(self, title: str, metrics: Mapping[str, float], score: str) -> None:
        super().measured(title, metrics, score)
        emit({"event": "measured", "run": title, "select_by": score, "metrics": metrics})

    def note(self, text: str) -> None:
        emit({"event": "note", "text": text})

    def say(self, text: str) -> None:
        emit({"event": "say", "text": text})

    def expect(self, waiting: Mapping[str, int]) -> None:
        super().expect(waiting)
        emit({"event": "expect", "total": self.total, "waiting": waiting})

    def run_ended(self, title: str, status: str, seconds: float, score: str, reason: str,
                  metrics: Mapping[str, float] | None = None) -> None:
        technique = self.running[title].technique
        super().run_ended(title, status, seconds, score, reason, metrics)
        self._ended(title, technique, status, seconds=seconds, reason=reason or None, metrics=metrics or {})

    def run_ended_elsewhere(self, title: str, technique: str, status: str) -> None:
        super().run_ended_elsewhere(title, technique, status)
        self._ended(title, technique, status, seconds=None, reason="ended by another command", metrics={})

    def run_dropped(self, title: str) -> None:
        super().run_dropped(title)
        emit({"event": "run_dropped", "run": title})

    def _ended(self, title: str, technique: str, status: str, **more: Any) -> None:
        emit({"event": "run_ended", "run": title, "technique": technique, "status": status, **more,
              "finished": self.done, "total": self.total, "seconds_left": self._left()})

    def _left(self) -> float | None:
        return self.clock.left(list(self.running.values()), self.slots)
