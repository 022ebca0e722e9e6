from __future__ import annotations

import torch
from torch import Tensor

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.data.groups import GROUP
from ftlab.tasks.base import Task
from ftlab.techniques.base import LogUniform, Technique
from ftlab.techniques.example_weights import per_group, training_groups, weighing
from ftlab.techniques.wrapper import MOVES, WEIGHS, Wrapper


class GroupDRO(Wrapper):
    """Minimise the loss of whichever group is worst off (a wrapper).

    Each step multiplies a group's weight q by exp(step * its mean loss in the batch), makes the
    weights add up to 1, and minimises the sum of q times the groups' losses. Groups are the values
    of the data set's column `group`. Take it where a rare group is what counts, with batches that
    hold all groups (`sampling: {class_path: Balanced, init_args: {column: group}}`) and with strong
    weight decay or few epochs: a network that fits every training example has no worst group.

    Sagawa, Koh, Hashimoto, Liang (2020), https://arxiv.org/abs/1911.08731

    Args:
        technique: what adapts the model.
        step: of the weights, 0 or more; 0 weighs all groups alike.
        adjustment: C of the paper, 0 or more: a group of n training examples has C / sqrt(n) more
            loss, since small groups generalise worse.
    """

    search_space = {"step": LogUniform(1e-3, 1e-1)}
    of_training = True
    does = frozenset({WEIGHS})
    never_around = frozenset({MOVES, WEIGHS, "evaluated"})
    columns = frozenset({GROUP})
    single_batches = True

    def __init__(self, technique: Technique, step: float = 0.01, adjustment: float = 0.0) -> None:
        super().__init__(technique)
        if step < 0:
            raise ValueError(f"step must be 0 or more, got {step}")
        if adjustment < 0:
            raise ValueError(f"adjustment must be 0 or more, got {adjustment}")
        self.step, self.adjustment = step, adjustment
        self.start = self.next = self.weights = torch.zeros(0)  # of the groups, from `prepare`

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)
        groups = training_groups(data, "GroupDRO")
        sizes = torch.bincount(groups.codes, minlength=len(groups.names))
        self.codes = groups.codes
        self.start = self.next = self.weights = (sizes > 0) / (sizes > 0).sum()
        self.raised = self.adjustment / sizes.clamp(min=1).sqrt()

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        def worst(losses: Tensor, parts: Tensor, batch: Batch) -> Tensor:
            codes = self.codes.to(losses.device)[batch["index"]]
            means = per_group(losses, parts, codes, len(self.weights))
            weights = self.weights.to(means) * (self.step * (means.detach() + self.raised.to(means))).exp()
            self.next = weights / weights.sum()
            return (self.next * means).sum()

        return self.technique.objective(model, weighing(task, worst), batch)

    def after_step(self, model: TaskModel, step: int) -> None:
        self.technique.after_step(model, step)
        self.weights = self.next

    def begin_epoch(self, model: TaskModel, epoch: int, epochs: int) -> None:
        self.technique.begin_epoch(model, epoch, epochs)
        if not epoch:  # of a fit within the fit, too
            self.next = self.weights = self.start
