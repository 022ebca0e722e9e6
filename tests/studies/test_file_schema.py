"""The JSON Schema of study and sweep files: an editor's validator and `ftlab check` agree."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from bad_studies import BAD
from jsonschema import Draft202012Validator

from ftlab.errors import InputError
from ftlab.studies.catalogue import every_class
from ftlab.studies.class_schema import _required
from ftlab.studies.study import load_study
from ftlab.studies.yaml_file import read, typed
from ftlab.sweeps.sweep_schema import file_schema

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "docs" / "study.schema.json"
FILES = sorted([*ROOT.glob("experiments/**/*.yaml"), *ROOT.glob("sweeps/*.yaml")])
SMALL = {
    "name": "small",
    "backbones": {"b": {"class_path": "HuggingFace", "init_args": {"source": "x"}}},
    "datasets": {"d": {"class_path": "TextClassification", "init_args": {"train": "x"}}},
    "techniques": {"probe": "LinearProbe", "lora": {"class_path": "LoRA", "trainer": {"max_epochs": 9}}},
}
UNSEEN = {"duplicate cells"}
"""Bad input of which no schema of single values knows."""


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return file_schema()


@pytest.fixture(scope="module")
def editor(schema: dict[str, Any]) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def loaded(path: Path) -> Any:
    return typed(*read(path))


@pytest.mark.parametrize("path", [*FILES, *sorted(ROOT.glob("results/*/study.yaml"))],
                         ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_shipped_files_are_valid(path: Path, editor: Draft202012Validator) -> None:
    errors = [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"
              for error in editor.iter_errors(loaded(path))]
    assert not errors


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_shipped_files_point_to_it(path: Path) -> None:
    line, = (line for line in path.read_text().splitlines() if line.startswith("# yaml-language-server: "))
    named = line.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / named).resolve() == SHIPPED


def test_the_shipped_schema_is_that_of_the_code(schema: dict[str, Any]) -> None:
    if "FTLAB_WRITE_SCHEMA" in os.environ:
        SHIPPED.write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n")
    shipped = json.loads(SHIPPED.read_text())
    for kept in (shipped, schema):  # Optuna's classes are those of its version
        for key in ("sampler", "pruner"):
            kept["then"]["properties"][key] = {}
    assert shipped == json.loads(json.dumps(schema)), "ftlab schema --out docs/study.schema.json"


@pytest.mark.parametrize("case", sorted(BAD.keys() - UNSEEN))
def test_bad_input__both_refuse_it(case: str, editor: Draft202012Validator) -> None:
    assert editor.is_valid(SMALL)
    assert not editor.is_valid({**copy.deepcopy(SMALL), **BAD[case][0]})


VALUES = [-1, 0, 0.5, 0.999, 1, 2, 1000, "text", True, None, [1], {"a": 1}]


@pytest.mark.parametrize("room", ["techniques", "datasets", "backbones"])
def test_values__what_the_check_takes_the_editor_takes(
    room: str, editor: Draft202012Validator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every argument of one class a room, each with many values: neither refuses what the other takes.

    The editor may take what only a check of several values together refuses.
    """
    cls = {"techniques": "LoRA", "datasets": "TextClassification", "backbones": "HuggingFace"}[room]
    needed = dict.fromkeys(_required(every_class(())[cls]), "text")
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    refused = taken = 0
    for name in editor.schema["$defs"][cls]["properties"]:
        for value in VALUES:
            study = {**copy.deepcopy(SMALL),
                     room: {"x": {"class_path": cls, "init_args": {**needed, name: value}}}}
            path = tmp_path / "s.yaml"
            path.write_text(yaml.safe_dump(study))
            try:
                load_study(path)
            except InputError as error:
                refused += not editor.is_valid(study)
                alone = f".{name}: " in error.what or f"init_args.{name}" in error.what
                if alone and isinstance(value, int | float) and not isinstance(value, bool):
                    assert not editor.is_valid(study), (name, value, error.what)
            else:
                taken += 1
                assert editor.is_valid(study), (name, value)
    assert refused > 20 and taken > 20  # so that neither is asked nothing
