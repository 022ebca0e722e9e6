"""One vector a pixel, from a segmentation network of transformers whose last layer is new."""

from __future__ import annotations

from torch import nn

from ftlab.backbones.base import TaskSpec
from ftlab.backbones.find_blocks import find_blocks, with_dropout
from ftlab.backbones.heads.detection import class_predictors
from ftlab.backbones.heads.pooled import renew
from ftlab.backbones.load_pretrained import Checkpoint
from ftlab.backbones.task_model import LogitsModel, TaskModel
from ftlab.errors import Incompatible


def build_pixels(checkpoint: Checkpoint, task: TaskSpec) -> TaskModel:
    """Build the model of a task whose output type is `pixels`: logits (B, C, h, w).

    Where the checkpoint is of a network that segments, the last layer of its decoder alone is the
    new head, and the rest of the decoder the last block. Where it is not (a SegFormer of ImageNet),
    the whole decoder is the head. An auxiliary head, which only a loss of transformers'
    own would read, is left out.

    Raises:
        Incompatible: transformers has no such network of the architecture.
    """
    auto = checkpoint.own_class(task.auto_classes)
    if auto is None:
        raise Incompatible(f"{checkpoint.label}: transformers has no {checkpoint.config.model_type} "
                           "that segments images",
                           "choose SegFormer, UperNet, BEiT or DPT, or a TorchvisionSegmenter")
    config = checkpoint.config
    if hasattr(config, "use_auxiliary_head"):
        config.use_auxiliary_head = False
    config.num_labels = task.outputs
    predictors = class_predictors(auto, config, checkpoint.dtype)
    # said by the class that wrote it: names of tensors in old files are not the network's
    trained = auto._model_mapping[type(config)].__name__ in (config.architectures or ())
    network = checkpoint.network(auto, new=lambda built: predictors if trained else decoder_paths(built))
    decoder = decoder_paths(network)
    head = predictors if trained else decoder
    if not checkpoint.meta:
        for path in head:
            renew(network, path)
    blocks = find_blocks(network, decoder)
    if trained:
        return LogitsModel(network, [*blocks, ("decoder", decoder)], with_dropout(network, predictors))
    return LogitsModel(network, blocks, decoder)


def decoder_paths(network: nn.Module) -> list[str]:
    """The parts of a segmentation network beside its encoder that have parameters."""
    base = getattr(network, "base_model_prefix", "") or "backbone"  # UperNet's has no prefix
    return [name for name, child in network.named_children()
            if name != base and any(True for _ in child.parameters())]
