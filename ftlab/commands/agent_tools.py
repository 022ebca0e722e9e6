"""The tools of `ftlab mcp`: the command line's verbs, with the test split shut until a study is finished."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftlab.commands.json_lines import error_of, plain
from ftlab.errors import FtlabError, InputError
from ftlab.files import write
from ftlab.reports import question_ledger

Answer = dict[str, Any]
COSTS = ("trainable_parameters", "total_parameters", "trainable_percent", "train_seconds", "peak_memory_bytes")
_KEYS = ("backbone", "dataset", "technique")
_SHOWN = ("val/", "train/", "cost/")
_PARTING = 25.0  # seconds in which a run that is asked to end writes its state


class Tools:
    """Each public method is a tool, its docstring what an agent reads of it.

    Args:
        folder: where all files are; studies lie in it, and nothing is written outside.
        results: below it.
        tracking_uri: of the store; None as of every command.
        allow: packages outside ftlab whose classes studies may name.

    Raises:
        InputError: the results lie outside the folder.
    """

    def __init__(self, folder: Path, results: Path, tracking_uri: str | None, allow: Sequence[str]) -> None:
        self._folder = folder.resolve()
        self._results = self._inside(results, "--results")
        self._common = [word for package in allow for word in ("--allow", package)]
        self._stored = ["--results", str(self._results)]
        self._stored += [] if tracking_uri is None else ["--tracking-uri", tracking_uri]
        self._running: dict[Path, subprocess.Popen[bytes]] = {}

    async def list_(self, name: str = "", fits: str = "") -> Answer:
        """List what a study may name.

        name: techniques, tasks, data, backbones, trainer, or a class, whose arguments are then listed;
        empty for all classes without arguments. fits: a study file; lists the techniques that fit it instead.
        """
        words = ["--for", str(self._inside(Path(fits), "fits"))] if fits else [name] if name else []
        return (await self._call("list", *words, *self._common))[0]

    async def check(self, study: str) -> Answer:
        """Check a study, its data and all combinations, without running it.

        study: a path below the working folder, or the YAML text itself, which is kept as studies/NAME.yaml.
        A wrong one gives error: what, how (to mend it), place.
        """
        path = self._file(study)
        return (await self._call("check", str(path.relative_to(self._folder)), *self._common))[0]

    async def run(self, study: str) -> Answer:
        """Begin or continue a study in the background; `status` follows it. Repeats nothing finished.

        study: a path or text, as of `check`.
        """
        path = self._file(study)
        checked = (await self._call("check", str(path.relative_to(self._folder)), *self._common))[0]
        if not checked.get("ok"):
            return checked
        if not self._goes_on(path):
            self._begin(path)
        return {**self._state(path), "file": checked["file"]}

    async def status(self, study: str) -> Answer:
        """Follow a study that runs: how far it is, and what was measured on train and validation."""
        return self._state(self._file(study))

    async def stop(self, study: str) -> Answer:
        """Stop a study that runs; `run` continues it."""
        path = self._file(study)
        await asyncio.to_thread(self._end, [path])
        return self._state(path)

    async def verdicts(self, study: str) -> Answer:
        """Read which techniques of a finished study are better, worse, equal or undecided.

        A question to the test split: it is counted, and the level of the verdicts is corrected for all so far.
        """
        return self._asked(await self._finished(self._file(study)), cells=False)

    async def table(self, study: str) -> Answer:
        """Read a finished study's test scores and verdicts. Counted as `verdicts` is; both are one question."""
        return self._asked(await self._finished(self._file(study)), cells=True)

    async def costs(self, study: str) -> Answer:
        """Read each cell's costs: parameters, seconds, bytes. No question to the test split."""
        table = await self._table(self._file(study))
        return {"study": table["study"], "cells": [
            {key: cell[key] for key in (*_KEYS, *COSTS)} for cell in table["cells"]]}

    def close(self) -> None:
        """End the studies that run; each writes its state, and the same command continues it."""
        self._end(list(self._running))

    def _begin(self, path: Path) -> None:
        log = self._log(path)
        log.parent.mkdir(parents=True, exist_ok=True)
        (log.parent / ".gitignore").write_text("*\n", encoding="utf-8")
        with log.open("wb") as events:
            self._running[path] = subprocess.Popen(
                [*_FTLAB, "run", str(path.relative_to(self._folder)), "--json", *self._common, *self._stored],
                cwd=self._folder, stdin=subprocess.DEVNULL, stdout=events, stderr=subprocess.DEVNULL)

    def _asked(self, table: Mapping[str, Any], cells: bool) -> Answer:
        question = question_ledger.ask(self._results, table)
        answer = {"study": table["study"], "metric": table["metric"],
                  "verdicts": question_ledger.verdicts(table, question.level),
                  "question": question.number, "level": question.level, "said": question.said}
        if cells:
            answer["cells"] = [{key: value for key, value in cell.items() if key != "rank"}
                               for cell in table["cells"]]
        return answer

    async def _finished(self, path: Path) -> Answer:
        """A finished study's table, whose numbers are of the test split.

        Raises:
            InputError: the study is not finished.
        """
        ended = None if self._goes_on(path) else next(
            (event for event in self._events(path) if event.get("event") == "result"), None)
        if ended is not None:
            return ended
        if not self._goes_on(path):  # a person may have run it
            table = await self._table(path)
            open_ = any(pair["verdict"] == "open" for pair in table["pairs"])
            if not open_ and all(cell["note"] is None for cell in table["cells"]):
                return table
        raise InputError(f"{path.relative_to(self._folder)}: not finished, and until then the test split is shut",
                         "run it, and follow it by status")

    async def _table(self, path: Path) -> Answer:
        (table,) = await self._call("table", str(path.relative_to(self._folder)), *self._common, *self._stored)
        if "error" in table:
            error = table["error"]
            raise InputError(": ".join(filter(None, (error["place"], error["what"]))), error["how"] or "")
        return table

    def _state(self, path: Path) -> Answer:
        """How a study stands, by its events; nothing of the test split."""
        state: Answer = {"study": None, "state": "not run", "finished": 0, "total": None, "seconds_left": None,
                         "runs": {}, "error": None}
        for event in self._events(path):
            kind = event.get("event")
            if "error" in event:
                state["error"] = event["error"]
            state |= {key: event[key] for key in ("study", "finished", "total", "seconds_left") if key in event}
            if "run" in event:
                run = state["runs"].setdefault(event["run"], {"status": "RUNNING", "measured": {}})
                run |= {key: event[key] for key in ("phase", "fraction", "status", "reason") if key in event}
                run["measured"] |= {name: value for name, value in event.get("metrics", {}).items()
                                    if name == "epoch" or name.startswith(_SHOWN)}
            if kind == "result":
                state["state"] = "finished"
            elif state["state"] == "not run":
                state["state"] = "stopped"
        if self._goes_on(path):
            state["state"] = "running"
        return state

    def _goes_on(self, path: Path) -> bool:
        return path in self._running and self._running[path].poll() is None

    def _end(self, paths: Sequence[Path]) -> None:
        going = [self._running[path] for path in paths if self._goes_on(path)]
        for process in going:
            process.send_signal(signal.SIGTERM)
        for process in going:
            try:
                process.wait(_PARTING)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _log(self, path: Path) -> Path:
        """The events of a study's last run; of another text of the file it is another one."""
        text = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        return self._results / ".agent" / f"{path.stem}-{text}.jsonl"

    def _events(self, path: Path) -> list[Answer]:
        """All whole lines so far."""
        log = self._log(path)
        if not log.exists():
            return []
        *lines, _ = log.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines]

    async def _call(self, verb: str, *words: str) -> list[Answer]:
        """The answer of a command.

        Raises:
            FtlabError: it has died without an answer.
        """
        process = await asyncio.create_subprocess_exec(
            *_FTLAB, verb, "--json", *words, cwd=self._folder, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL)
        output, _ = await process.communicate()
        if not output:
            raise FtlabError(f"ftlab {verb} has died (exit code {process.returncode})", "ftlab doctor")
        return [json.loads(line) for line in output.splitlines()]

    def _inside(self, path: Path, what: str) -> Path:
        """The path, absolute.

        Raises:
            InputError: it leads out of the working folder.
        """
        found = (self._folder / path).resolve()
        if not found.is_relative_to(self._folder):
            raise InputError(f"{what} {path}: outside the working folder", "give a path below it")
        return found

    def _file(self, study: str) -> Path:
        """The study's file; a text becomes one.

        Raises:
            InputError: it lies outside the working folder, or is not there.
        """
        if "\n" in study.strip():
            named = re.search(r"^name: *[\"']?([\w.-]+)", study, re.MULTILINE)
            path = self._inside(Path("studies") / f"{named[1] if named else 'unnamed'}.yaml", "name")
            path.parent.mkdir(exist_ok=True)
            write(path, study)
            return path
        path = self._inside(Path(study), "study")
        if not path.is_file():
            raise InputError(f"{study}: no such file", "give a path below the working folder, or the text itself")
        return path


_FTLAB = (sys.executable, "-m", "ftlab.cli")


def answered(error: FtlabError) -> Answer:
    """An error as a tool's answer."""
    found: Answer = plain({"error": error_of(error)})
    return found
