"""Adapters of every preset in PEFT's own folder, loaded by PEFT without ftlab."""

import inspect
from typing import Any

import pytest
import torch
from exported import every_export
from matrix import TECHNIQUES, make_world

from ftlab.backbones.task_model import tensors
from ftlab.exports.verify import expected_outputs
from ftlab.techniques.peft_technique import PeftTechnique

PRESETS = [name for name, cls in TECHNIQUES.items() if issubclass(cls, PeftTechnique)
           and "method" not in inspect.signature(cls).parameters]
TEXT = "text_classification"
CASES = [(TEXT, name, False) for name in (*PRESETS, "PTuning", "TrainableTokens")]
CASES += [(TEXT, "VeRA", True), (TEXT, "OFT", True)]  # wrapped around the network, and put into it
Case = tuple[str, str, bool]


@pytest.fixture(scope="module")
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
             ) -> dict[Case, dict[str, Any]]:
    return every_export(
        CASES, lambda name: make_world(name, request.getfixturevalue),
        tmp_path_factory.mktemp("exports"),
        lambda model, _, chosen: {"expected": expected_outputs(model, chosen)})


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case[1:])))
def test_peft_loads_it_and_gives_the_same(
    case: Case, exported: dict[Case, dict[str, Any]]
) -> None:
    found = exported[case]
    assert "error" not in found, found["error"]
    adapter = (found["folder"] / "adapter_config.json").exists()
    assert adapter == (not case[2] and case[1] != "TrainableTokens")
    for given, ours in zip(found["outputs"], found["expected"], strict=True):
        torch.testing.assert_close(tensors(given), ours.outputs, rtol=1e-4, atol=1e-4)
