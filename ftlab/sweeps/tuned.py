"""The tuned study: the study file with the best trials' values, and how they were found."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import TrialState

from ftlab.studies.study import merged
from ftlab.studies.yaml_file import read
from ftlab.sweeps.standing import Direction, Standing
from ftlab.sweeps.sweep import Sweep


def write_tuned(sweep: Sweep, standings: Sequence[Standing], direction: Direction,
                command: str) -> Path:
    """Write `<study>.tuned.yaml` beside the study file, whole or not at all; its path.

    A cell without a complete trial keeps the study's own values, and the header says so. Where
    the study has several pairs of data set and backbone, a technique says under `on` what it takes
    on each.

    Args:
        sweep: what was searched.
        standings: its trials.
        direction: of the first objective.
        command: that found them, for the header.
    """
    data, _ = read(sweep.study_path)
    data["name"] = f"{sweep.study.name}.tuned"
    pairs = {(s.cell.key.dataset, s.cell.key.backbone) for s in standings}
    seeds = f"{len(sweep.seeds)} seed{'s' * (len(sweep.seeds) > 1)} each"
    budget = f"{sweep.name}: {sweep.trials} trials a cell, of {seeds}"
    lines = [f"Found by: {command}", f"{budget}; the best {sweep.objectives[0]}:"]
    for standing in standings:
        key, best = standing.cell.key, standing.best(direction)
        counts = ", ".join(f"{standing.count(state)} {word}" for state, word in (
            (TrialState.COMPLETE, "complete"), (TrialState.PRUNED, "pruned"),
            (TrialState.FAIL, "failed")) if standing.count(state))
        if best is None:
            lines.append(f"  {key.title}: no trial completed ({counts}), the study's own values")
            continue
        lines.append(f"  {key.title}: {best.values[0]:.4f} in trial {best.number} ({counts})")
        if best.number == 0 or not best.params:
            continue
        entry = data["techniques"][key.technique]
        if isinstance(entry, str):
            entry = {"class_path": entry}
        values = _nested(best.params, standing.cell.technique)
        if len(pairs) == 1:
            entry = merged(entry, {"init_args": values})
        else:
            entry = merged(entry, {"on": {f"{key.dataset} from {key.backbone}": values}})
        data["techniques"][key.technique] = entry
    header = "".join(f"# {line}\n" for line in lines)
    path = sweep.study_path.with_suffix(f".tuned{sweep.study_path.suffix}")
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    body = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)
    temporary.write_text(header + body, encoding="utf-8")
    os.replace(temporary, path)
    return path


def _nested(values: Mapping[str, Any], technique: Mapping[str, Any]) -> dict[str, Any]:
    """`{"optim.warmup": 0.1}` as a study file writes it; parts that are classes keep their form."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        *parts, last = key.split(".")
        node, known = found, technique["init_args"]
        for part in parts:
            node, known = node.setdefault(part, {}), known[part]
            if "class_path" in known:
                node.setdefault("class_path", known["class_path"].rpartition(".")[2])
                node, known = node.setdefault("init_args", {}), known["init_args"]
        node[last] = value
    return found
