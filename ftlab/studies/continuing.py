"""Runs that a command left in their midst: their folders, from whose states the next one continues."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ftlab.files import write
from ftlab.studies.components import build
from ftlab.studies.engine import EVENTS, SPECIFICATION, Event
from ftlab.studies.plan import PlannedCell
from ftlab.studies.run_folders import ASIDE, leftovers
from ftlab.tracking.spool import FOLDER as UNSENT
from ftlab.training import kept_tensors
from ftlab.training.state_files import FOLDER, MANIFEST, read_manifest, refuse_other, source_of

TOKEN = "tracked"
"""File that says which run of the store the folder is of."""
BEFORE = "events.before.jsonl"
"""File of a continued run's events from before."""
ENDS = ("failed", "done")


def has_state(directory: Path) -> bool:
    """Return whether a run's folder, or a stage's in it, holds states."""
    return bool(state_folders(directory))


def state_folders(directory: Path) -> list[Path]:
    """The folders of states in a run's folder: its own, and those of its stages."""
    return sorted({path.parent for path in directory.glob(f"**/{FOLDER}/{MANIFEST}")
                   if read_manifest(path.parent)})


def take_over(left: Iterable[Path], directory: Path, specification: Mapping[str, Any]) -> str:
    """Make the newest folder that holds states that of the next attempt, and remove the others.

    Args:
        left: folders of earlier attempts at a run, which nobody holds.
        directory: of the next; made if there is one to continue.
        specification: of the next.

    Returns:
        The token of the store's run that it is of; empty where there is nothing to continue.
    """
    folders = sorted(filter(Path.is_dir, left), key=lambda path: path.stat().st_mtime)
    continued = next((path for path in reversed(folders) if has_state(path)), None)
    token = "" if continued is None else token_of(continued)
    if continued is not None and token:
        if continued != directory:
            shutil.rmtree(directory, ignore_errors=True)
            directory.parent.mkdir(parents=True, exist_ok=True)
            continued.rename(directory)
        _lay_by(directory)
        write(directory / SPECIFICATION, json.dumps(specification, indent=1))
    for path in folders:
        if path != directory:
            shutil.rmtree(path, ignore_errors=True)
    return token


def put_aside(directory: Path) -> None:
    """Keep the states of a run that failed, and what belongs to them, from its artifacts."""
    folders = state_folders(directory)
    if not folders:
        return
    aside = directory.with_name(f"{directory.name}{ASIDE}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for name in (EVENTS, BEFORE, TOKEN):
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(directory / name, aside / name)
    for folder in folders:
        place = aside / folder.relative_to(directory)
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(place)


def note_token(directory: Path, token: str) -> None:
    """Write into a run's folder which run of the store it is of."""
    write(directory / TOKEN, token + "\n")


def refuse_changed_states(work: Path, cells: Iterable[PlannedCell], seeds: Sequence[int]) -> None:
    """Refuse to continue runs whose data, weights or code are no longer what their states are of.

    Args:
        work: folder of the runs' folders.
        cells: as they are now.
        seeds: of their runs.

    Raises:
        InputError: it names what differs, and the folder.
    """
    if not work.exists():
        return
    for planned in cells:
        for seed in seeds:
            if left := leftovers(work, planned, seed):
                _refuse_other(left, planned.of_seed(seed))


def _refuse_other(left: Sequence[Path], planned: PlannedCell) -> None:
    known = {"data": planned.data_fingerprint, "backbone": planned.backbone_fingerprint,
             "libraries": ", ".join(kept_tensors.versions())}
    for folder in left:
        for state in read_manifest(folder / FOLDER):
            code = {"code": source_of(build(planned.cell.technique))}
            here = {key: value for key, value in {**known, **code}.items() if value}
            refuse_other(folder / FOLDER, state["identity"], here)


def token_of(directory: Path) -> str:
    """Which run of the store a folder is of; empty where it does not say."""
    try:
        return (directory / TOKEN).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _lay_by(directory: Path) -> None:
    """Put what was reported so far, but how the attempt ended, in front of what will be."""
    journal = directory / EVENTS
    if not journal.is_file():
        return
    kept = []
    for line in journal.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):  # torn by a kill
            if json.loads(line)["event"] not in ENDS:
                kept.append(f"{line}\n")
    with (directory / BEFORE).open("a", encoding="utf-8") as file:
        file.writelines(kept)
    journal.unlink()


def reported(directory: Path) -> Iterator[Event]:
    """The events that earlier attempts at the run of a folder have reported."""
    with contextlib.suppress(FileNotFoundError):
        for line in (directory / BEFORE).read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def tidy(work: Path, failures: Iterable[str]) -> None:
    """Leave of the runs' folders the failed ones' output, and states; sweeps have theirs beside them.

    Where writes of a command that is gone still wait for the store, their files stay.
    """
    if any((work.parent / UNSENT).glob("*.jsonl")):
        return
    for directory in work.iterdir() if work.exists() else ():
        ours = (directory / SPECIFICATION).exists()
        failed = any(str(directory) in failure for failure in failures)
        if ours and not failed and not has_state(directory):
            shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):  # there is none, or it holds others'
        work.rmdir()
