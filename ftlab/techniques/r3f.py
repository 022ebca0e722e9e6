from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ftlab.backbones.new_tokens import weight_owner
from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.tasks.base import Task
from ftlab.techniques.base import Choice, Technique
from ftlab.techniques.wrapper import MOVES, Wrapper

_FLOAT32 = "set trainer: {precision: 32-true} and the backbone's dtype: float32"


class R3F(Wrapper):
    """Keep the predicted classes of a text as they are under noise on its embeddings (a wrapper).

    It adds strength * (KL(p | q) + KL(q | p)), where p are the probabilities of a text and q
    those of a second pass with noise on the embeddings of its tokens. Take it for large encoders,
    whose representations fine-tuning distorts; a step costs nearly two. With dropout the passes
    drop different units, as in the authors' code, so that it evens this out as well. The gradient
    reaches the embeddings through both passes.

    Aghajanyan, Shrivastava, Gupta, Goyal, Zettlemoyer, Gupta (2021),
    https://arxiv.org/abs/2008.03156

    Args:
        technique: what adapts the model.
        strength: of what is added (lambda in the paper), 0 or more; 0 is plain training.
        eps: largest size of the noise, or its standard deviation where it is normal.
        noise: `uniform` or `normal`.
    """

    search_space = {"strength": Choice((0.1, 0.5, 1.0, 5.0))}
    of_training = True
    never_around = frozenset({MOVES})
    whole_passes = True

    def __init__(self, technique: Technique, strength: float = 1.0, eps: float = 1e-5,
                 noise: Literal["uniform", "normal"] = "uniform") -> None:
        super().__init__(technique)
        if strength < 0:
            raise ValueError(f"strength must be 0 or more, got {strength}")
        if eps < 0:
            raise ValueError(f"eps must be 0 or more, got {eps}")
        if noise not in ("uniform", "normal"):
            raise ValueError(f"noise is uniform or normal, got {noise!r}")
        self.strength, self.eps, self.noise = strength, eps, noise

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)
        if data.task.output_type != "vector" or not data.task.one_class:
            raise Incompatible("R3F compares the probabilities of classes, and the task "
                               f"{type(data.task).__name__} has no class an example",
                               "leave it out for this task")

    def adapt(self, model: TaskModel) -> None:
        self.technique.adapt(model)
        weight: Any = weight_owner(_embeddings(model)).weight
        if weight.dtype in (torch.float16, torch.bfloat16):
            raise Incompatible("R3F: half precision swallows noise this small", _FLOAT32)

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        if not self.strength:
            return self.technique.objective(model, task, batch)
        if torch.is_autocast_enabled(batch["index"].device.type):
            raise Incompatible("R3F: half precision swallows noise this small", _FLOAT32)
        with model.watching() as passes:
            loss = self.technique.objective(model, task, batch)
        hook = _embeddings(model).register_forward_hook(lambda _, inputs, given: self._noisy(given))
        try:
            noised = model(batch)
        finally:
            hook.remove()
        return loss + self.strength * symmetric_kl(passes[0].outputs, noised)

    def _noisy(self, embeddings: Tensor) -> Tensor:
        noise = torch.empty_like(embeddings)
        if self.noise == "normal":
            return embeddings + noise.normal_(0, self.eps)
        return embeddings + noise.uniform_(-self.eps, self.eps)


def symmetric_kl(logits: Tensor, others: Tensor) -> Tensor:
    """Kullback-Leibler divergences of two predictions in both directions, mean over examples.

    Args:
        logits: (B, classes).
        others: (B, classes).
    """
    p, q = (x.log_softmax(dim=1) for x in (logits, others))
    return ((p.exp() - q.exp()) * (p - q)).sum(dim=1).mean()


def _embeddings(model: TaskModel) -> nn.Module:
    trunk: Any = model.trunk
    try:
        table = trunk.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # no network of transformers, or none of text
        table = None
    if not isinstance(table, nn.Module) or not isinstance(weight_owner(table), nn.Embedding):
        raise Incompatible("R3F puts noise on the embeddings of tokens, and this network reads "
                           "none", "leave it out for this backbone")
    return table
