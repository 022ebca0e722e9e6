"""Features of two domains: of a batch, and of a stream's examples, whose labels nothing reads."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ftlab.backbones.passes import Watched
from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.tasks.base import Task
from ftlab.tasks.losses.base import at_least_float32
from ftlab.techniques.base import Technique
from ftlab.techniques.trained_tensors import require_trained_backbone


def unlabelled(batch: Batch, stream: str) -> dict[str, Any]:
    """A stream's examples that a batch brings along, without their labels if it has them."""
    return {name: value for name, value in batch["beside"][stream].items() if name != "target"}


def of_both(technique: Technique, model: TaskModel, task: Task, batch: Batch, stream: str
            ) -> tuple[Tensor, Watched, Watched]:
    """The technique's objective, the pass of its batch, and a pass of the stream's examples.

    Two passes, since batch norms that train take the statistics of each batch.

    Args:
        technique: whose objective it is.
        model: adapted.
        task: of the batch.
        batch: with the stream.
        stream: its name.
    """
    with model.watching() as passes:
        loss = technique.objective(model, task, batch)
    return loss, passes[0], model.watched(unlabelled(batch, stream))


def halves(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """As many rows of each as the shorter one has, in float32 at least."""
    rows = min(len(one), len(other))
    return at_least_float32(one[:rows]), at_least_float32(other[:rows])


def require_vectors(data: DataModule, technique: str) -> None:
    """Refuse tasks without one vector an example.

    Args:
        data: loaded.
        technique: its name.

    Raises:
        Incompatible: the task is of another kind.
    """
    if data.task.output_type != "vector":
        raise Incompatible(f"{technique} compares one vector of features an example, and the task "
                           f"{type(data.task).__name__} has more", "leave it out for this task")


def require_several(data: DataModule, technique: str, stream: str, own: bool = True) -> None:
    """Refuse batches of one example, of which what is added says nothing.

    One example has no covariance and no pair, a batch norm leaves the sign alone of one of each
    domain, and its class confusion is (C-1)/C whatever the model says. A last, shorter batch may
    have one.

    Args:
        data: loaded.
        technique: its name.
        stream: that it reads.
        own: whether it compares the training examples of a batch too.

    Raises:
        Incompatible: all batches have one.
    """
    if own and min(data.batch_size, len(data.splits["train"])) < 2:
        raise Incompatible(f"{technique} compares the examples of a batch, and a training batch has 1",
                           "set batch_size: 2 or more" if data.batch_size < 2
                           else "train on 2 examples at least")
    found = data.beside.get(stream)
    if found is not None and (found.batch_size or data.batch_size) < 2:
        raise Incompatible(f"{technique} compares the examples of a batch, and the stream {stream!r} "
                           "gives a batch 1",
                           f"set beside: {{{stream}: {{batch_size: {max(2, data.batch_size)}}}}}")


def require_features(model: TaskModel, technique: str) -> int:
    """The width D of the features that a new head reads, of a backbone that trains.

    Args:
        model: adapted.
        technique: its name.

    Raises:
        Incompatible: there is no new head, or the head alone trains.
    """
    layers = [m for _, m in model.head.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    if not layers:
        raise Incompatible(f"{technique} compares what a new head reads, and this task keeps the "
                           "pre-trained output layer", "leave it out for this task")
    require_trained_backbone(model, technique)
    return _width(layers[-1])


def _width(layer: nn.Linear | nn.Conv2d) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def probabilities(outputs: Tensor) -> Tensor:
    """Probabilities of classes (B, C), through which no gradient flows."""
    return at_least_float32(outputs.detach()).softmax(dim=1)


def require_classes(data: DataModule, technique: str) -> None:
    """Refuse tasks without one class of several an example.

    Raises:
        Incompatible: the task is of another kind.
    """
    if data.task.output_type != "vector" or not data.task.one_class:
        raise Incompatible(f"{technique} wants one class of several for each example, and the task "
                           f"{type(data.task).__name__} has none", "leave it out for this task")
