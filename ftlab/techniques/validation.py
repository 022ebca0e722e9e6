"""The validation of a technique's model, as Lightning calls for it."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import Any

from lightning import LightningModule

from ftlab.backbones.task_model import TaskModel
from ftlab.data.groups import Groups, SplitScores
from ftlab.tasks.base import Task
from ftlab.techniques.single_precision import in_single_precision


class Validated(LightningModule):
    """A module whose model is scored after each epoch, in the context that it makes for that."""

    validation_groups: Groups | None = None
    """Groups of the validation split, which have scores of their own."""
    model: TaskModel
    task: Task

    @abstractmethod
    def evaluated(self, model: TaskModel) -> AbstractContextManager[Any]:
        """Make the context of each validation."""

    def begin_scores(self) -> None:
        """Make what collects the scores, once model and task are there."""
        self.validation_scores = SplitScores(self.task, self.validation_groups)

    def on_validation_start(self) -> None:
        self._switch("eval")  # what some optimizers average
        self._evaluation = self.evaluated(self.model)
        self._evaluation.__enter__()

    def on_validation_end(self) -> None:  # after the callbacks', which keep the best epoch
        self._evaluation.__exit__(None, None, None)
        self._switch("train")

    def _switch(self, mode: str) -> None:
        for optimizer in self.trainer.optimizers:
            getattr(optimizer, mode, lambda: None)()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        outputs = self.model(batch)
        loss = self.task.loss(in_single_precision(outputs), batch)
        predictions = self.task.predict(self.model, batch, outputs)
        self.validation_scores.update(in_single_precision(predictions), batch, loss)

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"val/{n}": value for n, value in self.validation_scores.compute().items()})
        self.validation_scores.reset()
