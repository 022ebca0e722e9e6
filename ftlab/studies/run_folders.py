"""The folders that a command's runs write to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftlab.files import write
from ftlab.studies.engine import SPECIFICATION
from ftlab.studies.plan import PlannedCell
from ftlab.training.manifest import FAILED, MANIFEST

ASIDE = ".left"
"""Ends the name of a failed run's folder of states: its own becomes artifacts."""


def folder_of(work: Path, planned: PlannedCell, seed: object, token: object, end: str = "") -> Path:
    """The folder of an attempt at a run; `end` follows its name."""
    key = planned.cell.key
    return work / f"{key.technique}-{key.config}-{token}-seed{seed}{end}"


def leftovers(work: Path, planned: PlannedCell, seed: int) -> list[Path]:
    """The folders of earlier attempts at a run, those of its states and in shared processes too."""
    own = folder_of(work, planned, seed, "*").name
    first = folder_of(work, planned, "*", "*", "-together").name
    shared = [path for path in work.glob(f"{first}/*") if seed_of(path) == seed]
    return sorted([*work.glob(own), *work.glob(f"{own}{ASIDE}"), *shared])


def mark_failed(checkpoint: Path, reason: str) -> None:
    """Write into a checkpoint's manifest why its run failed; a part of a checkpoint goes.

    Hours may be in it, and nobody is to take it for a result: `restored` refuses it.
    """
    manifest = checkpoint / MANIFEST
    if not manifest.exists():
        shutil.rmtree(checkpoint, ignore_errors=True)
        return
    marked = {FAILED: reason, **json.loads(manifest.read_text(encoding="utf-8"))}
    write(manifest, json.dumps(marked, indent=1) + "\n")
    for rest in checkpoint.glob("*.tmp"):
        rest.unlink()


def write_specification(directory: Path, specification: Mapping[str, Any]) -> None:
    """Make a run's folder anew, with its specification."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / SPECIFICATION).write_text(
        json.dumps(specification, indent=1), encoding="utf-8")


def seed_of(directory: Path) -> int | None:
    """The seed of the run of a folder; None where it does not say."""
    return specification_of(directory).get("seed")


def specification_of(directory: Path) -> dict[str, Any]:
    """The specification of the run of a folder; empty where it has none that can be read."""
    try:
        specification: dict[str, Any] = json.loads(
            (directory / SPECIFICATION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return specification
