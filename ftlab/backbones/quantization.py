"""Bases in 4 or 8 bits a weight: which layers are quantised, what they take, what may be done to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ftlab.backbones.block import lies_below
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible, InputError

READS_WEIGHTS = ("MultiheadAttention", "ShiftedWindowAttention", "ShiftedWindowAttentionV2",
                 "WavLMAttention")
"""Modules that read the weights of their layers and never call them."""
_NAMES = ("Linear4bit", "Linear8bitLt", "Embedding8bit")


@dataclass(frozen=True)
class Quantization:
    """How the linear layers of a base's blocks are quantised, for `HuggingFace`; bitsandbytes does it.

    Output layers, norms, biases and the head stay in the backbone's dtype, and so do embeddings unless
    `embeddings` says otherwise. Weights are frozen: a technique adds to them (LoRA on nf4 is QLoRA) or leaves them alone.

    Dettmers, Pagnoni, Holtzman, Zettlemoyer (2023), https://arxiv.org/abs/2305.14314, of nf4; Dettmers,
    Lewis, Belkada, Zettlemoyer (2022), https://arxiv.org/abs/2208.07339, of int8's scales, here of
    weights alone.

    Args:
        quant_type: nf4 or fp4, 4 bits a weight and a scale for each 64; int8, and a scale for each
            output.
        double_quant: quantise the scales of nf4 and fp4 too, from 0.5 bits a weight to 0.13.
        embeddings: int8 holds the table of tokens' embeddings in 8 bits and a scale for each row, and with it
            the output layer that is tied to it; null leaves it.
    """

    quant_type: Literal["nf4", "fp4", "int8"]
    double_quant: bool = False
    embeddings: Literal["int8"] | None = None

    def __post_init__(self) -> None:
        if self.quant_type not in ("nf4", "fp4", "int8"):
            raise ValueError(f"quant_type must be nf4, fp4 or int8, got {self.quant_type!r}")
        if self.double_quant and self.quant_type == "int8":
            raise ValueError("double_quant is of nf4 and fp4; int8 has few scales")
        if self.embeddings not in (None, "int8"):
            raise ValueError(f"embeddings must be int8 or null, got {self.embeddings!r}")

    def apply(self, model: TaskModel, label: str) -> None:
        """Quantise a model's layers, in place.

        Args:
            model: with its weights, or on the meta device.
            label: whose, for messages.

        Raises:
            InputError: bitsandbytes is not installed.
            Incompatible: there is nothing to quantise, or most would stay as it is.
        """
        try:
            from ftlab.backbones.quantized.layers import Linear4bit, Linear8bitLt
        except ImportError as error:
            raise InputError(f"{label}: quantize needs bitsandbytes, which is not installed",
                             "pip install 'ftlab[quantized]', or leave quantize out") from error
        _check(model, label)
        for path, layer in quantizable(model).items():
            made: nn.Module = (
                Linear8bitLt(layer) if self.quant_type == "int8" else
                Linear4bit(layer, self.quant_type, self.double_quant)).train(layer.training)
            model.set_submodule(path, made)
        if self.embeddings is not None:
            _quantize_table(model, label)
        name = "is_loaded_in_8bit" if self.quant_type == "int8" else "is_loaded_in_4bit"
        setattr(model.network, name, True)  # by which PEFT knows such networks


def quantizable(model: TaskModel) -> dict[str, nn.Linear]:
    """Linear layers of the blocks, by path.

    Without the head, output layers and tied weights, those whose weights are read and never called, and
    those that transformers keeps in float32 (T5 converts what it multiplies to their dtype).
    """
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    held = [name for name, module in model.named_modules() if type(module).__name__ in READS_WEIGHTS]
    kept = {*(getattr(model.network, "_keep_in_fp32_modules", None) or ())}
    last = _output_layer(model)
    return {name: module for block in model.blocks for name, module in block.named_modules()
            if type(module) is nn.Linear and module is not last
            and uses[id(module.weight)] == 1 and not lies_below(name, held)
            and not kept & {*name.split(".")}}


def _quantize_table(model: TaskModel, label: str) -> None:
    """Quantise the table of tokens' embeddings by rows, and with it the output layer that is tied to it.

    Raises:
        Incompatible: there is none, or something else reads it or adds to it.
    """
    from ftlab.backbones.quantized.layers import Embedding8bit, Linear8bitLt

    network: Any = model.network
    try:
        table = network.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        table = None
    holders = {} if table is None else {
        name: module for name, module in model.named_modules()
        if getattr(module, "weight", None) is getattr(table, "weight", model)}
    mend = "leave embeddings out of quantize"
    if not isinstance(table, nn.Embedding):
        raise Incompatible(f"{label}: embeddings: int8 needs a network that reads tokens", mend)
    if model.new_ids:
        raise Incompatible(f"{label}: embeddings: int8 does not go with new_tokens, which train", mend)
    if odd := [f"{name} ({type(module).__name__})" for name, module in holders.items()
               if type(module) not in (nn.Embedding, nn.Linear)]:
        raise Incompatible(f"{label}: embeddings: int8 takes plain tables, and {odd[0]} does more than read", mend)
    made = Embedding8bit(table)
    for path, module in holders.items():
        layer: nn.Module = made if module is table else (
            Linear8bitLt(module, made.weight) if isinstance(module, nn.Linear) else Embedding8bit(table))
        if layer is not made:
            layer.weight = made.weight
        model.set_submodule(path, layer.train(module.training))


def _output_layer(model: TaskModel) -> Any:
    network: Any = model.network
    return network.get_output_embeddings() if hasattr(network, "get_output_embeddings") else None


def _check(model: TaskModel, label: str) -> None:
    """Refuse a network of which little would be quantised.

    Raises:
        Incompatible: it says what would stay.
    """
    weights = {id(layer.weight): layer.weight.numel() for layer in quantizable(model).values()}
    last = _output_layer(model)
    tables = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) or module is last
              for p in module.parameters()}
    left = {name: p.numel() for block in model.blocks for name, p in block.named_parameters()
            if p.ndim > 1 and id(p) not in tables | weights.keys()}
    kind = type(model.network).__name__
    mend = "leave quantize out, or take a network of linear layers"
    if not weights:
        raise Incompatible(f"{label}: quantize takes linear layers (nn.Linear), which the blocks of {kind} "
                           "do not have", mend)
    if sum(left.values()) > sum(weights.values()):
        some = sorted(left, key=lambda name: -left[name])[:2]
        raise Incompatible(f"{label}: quantize takes linear layers (nn.Linear), which hold the smaller part "
                           f"of {kind}: {', '.join(some)} would stay as they are", mend)


def is_quantized(layer: nn.Module) -> bool:
    """Return whether a layer's weights are quantised."""
    return type(layer).__name__ in _NAMES and hasattr(layer, "dequantized")


