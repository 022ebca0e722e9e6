from __future__ import annotations

import math
import re
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.techniques.base import (
    Choice,
    LogUniform,
    Optimization,
    Technique,
    freeze_all_but_head,
    is_norm,
)
from ftlab.techniques.single_precision import added_dtype

_CLASS_TOKEN = re.compile(r"(cls|class)_(token|embedding)$")
# these count on where a token is, or on how many there are
_PLACED = re.compile(r"relative_position|rel_pos|rope|rotary|window|detection_tokens",
                     re.IGNORECASE)


class VisualPromptTuning(Technique):
    """Train tokens put between a vision transformer's class token and its patches, and the head.

    Deep: each layer has tokens of its own, which take the place of those that the layer before
    gave. Shallow: those of the first layer pass through all. After the last layer they are taken
    out, so that pooling does not see them. Take it to keep one backbone for many tasks, with a
    few thousand numbers for each; a step costs as much as one of full fine-tuning.

    Jia, Tang, Chen, Cardie, Belongie, Hariharan, Lim (2022), https://arxiv.org/abs/2203.12119

    Args:
        tokens: how many prompts a layer; the paper tries 1 to 200.
        deep: give each layer prompts of its own, the paper's better variant.
        last: let prompts enter at the last so many layers alone, so that the blocks before them
            can be computed once; None for all layers.
        lr: peak learning rate; the paper's, for SGD, is 0.1 to 50 times batch size / 256.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-3, 1e-1), "tokens": Choice((5, 10, 50, 100))}
    identity_at_start = False  # the patches attend to random tokens

    def __init__(
        self,
        tokens: int = 10,
        deep: bool = True,
        last: int | None = None,
        lr: float = 1e-2,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__(lr, optim)
        if tokens < 1:
            raise ValueError(f"tokens must be at least 1, got {tokens}")
        if last is not None and last < 1:
            raise ValueError(f"last must be at least 1, got {last}")
        self.tokens, self.deep, self.last = tokens, deep, last

    def adapt(self, model: TaskModel) -> None:
        layers, like, patch = vision_transformer(model, "VisualPromptTuning")
        if self.last is not None and self.last > len(layers):
            raise Incompatible(
                f"VisualPromptTuning(last={self.last}): the model has {len(layers)} layers",
                "choose a smaller `last`, or null for all")
        freeze_all_but_head(model)
        chosen = layers[-self.last if self.last else 0 :]
        bound = math.sqrt(6 / (patch + like.shape[-1]))  # Xavier's, of a patch's pixels to a token
        for layer in chosen if self.deep else chosen[:1]:
            prompts = nn.Parameter(like.new_empty(self.tokens, like.shape[-1],
                                                  dtype=added_dtype(like)))
            nn.init.uniform_(prompts, -bound, bound)
            layer.register_parameter("prompts", prompts)  # a part of the block that it changes
            layer.register_forward_pre_hook(
                partial(_put, replaced=0 if layer is chosen[0] else self.tokens), with_kwargs=True)
        layers[-1].register_forward_hook(partial(_remove, tokens=self.tokens))


def vision_transformer(model: TaskModel, technique: str) -> tuple[list[nn.Module], Tensor, int]:
    """Find a vision transformer's layers, whose inputs are tokens (B, 1 + patches, D).

    Returns:
        The layers; a tensor of width D with their device and dtype; numbers in a patch.

    Raises:
        Incompatible: its blocks pass something else on, or count the tokens.
    """
    first, *rest = model.blocks
    layers = [model.get_submodule(block.paths[0]) for block in rest]
    stem = [m for _, m in first.named_modules() if isinstance(m, nn.Conv2d)]
    token = [p for name, p in first.named_parameters() if _CLASS_TOKEN.search(name)]
    names = [name for part in model.blocks for found in (part.named_modules(), part.named_parameters())
             for name, _ in found]
    buffers = [name for name, _ in model.named_buffers()]
    widths = {p.shape for layer in layers for m in layer.children() if is_norm(m)
              for p in m.parameters(recurse=False)}
    if not (stem and token and layers and widths == {token[0].shape[-1:]}
            and len({type(layer) for layer in layers}) == 1
            and not any(map(_PLACED.search, names + buffers))):
        raise Incompatible(
            f"{technique} puts tokens behind the class token of a vision transformer whose blocks "
            f"pass (B, tokens, D) on, and {type(model.trunk).__name__} is not such a network",
            "take LoRA or BottleneckAdapter for it")
    return layers, token[0].detach(), stem[0].weight[0].numel()


def _put(
    layer: Any, args: tuple[Any, ...], named: dict[str, Any], replaced: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put the layer's prompts behind the class token, in the place of so many others."""
    tokens = args[0] if args else named["hidden_states"]
    prompts = layer.prompts.to(tokens.dtype).expand(len(tokens), -1, -1)
    tokens = torch.cat([tokens[:, :1], prompts, tokens[:, 1 + replaced :]], dim=1)
    return ((tokens, *args[1:]), named) if args else (args, {**named, "hidden_states": tokens})


def _remove(layer: nn.Module, args: tuple[Any, ...], output: Any, tokens: int) -> Any:
    whole = output[0] if isinstance(output, tuple) else output
    patches = torch.cat([whole[:, :1], whole[:, 1 + tokens :]], dim=1)
    return (patches, *output[1:]) if isinstance(output, tuple) else patches
