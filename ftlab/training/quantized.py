"""A finished model measured again with its weights as integers: score, size on disk, latency."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from lightning import Trainer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from ftlab.backbones.block import lies_below
from ftlab.backbones.task_model import TaskModel
from ftlab.data.examples import NAMED
from ftlab.errors import Incompatible, InputError
from ftlab.techniques.peft_injection import adaptable_layers
from ftlab.training import costs
from ftlab.training.evaluate import measure_variant, placing
from ftlab.training.event_log import Report
from ftlab.training.integer_weights import BITS, block_of
from ftlab.training.run import Run
from ftlab.wording import counted, listed

if TYPE_CHECKING:
    from torchao.quantization import IntxUnpackedToInt8Tensor

PACKAGE = "torchao"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHOWN = 3
"""Layers that are named in a note."""


def check_installed() -> None:
    """Refuse where torchao is not installed.

    Raises:
        InputError: it is not.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise InputError(f"quantized: int8 and int4 weights are {PACKAGE}'s, which is not installed",
                         'pip install "ftlab[quantized]", or leave out quantized')


def layers(model: TaskModel) -> list[nn.Module]:
    """The linear layers and convolutions of the blocks, as the backbone brings them.

    Head, embeddings, norms and biases stay as they are: they are small, or looked up and not
    multiplied. So does an output layer tied to the embedding, which would be stored twice, and
    what a network reads without calling its layer.

    Args:
        model: before it is adapted, so that nothing is in it that a technique adds.
    """
    return [layer for layer in adaptable_layers(model, grouped=True).values()
            if type(layer.weight) is nn.Parameter and layer.weight.dtype in DTYPES]


def check(names: Sequence[str], chosen: Sequence[nn.Module]) -> None:
    """Refuse a network with nothing to quantise.

    Args:
        names: of BITS.
        chosen: from `layers`.

    Raises:
        Incompatible: it has no such layer.
    """
    for name in names:
        if not any(block_of(_shape(layer), name) for layer in chosen):
            why = ("no linear layer and no convolution of plain weights in its blocks" if not chosen
                   else "in no layer a group of inputs that divides them")
            raise Incompatible(f"quantized: {name} finds nothing in this network to quantise: {why}",
                               f"leave {name} out of quantized")


@torch.no_grad()
def measure(run: Run, trainer: Trainer, merged: bool, report: Report) -> dict[str, float]:
    """Measure the model on the test split once for each name of `run.quantized`.

    What is quantised is what one would ship: an adapter that merges is merged, and any other stays
    as it is beside quantised layers of the backbone. Each layer has its own weight back afterwards.

    Args:
        run: finished and measured; its model is merged if it ever is.
        trainer: of the run.
        merged: whether the technique has folded itself into the weights.
        report: takes the events.

    Returns:
        `test.NAME/...` as of any variant, `cost/disk_NAME_bytes`, `cost/latency_NAME_seconds`, and
        `cost/disk_bytes` of the model itself.
    """
    device, context = trainer.strategy.root_device, trainer.precision_plugin.forward_context
    model, task = run.technique.model.to(device).eval(), run.data.task
    here = {id(module) for module in model.modules()}
    chosen = [layer for layer in model.quantizable if id(layer) in here]
    check(run.quantized, chosen)
    batch = placing(trainer, device)(next(iter(run.data.test_dataloader())))
    one = costs.without_target(costs.first_examples(batch, 1))
    results: dict[str, float] = {"cost/disk_bytes": disk_bytes(model, merged)}
    for name in run.quantized:
        fitting = fitting_layers(chosen, name)
        report({"event": "note", "text": _note(name, model, fitting, chosen, merged)})
        with held_as(fitting, name):
            scores = measure_variant(run, model, trainer, name, report)
            results |= {f"{NAMED}{name}/{metric}": value for metric, value in scores.items()}
            results[f"cost/disk_{name}_bytes"] = disk_bytes(model, merged)
            results[f"cost/latency_{name}_seconds"] = costs.latency(task, model, one, context)
    return results


def fitting_layers(chosen: Sequence[Any], name: str) -> list[Any]:
    """The layers whose inputs divide into groups of what `name` quantises together."""
    return [layer for layer in chosen if block_of(_shape(layer), name)]


