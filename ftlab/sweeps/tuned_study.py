"""The tuned study: the study file with the best trials' values, and how they were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from ftlab.errors import InputError
from ftlab.files import write
from ftlab.studies.draws import draws_split
from ftlab.studies.overrides import override
from ftlab.studies.study_entries import merged
from ftlab.studies.tuned import Tuned
from ftlab.studies.yaml_file import read
from ftlab.studies.yaml_schema import dump
from ftlab.sweeps.progress import CellProgress, Direction
from ftlab.sweeps.sweep import Sweep

MODELINE = "# yaml-language-server: "
"""How the line begins by which an editor finds a file's schema."""
_SUFFIX = ".tuned"
_LONGEST = 80 - len(_SUFFIX)  # of the study's name, so that the tuned one's is a name too


def write_tuned(sweep: Sweep, standings: Sequence[CellProgress], direction: Direction,
                command: str) -> Path:
    """Write `<study>.tuned.yaml` beside the study file, whole or not at all; its path.

    A cell without a complete trial keeps the study's own values, and the header says so. Where
    the study has several pairs of data set and backbone, a technique says under `on` what it takes
    on each; of several searches, each has a seed, under `by_seed`. Numbers are written in full:
    rounded, they would be another trial than the one that was found.

    Args:
        sweep: what was searched.
        standings: its trials, of every search.
        direction: of the first objective.
        command: that found them, for the header.

    Raises:
        InputError: the study file cannot be read any more, or the folder cannot be written.
    """
    data, _ = read(sweep.study_path)
    for given in sweep.overrides:
        override(data, given)
    data["name"] = f"{sweep.study.name[:_LONGEST]}{_SUFFIX}"
    pairs = {(s.cell.key.dataset, s.cell.key.backbone) for s in standings}
    seeds = sweep.fresh_seeds
    for technique in dict.fromkeys(s.cell.key.technique for s in standings):
        found = [(s.search, _found(s, direction, len(pairs) == 1))
                 for s in standings if s.cell.key.technique == technique]
        if not any(change for _, change in found):
            continue  # the study's own values
        changes: dict[str, Any] = {}
        for search, change in found:
            by_seed = {"by_seed": {seeds[search]: change}}
            changes = merged(changes, by_seed if sweep.searches > 1 else change)
        entry = data["techniques"][technique]
        entry = {"class_path": entry} if isinstance(entry, str) else entry
        data["techniques"][technique] = merged(entry, changes)
    data["seeds"] = _seeds(data.get("seeds"), seeds, sweep)
    data["tuned"] = Tuned(sweep.trials, sweep.searches, tuple(
        seed for search in sweep.each for seed in search.seeds)).written
    header = "".join(f"# {line}\n" for line in _header(sweep, standings, direction, command))
    header += "".join(line for line in sweep.study_path.read_text().splitlines(keepends=True)
                      if line.startswith(MODELINE))
    body = dump(data, width=110)
    path = sweep.study_path.with_suffix(f"{_SUFFIX}{sweep.study_path.suffix}")
    _replace(path, header + body)
    return path


def _found(standing: CellProgress, direction: Direction, alone: bool) -> dict[str, Any]:
    """The change of a technique's entry to what a search found; empty for the study's own values."""
    key, best = standing.cell.key, standing.best(direction)
    if best is None or best.number == 0 or not best.params:
        return {}
    values = _nested(best.params, standing.cell.technique)
    return {"init_args": values} if alone else {"on": {f"{key.dataset} from {key.backbone}": values}}


def _seeds(written: Any, fresh: Sequence[int], sweep: Sweep) -> Any:
    """`seeds` of the tuned study, of a study that wrote this.

    A list: the settings of one search get no seeds until they differ, which would decide about
    these settings alone, and those of several searches were paid for already.
    """
    if sweep.searches == 1 and sweep.study.until is not None:
        fresh = fresh[:sweep.study.until.first]
    drawn = {"of": written["of"]} if isinstance(written, Mapping) and "of" in written else {}
    return {"list": list(fresh), **drawn} if drawn else list(fresh)


def _header(sweep: Sweep, standings: Sequence[CellProgress], direction: Direction,
            command: str) -> list[str]:
    """The command, the budget, and of each cell what was found against the study's own setting."""
    seeds = f"{len(sweep.seeds)} seed{'s' * (len(sweep.seeds) > 1)}"
    classes = {"sampler": sweep.sampler, "pruner": sweep.pruner}
    chosen = "".join(f", {name} {_class(value)}" for name, value in classes.items() if value)
    better = "highest" if direction == "maximize" else "lowest"
    lines = [
        f"Written by: {command}",
        f"From {sweep.study_path.name}, at most {sweep.trials} trials a cell, each of {seeds}{chosen}.",
        f"Taken of each cell: the trial with the {better} {sweep.objectives[0]}.",
        f"Its score and what it gained are optimistic: of many noisy scores the {better} has most luck",
        "(in simulations with a noise of 3 points, the best of 12 lay 3 to 4 points above its truth).",
        "The seeds below are none of the sweep's, with which that luck would come again.",
    ]
    if sweep.searches > 1:
        split = "validation splits of their own" if draws_split(sweep.study.drawn) else "the same validation split"
        lines.append(f"Searched {sweep.searches} times on {split}, with other seeds; "
                     "what each search found is tested with one seed.")
    for standing in standings:
        best = standing.best(direction)
        counts = ", ".join(standing.in_words(
            TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)) or "no trial"
        unchanged = [t.values[0] for t in standing.trials
               if t.number == 0 and t.state == TrialState.COMPLETE]
        before = f"own setting {unchanged[0]:.4f}" if unchanged else "own setting without a score"
        if best is None:
            result = "own setting kept, no trial completed"
        elif best.number == 0:
            result = f"{best.values[0]:.4f} with the own setting, which no trial beat"
        else:
            result = f"{best.values[0]:.4f} in trial {best.number}, {before}"
        which = f", search {standing.search + 1} (seed {sweep.fresh_seeds[standing.search]})" \
            if sweep.searches > 1 else ""
        lines.append(f"  {standing.cell.key.title}{which}: {result} ({counts})")
    return lines


def _class(written: Any) -> str:
    return str(written.get("class_path", written) if isinstance(written, Mapping) else written)


def _nested(values: Mapping[str, Any], technique: Mapping[str, Any]) -> dict[str, Any]:
    """`{"optim.warmup": 0.1}` as a study file writes it; parts that are classes keep their form."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *parts, last = key.split(".")
        node, config = nested, technique["init_args"]
        for part in parts:
            node, config = node.setdefault(part, {}), config[part]
            if "class_path" in config:
                node.setdefault("class_path", _written(config["class_path"]))
                node, config = node.setdefault("init_args", {}), config["init_args"]
        node[last] = value
    return nested


def _written(class_path: str) -> str:
    """A class as a study names it: ftlab's own by short name, others in full."""
    return class_path.rpartition(".")[2] if class_path.startswith("ftlab.") else class_path


def _replace(path: Path, text: str) -> None:
    try:
        write(path, text)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written: {error.strerror or error}",
            "make its folder writable; the same command writes it, and repeats no trial",
        ) from error
