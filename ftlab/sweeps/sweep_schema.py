"""JSON Schema of sweep files, and of both kinds of file in one, for editors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from ftlab.studies.class_schema import TEXT, Definitions, Schema
from ftlab.studies.file_schema import NUMBER, SEEDS, keys, study_schema, whole
from ftlab.sweeps.samplers import offered
from ftlab.sweeps.sweep_keys import COSTS


def file_schema(allow: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON Schema of study files and sweep files.

    Args:
        allow: packages outside ftlab whose classes may be named.
    """
    definitions = Definitions(allow)
    return whole(definitions, study_schema(definitions), _sweep_schema())


def _sweep_schema() -> Schema:
    count: Schema = {"type": "integer", "minimum": 1}
    objective: Schema = {"anyOf": [{"type": "string", "pattern": "^val/"}, {"enum": list(COSTS)}]}
    span = keys({"low": NUMBER, "high": NUMBER, "log": {"type": "boolean"},
                 "step": {"type": ["number", "null"]}}, "low", "high")
    space = {"type": "object", "additionalProperties": {"anyOf": [
        span, keys({"choices": {"type": "array", "minItems": 1}}, "choices"), {"type": "null"}]}}
    return {"title": "ftlab sweep", **keys({
        "name": {"description": "Names the trials in the storage [the file's name].", **TEXT},
        "study": {"description": "Path of the study file, from the present folder.", "type": "string"},
        "trials": {"description": "Of each cell: the same budget for every technique.", "default": 16, **count},
        "searches": {"description": "How often the whole search is made.", "default": 1, **count},
        "seeds": {"description": "Seeds of each trial; its value is their mean.", **SEEDS},
        "sampler": _optuna(offered(BaseSampler), "Optuna's sampler [multivariate TPE]."),
        "pruner": _optuna(offered(BasePruner), "Optuna's pruner [none]."),
        "objective": {"description": "A validation metric or a cost, or a list of them for a Pareto front.",
                      "anyOf": [objective, {"type": "array", "items": objective, "minItems": 1,
                                            "uniqueItems": True}]},
        "spaces": {"description": "Hyperparameters by technique, in place of those that it brings.",
                   "type": ["object", "null"], "additionalProperties": space},
        "max_seconds": {"description": "After which no trial starts.", "type": ["number", "null"],
                        "exclusiveMinimum": 0},
        "storage": {"description": "A journal file, or postgresql://...", "default": "optuna.journal",
                    "type": "string"},
    }, "study")}


def _optuna(names: Sequence[str], text: str) -> Schema:
    """A class of Optuna's by its short name, with or without its arguments."""
    known: Schema = {"enum": list(names)}
    return {"description": text, "anyOf": [
        known, {"type": "null"},
        keys({"class_path": known, "init_args": {"type": ["object", "null"]}}, "class_path")]}
