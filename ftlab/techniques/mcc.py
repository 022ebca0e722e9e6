from __future__ import annotations

import torch
from torch import Tensor

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.tasks.base import Task
from ftlab.tasks.losses.base import at_least_float32
from ftlab.techniques.base import LogUniform, Technique
from ftlab.techniques.domain_features import require_classes, require_several, unlabelled
from ftlab.techniques.wrapper import MOVES, READS_STREAM, Wrapper


class MCC(Wrapper):
    """Make the classes of another domain's unlabelled examples less confused (a wrapper).

    Minimum class confusion adds strength times the mean, over classes, of the share of a class's
    probability that the examples of a stream give to others, confident examples counting more.
    Take it where labels are of one domain and the model is for another: it trains nothing besides.

    Jin, Wang, Long, Wang (2020), https://arxiv.org/abs/1912.03699

    Args:
        technique: what adapts the model.
        stream: name of the data set's stream (`beside`) of the other domain's examples.
        strength: of what is added, 0 or more; 0 is plain training.
        temperature: divides their logits, above 0.
    """

    search_space = {"strength": LogUniform(1e-1, 10.0)}
    of_training = True
    does = frozenset({READS_STREAM})
    never_around = frozenset({MOVES})
    single_batches = True

    def __init__(self, technique: Technique, stream: str = "target", strength: float = 1.0,
                 temperature: float = 2.5) -> None:
        super().__init__(technique)
        if strength < 0:
            raise ValueError(f"strength must be 0 or more, got {strength}")
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.stream, self.strength, self.temperature = stream, strength, temperature
        self.streams = self.streams | {stream}

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)
        require_classes(data, "MCC")
        require_several(data, "MCC", self.stream, own=False)

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        loss = self.technique.objective(model, task, batch)
        if not self.strength:
            return loss
        logits = model(unlabelled(batch, self.stream))
        return loss + self.strength * confusion(logits / self.temperature)


def confusion(logits: Tensor) -> Tensor:
    """Mean share of a class's probability that examples give to other classes, from 0 to (C-1)/C.

    Args:
        logits: (B, C).
    """
    p = at_least_float32(logits).softmax(dim=1)
    entropy = torch.special.entr(p).sum(dim=1)
    certain = 1 + torch.exp(-entropy.detach())
    between = p.T @ (p * (certain * len(p) / certain.sum())[:, None])  # (C, C)
    # no example may give a class any probability in this precision
    shares = between / between.sum(dim=1, keepdim=True).clamp(min=torch.finfo(p.dtype).tiny)
    return (shares.sum() - shares.trace()) / len(shares)
