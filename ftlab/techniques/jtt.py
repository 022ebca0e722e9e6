from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.tasks.base import Task
from ftlab.techniques.base import Choice, Technique
from ftlab.techniques.example_weights import require_example_losses, weighing
from ftlab.techniques.restarts import Restarts
from ftlab.techniques.single_precision import in_single_precision
from ftlab.techniques.trained_tensors import averaged, in_eval_mode
from ftlab.techniques.wrapper import MOVES, RESTARTS, WEIGHS, Wrapper


class JTT(Wrapper):
    """Just train twice: fit, then fit anew with more weight on what came out wrong (a wrapper).

    The first fit takes the first epochs of the run and is given up, but for the training examples
    that it gets wrong: in the second, from the same start, each of them counts `upweight` times as
    much as another, scaled to a mean of 1 over the training split. Only epochs of the second can be
    the result. It needs no groups in training, and the groups of the validation split to choose by:
    `select_by: val/worst_accuracy`. Take it where some examples are few and go against a pattern
    that most follow, and their groups were not written down. The first fit must leave errors: keep
    it short. The paper repeats the examples in place of weighing them.

    Liu, Haghgoo, Chen, Raghunathan, Koh, Sagawa, Liang, Finn (2021),
    https://arxiv.org/abs/2107.09044

    Args:
        technique: what adapts the model.
        first_epochs: of the run's epochs, those of the first fit.
        upweight: times that an example counts which the first fit gets wrong; 1 for plain training.
    """

    search_space = {"upweight": Choice((4.0, 10.0, 20.0, 50.0))}
    of_training = True
    does = frozenset({WEIGHS, RESTARTS})
    never_around = frozenset({MOVES, WEIGHS, RESTARTS})

    def __init__(self, technique: Technique, first_epochs: int = 1, upweight: float = 20.0) -> None:
        super().__init__(technique)
        if first_epochs < 1:
            raise ValueError(f"first_epochs must be at least 1, got {first_epochs}")
        if upweight < 1:
            raise ValueError(f"upweight must be at least 1, got {upweight}")
        self.first_epochs, self.upweight = first_epochs, upweight
        self.fits = Restarts(technique)
        self.data: DataModule | None = None
        self.total = 0  # updates of both fits
        self.weights: Tensor | None = None  # by position in the training split, after the first fit

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)
        require_example_losses(data, "JTT")
        if not any(metric.right_or_wrong for metric in data.task.metrics()):
            raise Incompatible("JTT weighs what is predicted wrong, and none of the metrics of this "
                               f"task ({type(data.task).__name__}) calls a prediction right or wrong",
                               "leave it out for this task")

    def starts(self, epochs: int) -> list[int]:
        """First epoch of each fit, and the end.

        Raises:
            Incompatible: there is none for the second.
        """
        if epochs <= self.first_epochs:
            raise Incompatible(f"JTT(first_epochs={self.first_epochs}) wants epochs for a second fit, "
                               f"and there {'is' if epochs == 1 else 'are'} {epochs} in all",
                               f"set max_epochs to {self.first_epochs + 1} or more")
        return [0, self.first_epochs, epochs]

    def lr_factors(
        self, groups: list[dict[str, Any]], total: int, epochs: int
    ) -> list[Callable[[int], float]]:
        return self.fits.lr_factors(groups, total, self.starts(epochs), [1.0, 1.0])

    def optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return self.fits.optimizer(groups)

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.data, self.total, self.weights = data, steps, None
        self.fits.begin(model, averaged(model))

    def begin_epoch(self, model: TaskModel, epoch: int, epochs: int) -> None:
        starts = self.starts(epochs)
        fit = int(epoch >= self.first_epochs)
        if epoch == starts[fit] and self.data is not None:
            if fit:
                self._find_wrong(model, self.data)
                self.fits.restart(model)
                self.restarts.append(epoch)
            device = next(model.parameters()).device
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                first = self.total * self.first_epochs // epochs
                self.technique.begin_fit(model, self.data, self.total - first if fit else first)
        self.technique.begin_epoch(model, epoch - starts[fit], starts[fit + 1] - starts[fit])

    def selectable(self, epoch: int, epochs: int) -> bool:
        return epoch >= self.first_epochs and self.technique.selectable(
            epoch - self.first_epochs, epochs - self.first_epochs)

    def after_step(self, model: TaskModel, step: int) -> None:
        self.fits.after_step(model, step)

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        if (weights := self.weights) is None or self.upweight == 1:
            return self.technique.objective(model, task, batch)

        def weighed(losses: Tensor, parts: Tensor, batch: Batch) -> Tensor:
            return (weights[batch["index"].cpu()].to(losses) * parts * losses).sum()

        return self.technique.objective(model, weighing(task, weighed), batch)

    def _find_wrong(self, model: TaskModel, data: DataModule) -> None:
        """Predict the training examples, without augmentation.

        Raises:
            Incompatible: all are right.
        """
        task, device = data.task, next(model.parameters()).device
        wrong = torch.zeros(len(data.splits["train"]), dtype=torch.float64, device=device)
        with torch.no_grad(), in_eval_mode(model), self.technique.evaluated(model):
            for raw in data.eval_loader("train"):
                batch = move_data_to_device(raw, device)
                predictions = task.predict(model, batch, model(batch))
                right = task.right(task.records(in_single_precision(predictions), batch["target"]))
                assert right is not None  # a metric says so
                wrong[batch["index"]] = 1 - torch.as_tensor(right, device=device)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(wrong)  # each rank has seen its own
        found = int(wrong.sum())
        if not found:
            raise Incompatible("JTT: the first fit gets every training example right, so that nothing "
                               "is left to weigh", "give it fewer first_epochs or a lower rate, or "
                               "regularise it more")
        self.notes.append(f"JTT: after {self.first_epochs} of the run's epochs {found:,} of "
                          f"{len(wrong):,} training examples came out wrong, and count "
                          f"{self.upweight:g} times as much in the second fit")
        counts = 1 + (self.upweight - 1) * wrong.cpu()
        self.weights = counts / counts.mean()
