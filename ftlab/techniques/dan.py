from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.tasks.base import Task
from ftlab.techniques.base import LogUniform, Technique
from ftlab.techniques.domain_features import (
    halves,
    of_both,
    require_features,
    require_several,
    require_vectors,
)
from ftlab.techniques.wrapper import MOVES, READS_STREAM, Wrapper


class DAN(Wrapper):
    """Make the features of two domains alike in every moment, the other one unlabelled (a wrapper).

    Deep adaptation adds strength times the squared maximum mean discrepancy (MK-MMD) of the batch's
    features and a stream's, the unbiased estimate, which may be negative, with the mean of Gaussian
    kernels of variance a times the mean squared distance. The paper chooses the kernels' weights
    and takes several layers; here they weigh the same, and the layer is the one that the head
    reads. Take it where labels are of one domain and the model is for another; batches of 32 or
    more estimate it well.

    Long, Cao, Wang, Jordan (2015), https://arxiv.org/abs/1502.02791

    Args:
        technique: what adapts the model.
        stream: name of the data set's stream (`beside`) of the other domain's examples.
        strength: of what is added, 0 or more; 0 is plain training.
        bandwidths: a of each kernel, above 0.
    """

    search_space = {"strength": LogUniform(1e-1, 1e2)}
    of_training = True
    does = frozenset({READS_STREAM})
    never_around = frozenset({MOVES})
    single_batches = True

    def __init__(self, technique: Technique, stream: str = "target", strength: float = 1.0,
                 bandwidths: tuple[float, ...] = (0.5, 1.0, 2.0)) -> None:
        super().__init__(technique)
        if strength < 0:
            raise ValueError(f"strength must be 0 or more, got {strength}")
        if not bandwidths or min(bandwidths) <= 0:
            raise ValueError("bandwidths must be numbers above 0, one at least, got "
                             f"{list(bandwidths)}")
        self.stream, self.strength, self.bandwidths = stream, strength, tuple(bandwidths)
        self.streams = self.streams | {stream}

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)
        require_vectors(data, "DAN")
        require_several(data, "DAN", self.stream)

    def adapt(self, model: TaskModel) -> None:
        self.technique.adapt(model)
        require_features(model, "DAN")

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        if not self.strength:
            return self.technique.objective(model, task, batch)
        loss, own, other = of_both(self.technique, model, task, batch, self.stream)
        one, two = halves(own.features, other.features)
        if len(one) < 2:  # a pair of one domain is wanted
            return loss
        return loss + self.strength * discrepancy(one, two, self.bandwidths)


def discrepancy(features: Tensor, others: Tensor, bandwidths: Sequence[float]) -> Tensor:
    """The unbiased estimate of the squared MMD of two samples.

    Args:
        features: (B, D), two examples at least.
        others: (B', D), likewise.
        bandwidths: variances of the Gaussian kernels over the mean squared distance of all pairs.
    """
    rows, both = len(features), torch.cat([features, others])
    squared = torch.cdist(both, both, compute_mode="donot_use_mm_for_euclid_dist").square()
    # all examples may be the same
    scale = squared.detach().mean().clamp(min=torch.finfo(squared.dtype).tiny)
    kernel = torch.stack([torch.exp(-squared / (2 * a * scale)) for a in bandwidths]).mean(dim=0)
    within = [_between_two(part) for part in (kernel[:rows, :rows], kernel[rows:, rows:])]
    return within[0] + within[1] - 2 * kernel[:rows, rows:].mean()


def _between_two(kernel: Tensor) -> Tensor:
    """Mean over pairs of different examples."""
    count = len(kernel)
    return (kernel.sum() - kernel.trace()) / (count * (count - 1))
