"""The base class of techniques: a LightningModule that adapts a backbone's model to a task."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import MeanMetric

from ftlab.backbones.base import OutputType
from ftlab.backbones.new_tokens import thaw, train_rows
from ftlab.backbones.task_model import Outputs, TaskModel
from ftlab.data.base import DataModule
from ftlab.data.train_batches import BatchShare
from ftlab.errors import Incompatible
from ftlab.tasks.base import Task
from ftlab.techniques.single_precision import in_single_precision


@dataclass(frozen=True)
class LogUniform:
    """A hyperparameter's range, uniform in its logarithm."""

    low: float
    high: float


@dataclass(frozen=True)
class Choice:
    """A hyperparameter's choices."""

    options: tuple[Any, ...]


SearchSpace = dict[str, LogUniform | Choice]


@dataclass(frozen=True)
class Optimization:
    """How the trainable parameters are updated.

    Args:
        optimizer: `adamw` (Loshchilov and Hutter 2019), `adam` or `sgd` (momentum 0.9).
        weight_decay: decoupled for AdamW; never on biases, norms and other vectors.
        schedule: of the learning rate over all steps: `constant`, `linear` or `cosine` to zero,
            `one-cycle` (Smith 2018: up from a 25th over the warm-up, then cosine to zero).
        warmup: fraction of all steps over which the rate rises linearly.
    """

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    weight_decay: float = 0.01
    schedule: Literal["constant", "linear", "cosine", "one-cycle"] = "linear"
    warmup: float = 0.1

    def __post_init__(self) -> None:
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a fraction from 0 to below 1, got {self.warmup}")

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer over parameter groups that carry `lr` and `weight_decay`."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, momentum=0.9)
        kind = torch.optim.AdamW if self.optimizer == "adamw" else torch.optim.Adam
        optimizer = kind(groups, fused=True)  # 1.4 times the speed of the default on CPUs
        # a fused step can undo float16's scale itself, but gradients are clipped before it
        vars(optimizer)["_step_supports_amp_scaling"] = False
        return optimizer

    def factor(self, step: int, total: int) -> float:
        """Multiplier of the learning rate at `step` of `total`."""
        warm = self.warmup * total if total > 1 else 0.0  # its only update is to move something
        if step < warm:
            rise = step / warm
            return 1 / 25 + (1 - 1 / 25) * rise if self.schedule == "one-cycle" else rise
        left = (total - step) / max(1e-9, total - warm)
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "linear":
            return max(0.0, left)
        return 0.5 * (1 + math.cos(math.pi * (1 - min(1.0, max(0.0, left)))))


