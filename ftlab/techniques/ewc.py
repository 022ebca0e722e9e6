from __future__ import annotations

from typing import Literal

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.nn.functional import cross_entropy

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.data.batches import pick
from ftlab.data.examples import STREAM
from ftlab.errors import Incompatible
from ftlab.tasks.base import Task
from ftlab.tasks.losses.base import at_least_float32
from ftlab.techniques.base import LogUniform, Technique
from ftlab.techniques.trained_tensors import (
    accumulators,
    copies,
    in_eval_mode,
    of_backbone,
    parameters,
    require_trained_backbone,
)
from ftlab.techniques.wrapper import PENALISES, READS_STREAM, Wrapper

_LABELS = ("data", "model", "features", None)


class EWC(Wrapper):
    """Hold each weight where it started, the more the more earlier data depend on it (a wrapper).

    Elastic weight consolidation adds strength / 2 * sum F (w - w0)^2, where w0 are the weights
    before the fit and F is the diagonal of the Fisher information there: the mean, over examples
    of a stream, of squared gradients of log p(y). Take it where the model must keep what it could
    do and a few examples of that are at hand; they are read once. What is held are the tensors
    that train, an adapter's in place of the weights beneath it. Weight decay stays as it is.

    With `labels: features` log p is that of the features under normal noise of variance 1: an
    encoder whose head is new has features and no labels yet.

    Kirkpatrick, Pascanu, Rabinowitz, et al. (2017), https://arxiv.org/abs/1612.00796

    Args:
        technique: what adapts the model.
        strength: of what is added (lambda in the paper), 0 or more; 0 is plain training.
        stream: name of the data set's stream (`beside`) of examples of what was learned before.
        examples: of the stream that are read, 1 or more; fewer where it has fewer.
        labels: y in log p(y): `data`, those of the examples; `model`, drawn from its predictions;
            `features`; null for `features` where the head is new, else `model` for one class an
            example, else `data`.
    """

    search_space = {"strength": LogUniform(1.0, 1e4)}
    of_training = True
    does = frozenset({PENALISES, READS_STREAM})

    def __init__(self, technique: Technique, strength: float = 100.0, stream: str = "memory",
                 examples: int = 200,
                 labels: Literal["data", "model", "features"] | None = None) -> None:
        super().__init__(technique)
        if strength < 0:
            raise ValueError(f"strength must be 0 or more, got {strength}")
        if examples < 1:
            raise ValueError(f"examples must be at least 1, got {examples}")
        if labels not in _LABELS:
            raise ValueError(f"labels must be data, model, features or null, got {labels!r}")
        self.strength, self.stream = strength, stream
        self.examples, self.labels = examples, labels
        self.read = ""
        self.one_class, self.labelled = False, True  # until the data are known
        self.streams = self.streams | {stream}
        self.start: dict[str, Tensor] = {}
        self.fisher: dict[str, Tensor] = {}

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)
        self.one_class = data.task.output_type == "vector" and data.task.one_class
        memory = data.beside.get(self.stream)
        self.labelled = memory is None or memory.labelled
        if self.labels == "model" and not self.one_class:
            raise Incompatible("EWC draws one class an example, and the task "
                               f"{type(data.task).__name__} has none", "set labels: data")

    def adapt(self, model: TaskModel) -> None:
        self.technique.adapt(model)
        self._choose(model)
        if self.read == "features":
            if not any(True for _ in model.head.parameters()):
                raise Incompatible("EWC: this task keeps the pre-trained output layer, so there are "
                                   "no features that a head reads", "set labels: data")
            require_trained_backbone(model, "EWC")
        elif model.has_random_head:
            raise Incompatible("EWC asks which weights earlier predictions depend on, and the head "
                               "that would make them is new", "set labels: features, or train the "
                               "head in a stage that carries all")

    def _choose(self, model: TaskModel) -> None:
        """Settle what log p is of, where the head is new or has been trained."""
        known = "model" if self.one_class else "data"
        read = self.labels or ("features" if model.has_random_head else known)
        if read == "data" and not self.labelled and self.labels is None and self.read == "features":
            read = "features"  # as in the fit before this one
        if read == "data" and not self.labelled and not model.has_random_head:
            raise Incompatible(f"EWC reads the labels of the stream {self.stream!r}, which are not "
                               "read", f"set beside: {{{self.stream}: {{labelled: true}}}}")
        if self.labels is None and read != self.read:
            self.notes.append(f"EWC: labels: {read}")
        self.read = read

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.technique.begin_fit(model, data, steps)
        if not self.strength:
            return
        self._choose(model)  # a fit within the fit may find a head that an earlier one has trained
        held = of_backbone(model) if self.read == "features" else parameters(model)
        self.start = copies(held)
        self.fisher = {name: torch.zeros_like(t) for name, t in accumulators(held).items()}
        split = f"{STREAM}{self.stream}"
        generator = torch.Generator().manual_seed(data.seed)
        order = torch.randperm(len(data.splits[split]), generator=generator)
        wanted, device = {*order[:self.examples].tolist()}, next(model.parameters()).device
        with in_eval_mode(model), torch.enable_grad():
            for raw in data.eval_loader(split):
                batch = move_data_to_device(raw, device)
                for row, position in enumerate(raw["index"].tolist()):
                    if position in wanted:
                        self._add(model, data.task, pick(batch, [row]), held, generator)
        for total in self.fisher.values():
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(total)  # each rank has read its own examples
            total /= len(wanted)

    def _add(self, model: TaskModel, task: Task, one: Batch, held: dict[str, Tensor],
             generator: torch.Generator) -> None:
        """Add an example's squared gradients."""
        found = torch.autograd.grad(self._surprise(model, task, one, generator), [*held.values()],
                                    allow_unused=True)
        for name, gradient in zip(held, found, strict=True):
            if gradient is not None:
                self.fisher[name] += gradient.to(self.fisher[name]).square()

    def _surprise(self, model: TaskModel, task: Task, one: Batch,
                  generator: torch.Generator) -> Tensor:
        """Minus log p of one example's y, but for what does not depend on the weights."""
        if self.read == "features":
            features = model.watched(one).features
            noise = torch.randn(features.shape, generator=generator, dtype=torch.float64)
            return (features * noise.to(features)).sum()
        outputs = model(one)
        if not self.one_class:
            return task.loss(outputs, one) * task.weight(one)  # of a mean over tokens their sum
        logits = at_least_float32(outputs)
        if self.read == "data":
            return cross_entropy(logits, one["target"])
        drawn = torch.multinomial(logits.detach().softmax(dim=1).cpu(), 1, generator=generator)
        return cross_entropy(logits, drawn[:, 0].to(logits.device))

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        loss = self.technique.objective(model, task, batch)
        for name, parameter in parameters(model).items():
            if name in self.fisher:
                moved = parameter - self.start[name]
                loss = loss + self.strength / 2 * (self.fisher[name] * moved.square()).sum()
        return loss