def quantized_layers(model: nn.Module) -> dict[str, Any]:
    """Quantised layers of a model, by path."""
    return {name: module for name, module in model.named_modules() if is_quantized(module)}


def logical_size(parameter: nn.Parameter) -> int:
    """Numbers that a parameter stands for: two of nf4 or fp4 lie in a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(state.shape.numel())


def weight_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters, scales of quantised ones too; on the meta device as foretold."""
    layers = {id(layer.weight): layer for layer in quantized_layers(model).values()}
    total = 0
    for parameter in model.parameters():
        layer = layers.get(id(parameter))
        total += (parameter.numel() * parameter.element_size() if layer is None
                  else _stored(layer, logical_size(parameter)))
    return total


def scales(model: nn.Module) -> Iterator[Tensor]:
    """Scales of quantised weights, which are no parameters."""
    seen: set[int] = set()
    for layer in quantized_layers(model).values():
        weight = layer.weight
        if id(weight) not in seen:
            seen.add(id(weight))
            state = getattr(weight, "quant_state", None)
            kept = (getattr(weight, "SCB", None), getattr(state, "absmax", None),
                    getattr(getattr(state, "state2", None), "absmax", None))
            yield from (tensor for tensor in kept if tensor is not None)


def hollow(model: nn.Module, make: Callable[[tuple[int, ...], torch.dtype], Tensor]) -> None:
    """Give quantised layers on the meta device tensors without numbers, of the bytes that they take."""
    made: dict[int, Any] = {}
    for layer in quantized_layers(model).values():
        before = layer.weight
        if not before.is_meta:
            continue
        if id(before) not in made:
            layer.hollow(make, _stored(layer, logical_size(before)))
            made[id(before)] = before, layer.weight
        layer.weight = made[id(before)][1]


def _stored(layer: Any, size: int) -> int:
    if type(layer).__name__ != "Linear4bit":
        return size + 4 * len(layer.weight)
    scales = -(-size // layer.weight.blocksize)
    nested = layer.weight.compress_statistics
    return -(-size // 2) + (scales + 4 * -(-scales // 256) if nested else 4 * scales)


def dequantize(model: TaskModel) -> None:
    """Put layers in floating point in the place of quantised ones, which compute the same; ties stay."""
    made: dict[int, tuple[Any, nn.Parameter]] = {}
    for path, layer in quantized_layers(model).items():
        plain: nn.Embedding | nn.Linear
        if isinstance(layer, nn.Embedding):
            plain = nn.Embedding(layer.num_embeddings, layer.embedding_dim, layer.padding_idx, device="meta")
        else:
            plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
            plain.bias = layer.bias
        if id(layer.weight) not in made:
            made[id(layer.weight)] = layer.weight, nn.Parameter(layer.dequantized())
        plain.weight = made[id(layer.weight)][1]
        model.set_submodule(path, plain.train(layer.training))
    for name in ("is_loaded_in_8bit", "is_loaded_in_4bit"):
        if hasattr(model.network, name):
            delattr(model.network, name)


@contextmanager
def kept_frozen(model: nn.Module, technique: str) -> Iterator[None]:
    """Refuse a technique that lets quantised weights train within.

    Raises:
        Incompatible: it does; they are integers, in which steps of a usual rate are lost.
    """
    layers = quantized_layers(model)
    refusal = Incompatible(
        f"{technique} trains weights of the backbone, and these are quantised: they are integers, "
        "which have no gradient", "leave quantize out, or take a technique that adds to frozen "
        "weights (LoRA)")
    try:
        yield
    except RuntimeError as error:
        if layers and "floating point" in str(error):
            raise refusal from error
        raise
    if any(layer.weight.requires_grad for layer in layers.values()):  # on the meta device
        raise refusal