class Technique(LightningModule, ABC):
    """How a backbone is adapted to a task.

    A subclass says in `adapt` what trains; everything else has a default. The methods that
    take a `model` hold no state of their own, so that a wrapper can pass them on.

    Args:
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space: ClassVar[SearchSpace] = {}
    """Where a sweep looks, from the literature; keys are constructor arguments."""
    identity_at_start: ClassVar[bool] = True
    """True where the adapted model computes what the unadapted one did, before training."""
    changes_freezing: ClassVar[bool] = False
    """True where `begin_epoch` freezes or unfreezes (DDP must then look for unused tensors)."""
    trains: ClassVar[bool] = True
    """True where there is a fit; without one the model is evaluated as `adapt` left it."""
    output_type: ClassVar[OutputType | None] = None
    """The output type of the model that it needs, instead of the task's own."""
    together: ClassVar[Literal["heads"] | None] = None
    """In what way several runs that differ in seed and arguments may train in one process."""

    model: TaskModel
    task: Task
    shard: Callable[[TaskModel, Any], None] | None = None
    """Shares the model out over a mesh of devices, where the run's strategy does."""

    def __init__(self, lr: float = 1e-3, optim: Optimization = Optimization()) -> None:
        super().__init__()
        if lr <= 0:
            raise ValueError(f"lr must be above 0, got {lr}")
        self.lr = lr
        self.optim = optim
        self.trained: set[str] = set()
        """Names (in `model`) of the parameters that trained in any epoch so far."""

    def prepare(self, data: DataModule) -> None:
        """Read what it needs of the loaded data (demonstrations, names of classes), if anything.

        Raises:
            Incompatible: the technique makes no sense for these data.
        """

    @abstractmethod
    def adapt(self, model: TaskModel) -> None:
        """Choose or add what trains: afterwards `requires_grad` is set for all that ever will.

        Raises:
            Incompatible: the technique makes no sense on this model.
        """

    def param_groups(self, model: TaskModel) -> list[dict[str, Any]]:
        """Optimizer groups of `params`, `lr` and `weight_decay`."""
        return decayed(model.named_parameters(), self.lr, self.optim.weight_decay)

    def lr_factors(
        self, groups: list[dict[str, Any]], total: int, epochs: int
    ) -> list[Callable[[int], float]]:
        """Multiplier of each group's rate by step, of `total` steps in `epochs` epochs."""
        return [lambda step: self.optim.factor(step, total)] * len(groups)

    def penalty(self, model: TaskModel) -> Tensor | float:
        """The term that is added to the task's loss."""
        return 0.0

    def begin_epoch(self, model: TaskModel, epoch: int, epochs: int) -> None:
        """Freeze or unfreeze at the start of `epoch` (0-based) of `epochs`."""

    def merge(self, model: nn.Module) -> bool:
        """Fold what was added to a model, or to a layer of it, into its weights; whether anything was."""
        return False

    # What Lightning calls.

    def bind(self, model: TaskModel, task: Task) -> Technique:
        """Adapt `model` to `task`; from then on this module trains it, and new tokens with it."""
        self.adapt(model)
        if self.trains and model.new_ids:
            train_rows(model.trunk, model.new_ids, anyway=self.changes_freezing)
        trainable = any(parameter.requires_grad for parameter in model.parameters())
        if self.trains and not trainable:
            raise Incompatible(f"{type(self).__name__} finds nothing to train in this model",
                               "leave this technique out for this backbone")
        self.model, self.task = model, task
        self.validation_metrics = task.collection()
        # a NaN stays one, so that its epoch is not the best; `disable` would forget the weights
        self.validation_loss = MeanMetric(nan_strategy=math.nan)
        return self

    def train(self, mode: bool = True) -> Technique:
        """Training mode, but frozen means frozen.

        A block in which nothing trains stays in eval mode (no dropout), and a normalisation
        layer whose own parameters are frozen keeps its statistics, so that a cached prefix
        gives the same result and a delta checkpoint is complete.
        """
        super().train(mode)
        if mode and "model" in self._modules:
            training = [n for n, p in self.model.named_parameters() if p.requires_grad]
            for block in (*self.model.blocks, self.model.head):
                if not any(map(block.holds, training)):
                    block.train(False)
            for module in self.model.modules():
                if is_norm(module) and not trains_directly(module):
                    module.eval()
        return self

    def configure_model(self) -> None:
        """Lightning's hook for sharding, after the ranks have met and before the optimizer."""
        if self.shard is not None:
            self.shard(self.model, self.device_mesh["data_parallel"])  # type: ignore[index]  # is set

    def forward(self, batch: dict[str, Any]) -> Outputs:
        return self.model(batch)

    def on_train_epoch_start(self) -> None:
        self.begin_epoch(self.model, self.current_epoch, self.trainer.max_epochs or 1)
        thaw(self.model)
        self.train()
        self.trained |= {n for n, p in self.model.named_parameters() if p.requires_grad}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """`loss`, to be minimised, as the batch counts in its update; `mean`, of the batch."""
        loss = self.task.loss(self.model(batch), batch) + self.penalty(self.model)
        share: BatchShare | None = batch.get("share")  # a batch by itself is an update
        return {"loss": loss if share is None else share.of(loss), "mean": loss.detach()}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        outputs = self.model(batch)
        loss = self.task.loss(in_single_precision(outputs), batch)
        self.validation_loss.update(loss, weight=self.task.weight(batch))
        predictions = self.task.predict(self.model, batch, outputs)
        self.validation_metrics.update(in_single_precision(predictions), batch["target"])

    def on_validation_epoch_end(self) -> None:
        computed = {**self.validation_metrics.compute(), "loss": self.validation_loss.compute()}
        self.validation_metrics.reset()
        self.validation_loss.reset()
        scalars = self.task.scalars(computed)
        self.log_dict({f"val/{name}": value for name, value in scalars.items()})

    def configure_optimizers(self) -> Any:
        groups = self.param_groups(self.model)
        total = int(self.trainer.estimated_stepping_batches)
        factors = self.lr_factors(groups, total, self.trainer.max_epochs or 1)
        optimizer = self.optim.build(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def decayed(
    named: Iterable[tuple[str, nn.Parameter]], lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices with weight decay, vectors without."""
    trainable = [parameter for _, parameter in named if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def freeze_all_but_head(model: TaskModel) -> None:
    """The start of every technique that keeps the backbone."""
    model.requires_grad_(False)
    model.head.requires_grad_(True)


def require_new_head(model: TaskModel, technique: str) -> None:
    """Refuse a technique that trains a head where the task adds none.

    Raises:
        Incompatible: the model keeps its pre-trained output layer.
    """
    if not any(True for _ in model.head.parameters()):
        raise Incompatible(
            f"{technique} trains a new head, and this task keeps the pre-trained output layer",
            "leave it out, or take PartialFineTuning",
        )


def is_norm(module: nn.Module) -> bool:
    """Return whether a module normalises (batch, layer, group, RMS, the architectures' own).

    A norm may hold an activation (timm's BatchNormAct2d), and no other layer.
    """
    held = (parameter for child in module.children() for parameter in child.parameters())
    return "norm" in type(module).__name__.lower() and not any(True for _ in held)


def trains_directly(module: nn.Module) -> bool:
    """Return whether a module's own parameters train; true where it has none."""
    parameters = list(module.parameters(recurse=False))
    return not parameters or any(parameter.requires_grad for parameter in parameters)
