"""The classifier that a checkpoint ships, in whose place a task's new head stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import is_zipfile

import torch
from safetensors import safe_open
from torch import Tensor

from ftlab.backbones.source import DAMAGED_WEIGHTS, reason
from ftlab.errors import Incompatible, InputError

_LEAVE = "scores of the checkpoint's own classes are not to be had of it; take those of features"


@dataclass(frozen=True)
class SourceLayer:
    """A linear classifier of a checkpoint's own classes, on the features that a new head reads.

    Attributes:
        weight: (classes, D).
        bias: (classes,); None where it has none.
    """

    weight: Tensor
    bias: Tensor | None

    def probabilities(self, features: Tensor) -> Tensor:
        """Probability of each class of the checkpoint, (N, classes), in float64."""
        outputs = features.double() @ self.weight.double().T.to(features.device)
        if self.bias is not None:
            outputs = outputs + self.bias.double().to(features.device)
        return outputs.softmax(dim=1)


def source_layer(tensors: Mapping[str, Tensor], path: str, label: str) -> SourceLayer:
    """The classifier among a checkpoint's tensors.

    Args:
        tensors: of the checkpoint, or some of them.
        path: of the layer in the network.
        label: what messages call the backbone.

    Raises:
        Incompatible: there is none, it is not a linear layer, or of fewer than two classes.
    """
    weight = tensors.get(f"{path}.weight")
    if weight is None:
        raise lacking(f"{label}: the checkpoint has no classifier")
    if weight.ndim != 2:
        raise lacking(f"{label}: the checkpoint's classifier is not a linear layer")
    if len(weight) < 2:
        raise lacking(f"{label}: the checkpoint's output layer has one output, and no classes")
    return SourceLayer(weight, tensors.get(f"{path}.bias"))


def lacking(what: str) -> Incompatible:
    """The error of a backbone without a classifier of its own, with the way to do without."""
    return Incompatible(what, _LEAVE)


def read_tensors(files: Sequence[Path], names: Sequence[str], label: str) -> dict[str, Tensor]:
    """Some tensors of the weight files in Hugging Face's layout; those that they lack are left out.

    Raises:
        InputError: a file is damaged.
    """
    found: dict[str, Tensor] = {}
    for file in files:
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, "pt") as stored:
                    found |= {name: stored.get_tensor(name)
                              for name in names if name in stored.keys()}  # noqa: SIM118
            else:
                state = torch.load(file, map_location="cpu", weights_only=True,
                                   mmap=is_zipfile(file))
                found |= {name: state[name] for name in names if name in state}
        except DAMAGED_WEIGHTS as error:
            raise InputError(f"{label}: {file} cannot be read: {reason(error)}",
                             "get the file again") from error
    return found
