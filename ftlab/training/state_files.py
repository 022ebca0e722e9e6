"""The files of a run's states: written whole, the last two kept, and read by the run that they are of."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer

from ftlab.errors import InputError
from ftlab.files import replacing, write
from ftlab.techniques.base import Technique
from ftlab.techniques.wrapper import Wrapper
from ftlab.training import kept_tensors
from ftlab.training.object_state import NotStorable
from ftlab.training.rank_files import agree, away, move
from ftlab.training.run import Run

FOLDER = "state"
"""Name of the folder of states in a run's folder."""
KEPT = 2
MANIFEST = "states.json"
ANEW = "bring back what it was, or remove the folder to begin the run anew"
OF_ALL = ("tensors", "optimizer")
"""Parts of a state that all ranks have in common, unless they share them out; empty in others' files."""
NAMES = {"data": "data", "backbone": "weights of the backbone", "weights": "weights before training", "code": "code of the technique",
         "libraries": "versions of libraries", "configuration": "settings"}
"""Names, for messages, of the things that a state's identity holds, by key."""


class Unwritten(Exception):
    """A state could not be written, on one rank at least; says why."""


class StateFiles:
    """The folder of a run's states.

    Args:
        folder: made with the first state.
        identity: what a state must be of.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        self.folder, self.identity = folder, dict(identity)
        self.states: list[dict[str, Any]] = []

    @property
    def newest(self) -> int | None:
        """The number of the newest whole state; None where there is none."""
        return self.states[-1]["number"] if self.states else None

    def check(self, trainer: Trainer) -> list[str]:
        """Find the states that are whole, all ranks at once; returns notes on others.

        The first rank's folder has them: on other nodes there is none.

        Raises:
            InputError: they are of another run.
        """
        notes = []
        for state in read_manifest(self.folder) if trainer.is_global_zero else ():
            refuse_other(self.folder, state["identity"], self.identity)
            torn = next((name for name, sha256 in state["files"].items()
                         if _sha256(self.folder / name) != sha256), None)
            if torn is None:
                self.states.append(state)
            else:
                notes.append(f"the state at step {state['step']} is damaged ({torn}), and left aside")
        self.states = trainer.strategy.broadcast(self.states)
        return notes

    def read(self, number: int, trainer: Trainer, shared_out: bool) -> dict[str, Any]:
        """This rank's part of a state, all ranks at once.

        Args:
            number: of the state.
            trainer: of the ranks.
            shared_out: whether each rank has a share of what trains; else the first has it for all.
        """
        mine, first = (self.folder / _name(number, rank) for rank in (trainer.global_rank, 0))
        on_each = trainer.world_size // trainer.num_nodes
        for rank in away(trainer):
            move(self.folder / _name(number, rank), 0, rank, trainer)
            if not shared_out and rank % on_each == 0:
                move(first, 0, rank, trainer)
        trainer.strategy.barrier("state sent")
        found: dict[str, Any] = torch.load(mine, map_location="cpu", weights_only=True)
        if not shared_out and mine != first:
            whole = torch.load(first, map_location="cpu", weights_only=True)
            found |= {name: whole[name] for name in OF_ALL}
        trainer.strategy.barrier("state read")
        if trainer.global_rank in away(trainer) and trainer.global_rank % on_each == 0:
            shutil.rmtree(self.folder)
        return {**found, "number": number}

    def write(self, content: Callable[[], Mapping[str, Any]], step: int, trainer: Trainer,
              best: Path | None) -> None:
        """Write a state, all ranks at once; of the earlier ones the last stays.

        Args:
            content: makes this rank's part.
            step: of it.
            trainer: of the ranks.
            best: folder of the best epoch's checkpoint, where there is one.

        Raises:
            Unwritten: on some rank the disk is full, or the folder cannot be written, or the part
                holds what cannot be stored; all ranks say so.
        """
        number = (self.newest or 0) + 1
        mine = self.folder / _name(number, trainer.global_rank)

        def write_mine() -> None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(mine) as whole:
                torch.save(dict(content()), whole)

        self._together(trainer, write_mine)
        self._together(trainer, lambda: self._collect(number, trainer))
        if trainer.global_rank in away(trainer):
            mine.unlink(missing_ok=True)
        state = {"number": number, "step": step, "identity": self.identity}
        states = [*self.states[-(KEPT - 1):], state]
        if trainer.is_global_zero:
            self._together(trainer, lambda: self._list(states, best, trainer.world_size))
        else:
            self._together(trainer, lambda: None)
        self.states = states

    def _together(self, trainer: Trainer, act: Callable[[], None]) -> None:
        if reason := agree(trainer, act, (OSError, NotStorable)):
            raise Unwritten(reason)

    def _collect(self, number: int, trainer: Trainer) -> None:
        """Bring the parts of ranks on other nodes into the first one's folder."""
        failed: OSError | None = None
        for rank in away(trainer):
            try:
                move(self.folder / _name(number, rank), rank, 0, trainer)
            except OSError as error:  # the others send nevertheless
                failed = error
        if failed is not None:
            raise failed

    def _list(self, states: Sequence[dict[str, Any]], best: Path | None, ranks: int) -> None:
        """Let the newest of some states be one: its files are there."""
        state = states[-1]
        names = [_name(state["number"], rank) for rank in range(ranks)]
        state["files"] = {name: _sha256(self.folder / name) for name in names}
        _link(best, self.folder / _best(state["number"]))
        write(self.folder / MANIFEST, json.dumps({"states": states}, indent=1) + "\n")
        _remove_others(self.folder, {kept["number"] for kept in states})

    def put_best(self, number: int, checkpoint: Path) -> None:
        """Put the best epoch's checkpoint back as a state knew it."""
        shutil.rmtree(checkpoint, ignore_errors=True)
        _link(self.folder / _best(number), checkpoint)


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """The states of a folder, oldest first; none where there is no readable manifest."""
    try:
        states: list[dict[str, Any]] = json.loads(
            (folder / MANIFEST).read_text(encoding="utf-8"))["states"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return states


def numbers(directory: Path) -> list[tuple[str, int]]:
    """The states in the folder of a run: the name of their folder in it, and their number."""
    return [(path.parent.relative_to(directory).as_posix(), state["number"])
            for path in sorted(directory.glob(f"**/{FOLDER}/{MANIFEST}"))
            for state in read_manifest(path.parent)]


def files(folder: Path, number: int) -> list[Path]:
    """The files of a state, the best epoch's checkpoint included."""
    return sorted(path for path in folder.rglob(f"{number}-*") if path.is_file()) + sorted(
        path for path in (folder / _best(number)).glob("*"))


def pieces(directory: Path, size: int) -> Iterator[tuple[str, bytes]]:
    """The states of the folder of a run, as names and bytes, at most so many at once."""
    for folder in dict.fromkeys(name for name, _ in numbers(directory)):
        for path in sorted((directory / folder).rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    while piece := file.read(size):
                        yield path.relative_to(directory).as_posix(), piece


def take_manifest(path: Path, content: bytes) -> None:
    """Write a list of states whose files are there, and remove others."""
    write(path, content)
    _remove_others(path.parent, {state["number"] for state in read_manifest(path.parent)})


def _remove_others(folder: Path, kept: set[int]) -> None:
    for path in folder.iterdir():
        number = path.name.partition("-")[0]
        if number.isdecimal() and int(number) not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def identity_of(run: Run, before: Mapping[str, str]) -> dict[str, str]:
    """The identity that all states of a run have.

    Args:
        run: loaded.
        before: digests of its model's tensors before training.
    """
    settings = {name: value for name, value in run.record.get("trainer", {}).items()
                if name != "save_every"}
    configuration = {name: run.record.get(name) for name in (
        "backbone", "data", "technique", "select_by", "seed", "before", "plain")}
    return {"data": run.data.fingerprint, "backbone": run.backbone.fingerprint, "weights": _digest(dict(before)),
            "code": source_of(run.technique), "libraries": ", ".join(kept_tensors.versions()),
            "configuration": _digest({**configuration, "trainer": settings})}


def refuse_other(folder: Path, there: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Refuse a state of another run.

    Args:
        folder: of the states.
        there: their identity.
        here: that of the run, or what is known of it.

    Raises:
        InputError: it names what differs.
    """
    for key, value in here.items():
        if there.get(key) != value:
            shown = f" ({there.get(key)}, here {value})" if key == "libraries" else ""
            raise InputError(f"{folder} holds states of a run with other {NAMES[key]}{shown}", ANEW)


def source_of(technique: Technique) -> str:
    """Hash of the files in which a technique, what it wraps and what they derive from are written."""
    kinds = [kind for kind in type(technique).__mro__ if kind.__module__ not in ("builtins", "abc")
             and not kind.__module__.startswith(("torch.", "lightning."))]
    files = sorted({str(getattr(sys.modules[kind.__module__], "__file__", "")) for kind in kinds})
    content = b"".join(Path(file).read_bytes() for file in files if Path(file).is_file())
    inner = source_of(technique.technique) if isinstance(technique, Wrapper) else ""
    return hashlib.sha256(content + inner.encode()).hexdigest()


def _name(number: int, rank: int) -> str:
    return f"{number}-rank{rank}.pt"


def _best(number: int) -> str:
    return f"{number}-best"


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _sha256(path: Path) -> str:
    """The sha256 of a file; empty where there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link(source: Path | None, target: Path) -> None:
    """Give a folder's files a second name: they are replaced whole, so that a link stays as it was."""
    if source is None or not source.is_dir():
        return
    shutil.rmtree(target, ignore_errors=True)  # of a state whose list could not be written
    target.mkdir()
    for path in source.iterdir():
        try:
            os.link(path, target / path.name)
        except OSError:  # a file system without links
            shutil.copy2(path, target / path.name)
