"""One vector an example, from a new head: the architecture's own, or linear on pooled features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import nn

from ftlab.backbones.base import TaskSpec
from ftlab.backbones.block import lies_below
from ftlab.backbones.find_blocks import find_blocks, with_dropout
from ftlab.backbones.load_pretrained import Checkpoint
from ftlab.backbones.pooling import PooledHead, Pooling
from ftlab.backbones.source_layer import read_tensors
from ftlab.backbones.task_model import LogitsModel, TaskModel
from ftlab.errors import Incompatible


def build_vector(checkpoint: Checkpoint, task: TaskSpec, pooling: Pooling | None,
                 head_dropout: float) -> TaskModel:
    """Build the model of a task whose output type is `vector`.

    Args:
        checkpoint: the network.
        task: its Auto classes and the width of its head.
        pooling: of features for a linear head; None for the architecture's own head, or, where
            transformers has none, `mean`.
        head_dropout: of a linear head on pooled features.
    """
    auto = checkpoint.own_class(task.auto_classes)
    if pooling is None and auto is not None:
        return with_own_head(checkpoint, auto, task.outputs)
    return _with_pooled_head(checkpoint, task.outputs, pooling or "mean", head_dropout)


def with_own_head(checkpoint: Checkpoint, auto: Any, outputs: int,
                  model: type[TaskModel] = LogitsModel) -> TaskModel:
    """The architecture's own classification network, its head renewed."""
    checkpoint.config.num_labels = outputs
    network = checkpoint.network(auto, new=head_paths)
    head = head_paths(network)
    if not checkpoint.meta:
        for path in head:
            renew(network, path)
    head = with_dropout(network, head)
    return model(network, find_blocks(network, head), head)


def headless(checkpoint: Checkpoint) -> nn.Module:
    """The bare network, whose features can be pooled."""
    return checkpoint.network(_headless_class(checkpoint.config, checkpoint.label))


def _with_pooled_head(checkpoint: Checkpoint, outputs: int, mode: Pooling,
                      head_dropout: float) -> TaskModel:
    width = feature_width(checkpoint.config, checkpoint.label)
    network = headless(checkpoint)
    with torch.device("meta" if checkpoint.meta else "cpu"):
        head = PooledHead(width, outputs, mode, head_dropout)
    return TaskModel(network, find_blocks(network, ()), pooled_head=head.to(checkpoint.dtype))


def _headless_class(config: Any, label: str) -> Any:
    """The Auto class of the bare network; of an encoder-decoder, its encoder."""
    encoder_only = getattr(config, "is_encoder_decoder", False)
    auto: Any = transformers.AutoModelForTextEncoding if encoder_only else transformers.AutoModel
    if type(config) not in auto._model_mapping:
        raise Incompatible(f"{label}: transformers has no headless network for "
                           f"{config.model_type} whose features could be pooled",
                           "set pooling: own")
    return auto


def head_paths(network: nn.Module) -> list[str]:
    """The parts of a classification class beside its base model, which is the largest child."""
    sizes = {name: sum(p.numel() for p in child.parameters())
             for name, child in network.named_children()}
    base = getattr(network, "base_model_prefix", "")
    base = base if base in sizes else max(sizes, key=lambda name: sizes[name])
    return [name for name, size in sizes.items() if name != base and size]


def renew(network: Any, path: str) -> None:
    """Initialise a part as its architecture does, from torch's generator; tied tensors stay."""
    part = network.get_submodule(path)
    tied = {id(p) for name, p in network.named_parameters() if not lies_below(name, [path])}
    for tensor in (*part.parameters(), *part.buffers()):
        tensor._is_hf_initialized = id(tensor) in tied  # else transformers keeps what was loaded
    with torch.no_grad():
        part.apply(network._init_weights)


def ships_head(checkpoint: Checkpoint, network: nn.Module, head: Sequence[str]) -> bool:
    """Return whether the checkpoint has the matrices of the head."""
    own = {name: p for name, p in network.named_parameters() if lies_below(name, head)}
    wanted = [name for name, p in own.items() if p.ndim > 1] or list(own)
    files = checkpoint.weights()
    found = read_tensors(files, wanted, checkpoint.label)
    return all(name in found and found[name].shape == own[name].shape for name in wanted)


def feature_width(config: Any, label: str) -> int:
    """The width of the features that the headless network returns."""
    for name in ("hidden_size", "d_model", "hidden_dim"):
        if isinstance(width := getattr(config, name, None), int):
            return width
    if isinstance(widths := getattr(config, "hidden_sizes", None), list | tuple):
        return int(widths[-1])
    raise Incompatible(f"{label}: {config.model_type} does not say how wide its features are",
                       "set pooling: own")
