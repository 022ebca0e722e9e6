"""A run on a quantised base, exported: the floating point that the base stands for, loaded without ftlab."""

from pathlib import Path
from typing import Any

import pytest
import torch
from exported import restored
from matrix import make_world
from safetensors.torch import load_file

pytest.importorskip("bitsandbytes", reason="quantised bases are bitsandbytes'")

from ftlab.backbones.quantization import Quantization
from ftlab.exports.export import write_model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("merged", [False, True])
def test_export__stands_for_the_quantised_base__and_says_so(
    merged: bool, dtype: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    world, made = make_world("text_classification", request.getfixturevalue), 0

    def quantised() -> tuple[Any, Any]:
        nonlocal made
        backbone, data = world()
        backbone.dtype, backbone.quantize = dtype, Quantization(
            "nf4", double_quant=True, embeddings="int8" if dtype == "bfloat16" else None)
        backbone.dequantized = bool(made)  # the run's own first, and then what an export restores
        made += 1
        return backbone, data

    kept = restored(quantised, "LoRA", tmp_path)
    folder = tmp_path / "out"
    folder.mkdir()
    write_model(kept, folder, merged)  # holds it to the run's predictions, and loads it without ftlab
    card = (folder / "README.md").read_text()
    assert "a base quantised to nf4 with double quantisation" in card
    assert (", its embeddings to int8. " in card) == (dtype == "bfloat16")
    assert ("Merged into weights of" in card) == merged
    for weights in folder.rglob("model.safetensors"):
        assert {t.dtype for t in load_file(weights).values()} == {getattr(torch, dtype)}
    assert (folder / "adapter_config.json").exists() != merged
