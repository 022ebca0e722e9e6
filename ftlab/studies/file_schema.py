"""JSON Schema of study files, for editors: keys, classes and their arguments, with texts."""

from __future__ import annotations

from typing import Any

from ftlab.studies.class_schema import TEXT, Definitions, Schema
from ftlab.studies.discover import family
from ftlab.studies.names import NAME
from ftlab.studies.paper_numbers import PROTOCOL, UNITS
from ftlab.studies.seeds import DRAWS
from ftlab.studies.study_entries import AXES
from ftlab.tracking.mirrors.base import all_mirrors
from ftlab.training.integer_weights import BITS
from ftlab.training.trainer_settings import TrainerSettings

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NAME_PATTERN: Schema = {"pattern": f"^{NAME.pattern}$"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer", "minimum": 0}
SEED: Schema = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
SEEDS: Schema = {"type": "array", "items": SEED, "minItems": 1, "uniqueItems": True}


def study_schema(definitions: Definitions) -> Schema:
    """The schema of study files.

    Args:
        definitions: that it refers to; filled.
    """
    properties: dict[str, Schema] = {
        "name": {"description": "Names the experiment in MLflow and the folder in results/.", **TEXT,
                 **NAME_PATTERN},
        "question": {"description": "Stands above the table.", **TEXT},
        **_axes(definitions),
        "vary": {"description": "Values of an entry that take several levels, by their path.",
                 "type": "object", "additionalProperties": {"type": "array", "minItems": 1}},
        "levels": {"description": "Levels that entries were made of; written into recorded studies.",
                   "type": "object"},
        "seeds": {"description": "Seeds of every cell, or how many come until comparisons are decided.",
                  "default": [0, 1, 2], "anyOf": [SEEDS, _until()]},
        "tuned": {"description": "How a sweep found the settings; no run depends on it.",
                  **keys({"trials": {"type": "integer", "minimum": 1}, "searches": {"type": "integer", "minimum": 1},
                           "seeds": {"type": "array", "items": SEED}}, "trials")},
        "select_by": {"description": "The validation metric that chooses the epoch: val/accuracy. "
                                     "ftlab list TASK shows a task's metrics.",
                      "type": "string", "pattern": "^val/"},
        "report": {"description": "The metric of the table: test/f1_macro.", "type": "string"},
        "trainer": _trainer(definitions),
        "retain": {"description": "Data sets on which forgetting is measured, by name.",
                   "type": ["object", "null"], "additionalProperties": definitions.family(family("data"))},
        "quantized": {"description": "Measures each finished model again with integers as weights.",
                      "type": ["array", "null"], "items": {"enum": list(BITS)}, "uniqueItems": True},
        "baseline": {"description": "The technique that the question compares the others with.", **TEXT},
        "groups": {"description": "Groups of data sets, over which tables average.", "type": "object",
                   "additionalProperties": {"type": "array", "items": TEXT, "minItems": 1}},
        "paper": _paper(),
        "mirror": {"description": "Other trackers that are shown the runs beside MLflow.",
                   "type": ["array", "null"], "items": {"enum": list(all_mirrors())}, "uniqueItems": True},
    }
    return {"title": "ftlab study", "type": "object", "additionalProperties": False,
            "properties": properties, "required": ["name", *AXES]}


def _axes(definitions: Definitions) -> dict[str, Schema]:
    words = {"backbones": "Pre-trained networks, by name.", "datasets": "Data sets, by name.",
             "techniques": "Ways of adapting, by name."}
    return {axis: {"description": words[axis], "type": "object", "minProperties": 1,
                   "propertyNames": NAME_PATTERN, "additionalProperties": definitions.family(
                       family(room), _beside(definitions) if axis == "techniques" else None)}
            for axis, room in AXES.items()}


def _beside(definitions: Definitions) -> dict[str, Schema]:
    """Keys of a technique's entry beside its class."""
    technique = family("techniques")
    arguments = {"type": ["object", "null"]}
    on = {"description": 'Other arguments on one pair, by "DATASET from BACKBONE".', "type": "object",
          "additionalProperties": arguments}
    stage = keys({"technique": definitions.family(technique),
                   "data": {"anyOf": [definitions.family(family("data")), {"type": "null"}]},
                   "trainer": _trainer(definitions), "select_by": {"type": ["string", "null"], "pattern": "^val/"},
                   "carry": {"enum": ["backbone", "all"], "default": "backbone"}}, "technique")
    return {
        "trainer": {**_trainer(definitions), "description": "Overrides the study's trainer."},
        "before": {"description": "Stages: fits before this one, on the same network.",
                   "type": ["array", "null"], "items": stage},
        "on": on,
        "by_seed": {"description": "Other arguments with one seed.", "type": "object",
                    "additionalProperties": keys({"init_args": arguments, "on": on})},
    }


def _trainer(definitions: Definitions) -> Schema:
    return {"description": "Settings of the trainer (ftlab list trainer).",
            "anyOf": [definitions.arguments(TrainerSettings), {"type": "null"}]}


def _until() -> Schema:
    of = {"description": "Parts that a seed draws.", "anyOf": [
        {"enum": list(DRAWS)}, {"type": "array", "items": {"enum": list(DRAWS)}}]}
    return keys({
        "until": {"const": "decided"}, "of": of, "list": SEEDS,
        "margin": {"description": "The difference that does not matter, in the table's unit.",
                   "type": "number", "exclusiveMinimum": 0},
        "first": {"description": "Seeds before the first look.", "type": "integer", "minimum": 3, "default": 3},
        "most": {"description": "Seeds of a cell at most.", "type": "integer", "default": 20}})


def _paper() -> Schema:
    number = {"anyOf": [NUMBER, keys({"value": NUMBER, "where": TEXT}, "value")]}
    targets: Schema = {"type": "object", "additionalProperties": number}
    numbers: Schema = {"description": "By technique, then data set or group.", "type": "object",
                       "additionalProperties": targets}
    return {"description": "Published numbers, shown beside the study's own.",
            **keys({"citation": TEXT, "url": TEXT, "where": TEXT, "metric": TEXT,
                     "unit": {"enum": list(UNITS)}, "tolerance": {"type": ["number", "null"]},
                     "protocol": keys(dict.fromkeys(PROTOCOL, TEXT)), "numbers": numbers})}


def keys(properties: dict[str, Schema], *required: str) -> Schema:
    """A mapping with these keys and no others."""
    return {"type": "object", "additionalProperties": False, "properties": properties,
            "required": list(required)}


def whole(definitions: Definitions, study: Schema, sweep: Schema) -> dict[str, Any]:
    """One schema of both kinds of file: a sweep is what names a study."""
    return {"$schema": DIALECT, "title": "ftlab study or sweep", "type": "object",
            "if": {"required": ["study"]}, "then": sweep, "else": study, "$defs": definitions.made}
