"""A checked study as a study file, so that results say what gave them and it can run again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ftlab.redaction import redact
from ftlab.studies.seeds import Seeds
from ftlab.studies.study import Study
from ftlab.studies.vary import written
from ftlab.studies.yaml_schema import RECORDED, dump

FILE = "study.yaml"
"""In `results/<study>/`."""
_HEADER = RECORDED + """, overrides laid in and every default said.
# ftlab run FILE runs it; ftlab reproduce FOLDER runs it and compares with what stands beside it.
"""


def record(study: Study) -> str:
    """The study as YAML; the same study gives the same bytes.

    `load_study` reads it back to the same cells, whatever the defaults of classes become. Packages
    outside ftlab still have to be allowed by whoever runs it.
    """
    data: dict[str, Any] = {"name": study.name, "question": study.question,
                            "backbones": {}, "datasets": {}, "techniques": {}}
    for cell in study.cells:
        key = cell.key
        data["backbones"].setdefault(key.backbone, cell.backbone)
        data["datasets"].setdefault(key.dataset, cell.data)
        entry = data["techniques"].setdefault(
            key.technique, {**cell.technique, "trainer": cell.trainer, **(
                {"before": list(cell.before)} if cell.before else {})})
        if entry["init_args"] != cell.technique["init_args"]:
            pair = f"{key.dataset} from {key.backbone}"
            entry.setdefault("on", {})[pair] = cell.technique["init_args"]
        for seed, technique in cell.by_seed.items():
            found = entry.setdefault("by_seed", {}).setdefault(seed, {"on": {}})
            found["on"][f"{key.dataset} from {key.backbone}"] = technique["init_args"]
    if study.cells and study.cells[0].retain:  # all have the same
        data["retain"] = dict(study.cells[0].retain)
    if study.cells and study.cells[0].quantized:
        data["quantized"] = list(study.cells[0].quantized)
    data |= {"seeds": Seeds(study.seeds, study.until, study.drawn).written,
             "select_by": study.select_by, "report": study.report}
    if study.tuned is not None:
        data["tuned"] = study.tuned.written
    data |= _about(study, list(data["techniques"]))
    if levels := written(study.levels, data):
        data["levels"] = levels
    plain = json.loads(json.dumps(data))  # tuples become lists, and nothing is shared
    return redact(_HEADER + dump(plain))


def _about(study: Study, techniques: Sequence[str]) -> dict[str, Any]:
    """Baseline, groups and paper, as far as they speak of techniques that the study has."""
    keys: dict[str, Any] = {}
    if study.baseline in techniques:
        keys["baseline"] = study.baseline
    if study.groups:
        keys["groups"] = dict(study.groups)
    if study.paper is not None:
        numbers = {name: values for name, values in study.paper.written["numbers"].items()
                   if name in techniques}
        if numbers:
            keys["paper"] = {**study.paper.written, "numbers": numbers}
    return keys


def settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a recorded study that decides its numbers: all but names, texts and which seeds."""
    seeds = data.get("seeds")
    drawn = {"seeds": {"of": seeds["of"]}} if isinstance(seeds, Mapping) and "of" in seeds else {}
    return drawn | {
        key: value for key, value in data.items()
        if key not in ("name", "question", "seeds", "report", "baseline", "groups", "paper", "levels",
                       "tuned")}
