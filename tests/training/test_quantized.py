"""Models measured with quantised weights, against torchao's own call, formulas by hand and real files."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from matrix import TECHNIQUES, along, make_technique, make_world, refusal, tried
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from ftlab.errors import Incompatible, InputError
from ftlab.techniques.bottleneck_adapter import BottleneckAdapter
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.lora import LoRA
from ftlab.techniques.untuned import Untuned
from ftlab.training import quantized
from ftlab.training.execute import execute
from ftlab.training.integer_weights import block_of
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

torchao = pytest.importorskip("torchao.quantization", reason="integers are torchao's")
UNRENDERED = True
Make = Callable[..., Run]


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    def run(technique: Any, world: str = "text_classification", names: tuple[str, ...] = ("int8", "int4"),
            **settings: Any) -> Run:
        backbone, data = make_world(world, request.getfixturevalue)()
        along(data, technique.streams, technique.columns)
        chosen = TrainerSettings(**{"max_epochs": 2, "gradient_clip": None, **settings})
        return Run(backbone, data, technique, chosen, 7, "val/loss", tmp_path, quantized=names)

    return run


def silent(event: Any) -> None:
    """Drops an event."""


@pytest.mark.parametrize(("shape", "name", "block"), [
    ((8, 384), "int8", (1, 384)), ((8, 384), "int4", (1, 32)), ((8, 34), "int4", (1, 17)),
    ((8, 20), "int4", (1, 20)), ((8, 37), "int4", None), ((8, 4), "int8", None),
    ((8, 64, 1, 1), "int4", (1, 32, 1, 1)), ((8, 64, 3, 3), "int4", (1, 2, 3, 3)),
    ((8, 1, 3, 3), "int4", (1, 1, 3, 3)), ((8, 1, 7, 7), "int4", (1, 1, 7, 7)), ((8, 64, 3, 3), "int8", (1, 64, 3, 3)),
])
def test_block__divides_and_is_large_enough(shape: Any, name: str, block: Any) -> None:
    assert block_of(shape, name) == block


@pytest.mark.parametrize("name", ["int8", "int4"])
@pytest.mark.parametrize("layer", [nn.Linear(96, 6), nn.Linear(34, 6), Conv1D(6, 64), nn.Conv2d(64, 6, 1),
                                   nn.Conv2d(6, 6, 3, groups=6)], ids=repr)
def test_integers__are_those_of_the_formula(layer: Any, name: str) -> None:
    """Symmetric: the largest of a group is 127.5 or 7.5 steps."""
    bits = int(name[-1])
    weight = (layer.weight.T if isinstance(layer, Conv1D) else layer.weight).detach()
    block = block_of(weight.shape, name)
    groups = weight.reshape(weight.shape[0], -1, block[1], *weight.shape[2:])
    inner = tuple(range(2, groups.ndim))
    scale = groups.abs().amax(inner, keepdim=True) / ((2**bits - 1) / 2)
    integers = (groups * (1 / scale)).round().clamp(-2 ** (bits - 1), 2 ** (bits - 1) - 1)
    found = quantized.as_integers(layer, name)
    torch.testing.assert_close(found.dequantize(), (integers * scale).reshape(weight.shape), rtol=1e-6, atol=0)
    assert torch.equal(found.qdata, integers.reshape(weight.shape).to(torch.int8))


@pytest.mark.parametrize("layer", [nn.Linear(96, 6), Conv1D(6, 64), nn.Conv2d(64, 6, 3, padding=1)], ids=repr)
def test_layer__computes_with_the_integers_and_has_its_own_weight_back(layer: Any) -> None:
    given = torch.randn(2, 64, 5, 5) if isinstance(layer, nn.Conv2d) else torch.randn(2, layer.weight.numel() // 6)
    plain, own, methods = layer(given), layer.weight, dict(vars(layer))
    other = copy.deepcopy(layer)
    integers = quantized.as_integers(layer, "int4").dequantize()
    other.weight.data = integers.T.contiguous() if isinstance(layer, Conv1D) else integers
    with quantized.held_as([layer], "int4"):
        torch.testing.assert_close(layer(given), other(given))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(given).dtype == torch.bfloat16
    assert layer.weight is own and torch.equal(layer(given), plain) and vars(layer).keys() == methods.keys()
    with pytest.raises(RuntimeError), quantized.held_as([layer], "int8"):
        raise RuntimeError
    assert layer.weight is own


def in_order(model: nn.Module, data: Any) -> torch.Tensor:
    """Probabilities of the test examples, in their order."""
    scores = torch.zeros(len(data.splits["test"]), 2)
    with torch.no_grad():
        for batch in data.eval_loader("test"):
            scores[batch["index"]] = model(batch).softmax(dim=-1)
    return scores


@pytest.mark.parametrize("technique", [FullFineTuning(lr=1e-2), LoRA(lr=1e-1), BottleneckAdapter(lr=1e-2)],
                         ids=lambda technique: type(technique).__name__)
def test_run__is_measured_as_a_plain_loop_over_torchaos_model(technique: Any, make: Make, tmp_path: Path) -> None:
    run, texts = make(technique), []
    found = execute(run, lambda event: texts.append(event.get("text")))
    model, data = run.technique.model.eval(), run.data
    layers = [name for name, layer in model.named_modules() if type(layer) is nn.Linear and "encoder.layer" in name
              and not any(part in name for part in ("lora_", "adapter"))]
    assert len(layers) == len(model.quantizable) == 18
    for name in run.quantized:
        other = copy.deepcopy(model)
        for path in layers:
            layer = model.get_submodule(path)
            config = torchao.IntxWeightOnlyConfig(getattr(torch, name), torchao.PerAxis(0) if name == "int8"
                                                  else torchao.PerGroup({32: 32, 48: 24}[layer.in_features]))
            torchao.quantize_(other.get_submodule(path), config)
        scores = in_order(other, data)
        records = pq.read_table(run.directory / "predictions" / f"test.{name}.parquet").to_pydict()
        torch.testing.assert_close(torch.tensor(records["scores"]), scores, rtol=1e-5, atol=1e-6)
        right = (scores.argmax(1) == torch.tensor(data.splits["test"].targets)).double().mean()
        assert found[f"test.{name}/accuracy"] == pytest.approx(float(right))
        assert found[f"test.{name}/loss"] != found["test/loss"]
        assert found[f"cost/latency_{name}_seconds"] > 0
    plain = pq.read_table(run.directory / "predictions" / "test.parquet").to_pydict()
    # the model itself is what it was
    torch.testing.assert_close(torch.tensor(plain["scores"]), in_order(model, data), rtol=1e-5, atol=1e-6)
    merged = isinstance(technique, LoRA)
    assert any(text and text.startswith("int4: 18 layers of the blocks, ")
               and f"the {'merged ' * merged}model's" in text for text in texts)
    check_files(run, found, merged, tmp_path / "model.safetensors")


def check_files(run: Run, found: dict[str, float], merged: bool, file: Path) -> None:
    """Hold bytes on disk to real files, in which two integers of 4 bits share a byte."""
    model = run.technique.model
    for name in ("", *run.quantized):
        layers = model.quantizable if name else []
        tensors: dict[str, torch.Tensor] = {}
        with quantized.held_as(layers, name):
            for path, tensor in model.state_dict(keep_vars=True).items():
                if merged and ".lora_" in path:
                    continue  # it is in the weights
                if (integers := getattr(tensor, "qdata", None)) is None:
                    tensors[path] = tensor.detach().contiguous()
                    continue
                flat = integers.flatten()
                if name == "int4":
                    flat = ((flat[0::2] & 15) | (flat[1::2] << 4)).to(torch.int8)
                tensors |= {path: flat, f"{path}_scale": tensor.scale.contiguous()}
                if name == "int4":  # nothing is lost in it
                    assert torch.equal(torch.stack([flat << 4 >> 4, flat >> 4], 1).flatten(), integers.flatten())
        save_file(tensors, file)
        (header,) = struct.unpack("<Q", file.read_bytes()[:8])
        assert json.loads(file.read_bytes()[8:8 + header]) and len(load_file(file)) == len(tensors)
        assert found[f"cost/disk_{name + '_' if name else ''}bytes"] == file.stat().st_size - 8 - header


def test_tied_weights__count_once_and_stay(make: Make) -> None:
    run = make(Untuned(), "causal_lm")
    metrics = execute(run, silent)
    model = run.technique.model
    assert metrics["cost/disk_bytes"] == sum(p.numel() * p.element_size() for p in model.parameters())
    tied = model.network.get_output_embeddings().weight
    assert all(layer.weight is not tied for layer in model.quantizable) and len(model.quantizable) > 0


def test_layers__whose_inputs_have_no_group_stay_and_are_named() -> None:
    odd, even = nn.Linear(37, 8), nn.Linear(32, 8)
    quantized.check(["int8", "int4"], [odd, even])
    model = nn.Sequential(odd, even)
    model.quantizable = [odd, even]  # type: ignore[assignment]  # as TaskModel's
    text = quantized._note("int4", model, [even], [odd, even], False)  # type: ignore[arg-type]
    assert text.startswith("int4: 1 of 2 layers of the blocks, 45% of the model's parameters, are quantised; ")
    assert text.endswith("all else stays as it is, 0 for want of a group of inputs that divides theirs")
    with pytest.raises(Incompatible, match=r"int4 finds nothing .* no layer a group of inputs") as caught:
        quantized.check(["int8", "int4"], [odd])
    assert caught.value.mend == "leave int4 out of quantized"
    with pytest.raises(Incompatible, match="no linear layer and no convolution of plain weights"):
        quantized.check(["int8"], [])


def test_bfloat16__is_quantised_from_its_own_weights(make: Make) -> None:
    run = make(FullFineTuning(), precision="bf16-true")
    found = execute(run, silent)
    assert found["cost/disk_int8_bytes"] < found["cost/disk_bytes"] and found["test.int8/loss"] > 0
    assert quantized.as_integers(run.technique.model.quantizable[0], "int8").scale.dtype == torch.bfloat16


def test_variant_of_the_same_name__is_refused(make: Make) -> None:
    class Named(FullFineTuning):
        def variants(self, model: Any) -> dict[str, Any]:
            return {"int8": torch.no_grad()}

    with pytest.raises(InputError, match="int8 is a test set or in quantized"):
        execute(make(Named()), silent)


@pytest.mark.parametrize(("name", "world"), [
    pytest.param(name, world, marks=() if (name, world) == ("LoRA", "image_classification") else pytest.mark.slow)
    for name in TECHNIQUES for world in tried(name)])
def test_every_technique__is_measured_quantised(name: str, world: str, make: Make,
                                                request: pytest.FixtureRequest) -> None:
    if refusal(name, make_world(world, request.getfixturevalue)) is not None:
        pytest.skip("the technique refuses the world")
    found = execute(make(make_technique(name), world, max_epochs=3), silent)
    assert found["cost/disk_int4_bytes"] < found["cost/disk_int8_bytes"] < found["cost/disk_bytes"]
    assert found["test.int8/loss"] == pytest.approx(found["test/loss"], rel=0.5)