@contextmanager
def held_as(chosen: Sequence[Any], name: str) -> Iterator[None]:
    """Within it the layers compute with quantised weights.

    The weights are torchao's: symmetric, a scale for each `block_of` them, unpacked for each product,
    so that CPUs and GPUs give the same.

    Args:
        chosen: layers, each with a `block_of` that name.
        name: of BITS.
    """
    kept: list[tuple[Any, nn.Parameter]] = []
    try:
        for layer in chosen:
            integers = nn.Parameter(as_integers(layer, name), requires_grad=False)
            kept.append((layer, layer.weight))
            layer.weight = integers
            if isinstance(layer, Conv1D):  # its own product takes the weight the other way round
                vars(layer)["forward"] = partial(_linear, layer)
        yield
    finally:
        for layer, weight in kept:
            layer.weight = weight
            if isinstance(layer, Conv1D):
                del vars(layer)["forward"]


def as_integers(layer: Any, name: str) -> IntxUnpackedToInt8Tensor:
    """The weight of a layer as integers (outputs, inputs, ...), with their scales.

    Args:
        layer: with a `block_of` that name.
        name: of BITS.
    """
    from torchao.quantization import IntxUnpackedToInt8Tensor  # takes seconds to import

    block = block_of(_shape(layer), name)
    assert block is not None
    weight = layer.weight.detach()
    weight = weight.T.contiguous() if isinstance(layer, Conv1D) else weight
    return IntxUnpackedToInt8Tensor.from_hp(weight, block, getattr(torch, name))


def disk_bytes(model: TaskModel, merged: bool) -> int:
    """Bytes of the tensors in a file of the model: integers packed, with their scales.

    Args:
        model: as it is shipped.
        merged: whether PEFT's layers are folded into those that they adapt, and not written.
    """
    return sum(map(_bytes, _shipped(model, merged)))


def _shipped(model: TaskModel, merged: bool) -> list[Tensor]:
    """The tensors of a model's file, each once."""
    folded = [name for name, module in model.named_modules()
              if merged and isinstance(module, BaseTunerLayer)]
    inner = [f"{name}.base_layer" for name in folded]
    return list({_place(tensor): tensor for name, tensor in model.state_dict(keep_vars=True).items()
                 if not lies_below(name, folded) or lies_below(name, inner)}.values())


def _place(tensor: Any) -> Any:
    """Where a tensor lies, so that tied ones count once."""
    data = getattr(tensor, "qdata", tensor)
    return data.data_ptr(), data.shape, data.dtype


def _bytes(tensor: Any) -> int:
    if not hasattr(tensor, "qdata"):
        return int(tensor.numel() * tensor.element_size())
    bits = BITS[str(tensor.target_dtype).removeprefix("torch.")]
    # zero points are all zero, and not written
    return math.ceil(tensor.numel() * bits / 8) + int(tensor.scale.numel() * tensor.scale.element_size())


def _shape(layer: Any) -> tuple[int, ...]:
    """Outputs, inputs, and of a convolution its kernel."""
    return tuple(layer.weight.shape[::-1] if isinstance(layer, Conv1D) else layer.weight.shape)


def _linear(layer: Any, given: Tensor) -> Tensor:
    return functional.linear(given, layer.weight, layer.bias)


def _note(name: str, model: TaskModel, fitting: Sequence[Any], chosen: Sequence[Any],
          merged: bool) -> str:
    """Say how much of the model is quantised, and which layers are not."""
    share = (sum(layer.weight.numel() for layer in fitting)
             / sum(tensor.numel() for tensor in _shipped(model, merged)))
    layers = counted(len(model.quantizable), "layer")
    some = layers if len(fitting) == len(model.quantizable) else f"{len(fitting)} of {layers}"
    text = (f"{name}: {some} of the blocks, {share:.0%} of the {'merged ' if merged else ''}"
            "model's parameters, are quantised; all else stays as it is")
    left = [layer for layer in chosen if layer not in fitting]
    if not left:
        return text
    names = [path for path, module in model.named_modules() if any(module is layer for layer in left)]
    shown = names[:SHOWN] + ([f"{len(names) - SHOWN} others"] if len(names) > SHOWN else [])
    return f"{text}, {listed(shown)} for want of a group of inputs that divides theirs"
