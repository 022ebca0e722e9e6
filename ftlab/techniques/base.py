"""The base class of techniques: a LightningModule that adapts a backbone's model to a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ftlab.backbones.base import OutputType
from ftlab.backbones.new_tokens import thaw, train_rows
from ftlab.backbones.quantization import kept_frozen
from ftlab.backbones.task_model import Batch, Outputs, TaskModel
from ftlab.data.base import DataModule
from ftlab.data.examples import SplitName
from ftlab.data.sampling import Sampling
from ftlab.data.train_batches import BatchShare
from ftlab.errors import Incompatible
from ftlab.renamed import RefusesEarlierNames
from ftlab.tasks.base import Task
from ftlab.techniques.contract import contract_of, overridden
from ftlab.techniques.freezing import (
    decayed,
    freeze_all_but_head,
    hold_frozen,
    is_norm,
    matrices_apart,
    require_new_head,
    trains_directly,
)
from ftlab.techniques.head_optimum import Solver
from ftlab.techniques.lightning_hooks import LightningHooks
from ftlab.techniques.optimization import Optimization
from ftlab.techniques.search_space import Choice, LogUniform, SearchSpace

__all__ = ["Choice", "LogUniform", "Optimization", "SearchSpace", "Technique", "decayed",
           "freeze_all_but_head", "is_norm", "require_new_head", "trains_directly"]


class Technique(RefusesEarlierNames, LightningHooks, ABC):
    """How a backbone is adapted to a task.

    A subclass says in `adapt` what trains; all else has a default. A wrapper passes each method on.

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
    whole_passes: ClassVar[bool] = False
    """True where the fit reads what frozen blocks compute, or changes what goes into them."""
    single_batches: ClassVar[bool] = False
    """True where what it computes of the parts of a batch does not add up to that of the whole."""
    output_type: ClassVar[OutputType | None] = None
    """The output type of the model that it needs, instead of the task's own."""
    together: ClassVar[Literal["heads"] | None] = None
    """In what way several runs that differ in seed and arguments may train in one process."""
    streams: frozenset[str] = frozenset()
    """Names of the data set's streams that `objective` reads, in the batch's `beside`."""
    columns: frozenset[str] = frozenset()
    """Names of the data set's columns that it reads."""
    sampling: Sampling | None = None
    """How training examples are drawn, in place of the data set's own way."""

    def __init__(self, lr: float = 1e-3, optim: Optimization = Optimization()) -> None:
        super().__init__()
        if lr <= 0:
            raise ValueError(f"lr must be above 0, got {lr}")
        self.lr, self.optim = lr, optim
        self.trained: set[str] = set()
        """Names (in `model`) of the parameters that trained in any epoch so far."""
        self.notes: list[str] = []
        """For the run's record: what it chose for this model, until `settle`, a sentence each."""
        self.restarts: list[int] = []
        """Epochs (0-based) so far at which it began its fit anew, of one run's several fits."""

    @classmethod
    def space(cls, arguments: Mapping[str, Any]) -> SearchSpace:
        """Where a sweep looks when the constructor has these arguments."""
        return cls.search_space

    # The contract, in the order of a run.

    def prepare(self, data: DataModule) -> None:
        """Read what it needs of the loaded data (demonstrations, names of classes), if anything.

        Raises:
            Incompatible: the technique makes no sense for these data.
        """

    def foresee(self, data: DataModule, epochs: int) -> None:
        """Settle what follows from the length of the fit, before anything runs.

        Args:
            data: of the run, loaded and connected.
            epochs: of the fit, if it does not end early.

        Raises:
            Incompatible: it makes no sense for these data in so many epochs.
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

    def lr_factors(self, groups: list[dict[str, Any]], total: int, epochs: int
                   ) -> list[Callable[[int], float]]:
        """Multiplier of each group's rate by step, of `total` steps in `epochs` epochs."""
        return [lambda step: self.optim.factor(step, total)] * len(groups)

    def optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Make the optimizer of the groups."""
        return self.optim.build(groups)

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        """Keep or compute what the fit needs, with model and data at hand, on the device.

        Args:
            model: adapted; its trainable tensors may be changed.
            data: of the run.
            steps: updates of the fit; 0 where the technique does not train, which may then set
                what is to be measured.
        """

    def optimum(self, model: TaskModel, data: DataModule) -> Solver | None:
        """Say how the head's optimum is computed, in place of epochs; None for epochs.

        Args:
            model: adapted, on its device.
            data: of the run.

        Raises:
            ByEpochs: it is wanted and cannot be computed here, so that there are epochs.
        """
        return None

    def begin_epoch(self, model: TaskModel, epoch: int, epochs: int) -> None:
        """Freeze or unfreeze at the start of `epoch` (0-based) of `epochs`."""

    def selectable(self, epoch: int, epochs: int) -> bool:
        """Return whether the weights after `epoch` (0-based) of `epochs` may be the result."""
        return True

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        """Compute what a step minimises, a scalar: the mean over the batch."""
        return task.loss(model(batch), batch)

    def after_step(self, model: TaskModel, step: int) -> None:
        """Follow an update, the `step`-th (from 1); gradients are still there."""

    def evaluated(self, model: TaskModel) -> AbstractContextManager[Any]:
        """Make the context of each validation, and of the checkpoint that follows it.

        Whatever it changes in the model it puts back at its end.
        """
        return nullcontext()

    def settle(self, model: TaskModel, data: DataModule, score: Callable[[], float]) -> None:
        """Finish the model, once: the best epoch is restored and nothing is measured yet.

        Args:
            model: in eval mode; what trained may be changed, and the buffers.
            data: of the run; test examples are not to be read.
            score: measures the model as it is on the validation split; more is better.
        """

    def variants(self, model: TaskModel) -> Mapping[str, AbstractContextManager[Any]]:
        """Make contexts in which the finished model is another one, by name.

        Each is measured on the test split beside the model itself, as `test.NAME/...`.
        """
        return {}

    def conclude(self, scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Compute what follows from the test scores of the finished model and of its variants, as `test/NAME`.

        Args:
            scores: test metrics by variant, the model's own under an empty name.
        """
        return {}

    def answers(self, data: DataModule, split: SplitName) -> Sequence[Any] | None:
        """Give predictions made elsewhere, by position in a split, from `Task.answer`.

        None where the model is asked; empty where nothing is known of the split.
        """
        return None

    def merge(self, model: nn.Module) -> bool:
        """Fold what was added to a model, or to a layer of it, into its weights; whether anything was."""
        return False

    def audit(self, model: TaskModel, data: DataModule) -> dict[str, float]:
        """Measure the finished model in other ways than its task does, as `cost/NAME`.

        Args:
            model: in eval mode, without gradients.
            data: of the run; each split may be read.
        """
        return {}

    def costs(self) -> dict[str, float]:
        """Costs beside those that are measured of every technique, as `cost/NAME`."""
        return {}

    @property
    def hooks(self) -> set[str]:
        """Names of the contract's methods that it does not leave as they are."""
        return overridden(type(self), Technique, CONTRACT)

    # What Lightning calls.

    def bind(self, model: TaskModel, task: Task) -> Technique:
        """Adapt `model` to `task`; from then on this module trains it, and new tokens with it."""
        with kept_frozen(model, type(self).__name__):
            self.adapt(model)
        if self.trains and model.new_ids:
            train_rows(model.trunk, model.new_ids, anyway=self.changes_freezing)
        if self.trains and not any(p.requires_grad for p in model.parameters()):
            raise Incompatible(f"{type(self).__name__} finds nothing to train in this model",
                               "leave this technique out for this backbone")
        self.model, self.task = model, task
        self.begin_scores()
        return self

    def train(self, mode: bool = True) -> Technique:
        """Training mode, in which frozen blocks have no dropout and frozen norms keep their statistics.

        So a cached prefix gives the same, and a checkpoint of what changed is complete.
        """
        super().train(mode)
        if mode and "model" in self._modules:
            hold_frozen(self.model)
        return self

    def forward(self, batch: dict[str, Any]) -> Outputs:
        return self.model(batch)

    def on_train_epoch_start(self) -> None:
        self.begin_epoch(self.model, self.current_epoch, self.trainer.max_epochs or 1)
        thaw(self.model)
        self.train()
        self.trained |= {n for n, p in self.model.named_parameters() if p.requires_grad}

    def on_fit_start(self) -> None:
        self._updates = 0
        if "begin_fit" not in self.hooks:
            return
        with torch.random.fork_rng([self.device] * self.on_gpu):  # what trains draws as without it
            self.begin_fit(self.model, self.trainer.datamodule,  # type: ignore[attr-defined]  # is set
                           int(self.trainer.estimated_stepping_batches))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """`loss`, to be minimised, as the batch counts in its update; `mean`, of the batch."""
        loss = self.objective(self.model, self.task, batch)
        share: BatchShare | None = batch.get("share")  # a batch by itself is an update
        return {"loss": loss if share is None else share.of(loss), "mean": loss.detach()}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self._updates += 1
        self.after_step(self.model, self._updates)

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups, as its kind wants them."""
        groups = self.param_groups(self.model)
        return matrices_apart(groups, self.model) if self.optim.kind.matrices_apart else groups

    def configure_optimizers(self) -> Any:
        groups = self.optimizer_groups()
        total = int(self.trainer.estimated_stepping_batches)
        factors = self.lr_factors(groups, total, self.trainer.max_epochs or 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer(groups), factors)
        return [schedule.optimizer], [{"scheduler": schedule, "interval": "step"}]


CONTRACT = contract_of(Technique, but=("bind", "optimizer_groups"))
"""Names of the methods that a technique may override and a wrapper passes on."""
