"""Losses in which some examples count more than others."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from ftlab.backbones.task_model import Batch, Outputs
from ftlab.data.base import DataModule
from ftlab.data.groups import Groups, required_groups
from ftlab.errors import Incompatible
from ftlab.tasks.base import Task


def training_groups(data: DataModule, asked_by: str) -> Groups:
    """The groups of the training examples.

    Args:
        data: loaded.
        asked_by: name of the technique, for the error.

    Raises:
        Incompatible: the task's loss is not a mean over examples.
    """
    groups = required_groups(data.splits, "train", asked_by)
    require_example_losses(data, asked_by)
    return groups


def require_example_losses(data: DataModule, asked_by: str) -> None:
    """Refuse data whose loss is not a mean over examples.

    Raises:
        Incompatible: the task's is not, or examples are mixed.
    """
    task = data.task
    if data.mixes:
        raise Incompatible(f"{asked_by} weighs the losses of examples, and the data set mixes several "
                           "in one", "set augment: {mix: none}")
    if not task.of_examples:
        raise Incompatible(f"{asked_by} weighs the losses of examples, and the loss of this task "
                           f"({type(task).__name__}) is not a mean of theirs",
                           "leave it out for this task, or give the task another loss")


def weighing(task: Task, combine: Callable[[Tensor, Tensor, Batch], Tensor]) -> Task:
    """A task whose loss of a batch is another one than the mean of its examples.

    Given to an inner technique's `objective`, so that what that adds to the loss, or its part of
    it, stays as it is. Batches of streams have the loss that they had.

    Args:
        task: with losses of examples.
        combine: makes a scalar of the examples' losses (B,), of the parts (B,) that they have in the
            batch's loss, which add up to 1, and of the batch.
    """
    weighed = copy.copy(task)

    def loss(outputs: Outputs, batch: Batch) -> Tensor:
        losses = None if "stream" in batch else task.losses(outputs, batch)
        if losses is None:
            return task.loss(outputs, batch)
        return combine(losses, _parts(task, batch, losses), batch)

    weighed.loss = loss  # type: ignore[method-assign]  # of this copy alone
    return weighed


def _parts(task: Task, batch: Batch, losses: Tensor) -> Tensor:
    weights = task.weights(batch).to(losses)
    return weights / weights.sum()


def per_group(losses: Tensor, parts: Tensor, codes: Tensor, count: int) -> Tensor:
    """Mean loss of each group (G,); 0 of a group without examples.

    Args:
        losses: of examples (B,).
        parts: of each in the mean (B,).
        codes: group of each (B,).
        count: of groups.
    """
    def totals(values: Tensor) -> Tensor:
        return torch.zeros(count, dtype=values.dtype, device=values.device).index_add(0, codes, values)

    return totals(parts * losses) / totals(parts).clamp(min=torch.finfo(parts.dtype).tiny)
