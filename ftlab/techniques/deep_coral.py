from __future__ import annotations

from torch import Tensor

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.tasks.base import Task
from ftlab.tasks.losses.base import at_least_float32
from ftlab.techniques.base import LogUniform, Technique
from ftlab.techniques.domain_features import (
    of_both,
    require_features,
    require_several,
    require_vectors,
)
from ftlab.techniques.wrapper import MOVES, READS_STREAM, Wrapper


class DeepCORAL(Wrapper):
    """Make the features of two domains vary alike, the other one without labels (a wrapper).

    It adds strength * |C_s - C_t|^2 / (4 d^2), where C_s and C_t are the covariances (d, d) of the
    features that the head reads of the batch and of a stream's examples; the paper takes the last
    layer's outputs, which differ by task. Take it where labels are
    of one domain and the model is for another; it asks for no further network and is steady.

    Sun, Saenko (2016), https://arxiv.org/abs/1607.01719

    Args:
        technique: what adapts the model.
        stream: name of the data set's stream (`beside`) of the other domain's examples.
        strength: of what is added (lambda in the paper), 0 or more; 0 is plain training.
    """

    search_space = {"strength": LogUniform(1e-1, 1e3)}
    of_training = True
    does = frozenset({READS_STREAM})
    never_around = frozenset({MOVES})
    single_batches = True

    def __init__(self, technique: Technique, stream: str = "target", strength: float = 1.0) -> None:
        super().__init__(technique)
        if strength < 0:
            raise ValueError(f"strength must be 0 or more, got {strength}")
        self.stream, self.strength = stream, strength
        self.streams = self.streams | {stream}

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)
        require_vectors(data, "DeepCORAL")
        require_several(data, "DeepCORAL", self.stream)

    def adapt(self, model: TaskModel) -> None:
        self.technique.adapt(model)
        require_features(model, "DeepCORAL")

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        if not self.strength:
            return self.technique.objective(model, task, batch)
        loss, own, other = of_both(self.technique, model, task, batch, self.stream)
        if min(len(own.features), len(other.features)) < 2:  # one example does not vary
            return loss
        return loss + self.strength * distance(own.features, other.features)


def distance(features: Tensor, others: Tensor) -> Tensor:
    """Squared Frobenius distance of two covariances over 4 d^2.

    Args:
        features: (B, d), two examples at least.
        others: (B', d), likewise.
    """
    one, two = (at_least_float32(x).T.cov(correction=1) for x in (features, others))
    return (one - two).square().sum() / (4 * features.shape[1] ** 2)
