"""What a head's linear layer reads of all examples, for techniques that fit it without epochs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn

from ftlab.backbones.passes import Watched
from ftlab.backbones.task_model import IGNORED, TaskModel
from ftlab.data.base import DataModule
from ftlab.data.examples import SplitName
from ftlab.data.groups import SplitScores, groups_of
from ftlab.errors import Incompatible
from ftlab.techniques.freezing import require_new_head


@dataclass(frozen=True)
class Rows:
    """The training rows of a head: an example each, or a token.

    Attributes:
        features: in float64, (N, D).
        batch: all rows as one batch of the task: their `target`, and `index`.
    """

    features: Tensor
    batch: Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """One batch, without its inputs.

    Attributes:
        features: as the layer reads them, (B, D) or (B, T, D).
        batch: `target` and `index`.
    """

    features: Tensor
    batch: Mapping[str, Any]


class Features:
    """The features of the training and validation examples, each computed or read once.

    Where the data module has cached rows of the frozen blocks, nothing is computed.

    Args:
        model: adapted, on its device; the head's last layer is linear, or stands for such a one.
        data: connected.
        context: that the model computes in.
        select_by: the metric of validation that chooses, without split prefix; None for the
            task's default.
        views: number of the training rows in `data` that are read, where augmentation keeps some;
            0 for the examples as they are.
        alive: called every now and then.
    """

    def __init__(self, model: TaskModel, data: DataModule,
                 context: Callable[[], AbstractContextManager[Any]] = nullcontext,
                 select_by: str | None = None, views: int = 0,
                 alive: Callable[[], None] = lambda: None) -> None:
        self.model, self.data, self.context = model, data, context
        self.select_by = data.task.default_metric if select_by is None else select_by
        self.views, self.alive = views, alive

    @property
    def upwards(self) -> bool:
        """True where more of the selecting metric is better."""
        return self.data.task.higher_is_better(self.select_by)

    def seen(self, split: SplitName, view: int | None = None) -> Iterator[Seen]:
        """A split, batch by batch; of the training examples a view, where augmentation keeps some."""
        loader = self.data.eval_loader(split) if view is None else self.data.view_loader(view)
        tokens = self.data.task.output_type == "tokens"
        for watched in self._passes(loader):
            read = watched.read if tokens else watched.features
            assert read is not None  # there is a new head, whose optimum is wanted
            yield Seen(read.float() if read.dtype != torch.float64 else read,
                       {name: watched.batch[name] for name in ("target", "index")})

    def vectors(self, split: SplitName) -> Tensor:
        """Read what any head's last linear layer reads of a split, an example a row, without labels.

        Augmentation plays no part. A split may be a stream, whose examples may have no labels; a
        model that reads the target itself is given it.

        Returns:
            (N, D) in float64, in the order of the split, in the memory of the CPU.

        Raises:
            Incompatible: there is no new head with a linear layer.
        """
        hidden = () if self.model.needs_target else ("target",)
        passes = [(watched.batch["index"], watched.features.cpu().double())
                  for watched in self._passes(self.data.eval_loader(split), hidden)]
        index, features = (torch.cat(parts) for parts in zip(*passes, strict=True))
        return features[index.cpu().argsort()]

    def _passes(self, loader: Iterable[Mapping[str, Any]], hidden: Collection[str] = ()
                ) -> Iterator[Watched]:
        """A pass of each batch, of which the model is not shown what is `hidden`."""
        device = next(self.model.parameters()).device
        self.model.eval()
        for raw in loader:
            self.alive()
            batch = {name: value for name, value in raw.items() if name not in hidden}
            with torch.no_grad(), self.context():
                watched = self.model.watched(move_data_to_device(batch, device))
            yield watched

    @cached_property
    def train(self) -> Rows:
        """All views of the training examples, in the order of the split; tokens that count."""
        views: list[int | None] = [*range(self.views)] or [None]
        seen = [each for view in views for each in self.seen("train", view)]
        if self.data.task.output_type == "tokens":
            return _tokens(seen)
        index = torch.cat([each.batch["index"] for each in seen])
        order = index.argsort(stable=True)
        features = torch.cat([each.features for each in seen])[order].double()
        target = torch.cat([each.batch["target"] for each in seen])[order]
        return Rows(features, {"target": target, "index": index[order]})

    @cached_property
    def validation(self) -> list[Seen]:
        """The validation split, batch by batch."""
        return list(self.seen("validation"))

    def measure(self, outputs_of: Callable[[Tensor], Tensor],
                of: Sequence[Seen] | None = None) -> dict[str, float]:
        """The metrics, `loss` among them, of a layer that is not in the model.

        Args:
            outputs_of: computes a batch's outputs from its features.
            of: batches of a split without groups; None for the validation split.
        """
        task = self.data.task
        groups = groups_of(self.data.splits, "validation") if of is None else None
        scores = SplitScores(task, groups)
        with torch.no_grad():
            for seen in self.validation if of is None else of:
                outputs = outputs_of(seen.features)
                predictions = task.predict(self.model, seen.batch, outputs)
                loss = task.loss(outputs, seen.batch)
                scores.update(predictions, seen.batch, loss)
        return scores.compute()

    def score(self, outputs_of: Callable[[Tensor], Tensor]) -> tuple[float, float]:
        """The selecting metric, more is better, and the negative loss for what it leaves equal."""
        found = self.measure(outputs_of)
        return (1 if self.upwards else -1) * found[self.select_by], -found["loss"]


def _tokens(seen: list[Seen]) -> Rows:
    kept = [(each.features[where], each.batch["target"]["labels"][where]) for each in seen
            for where in [each.batch["target"]["labels"] != IGNORED]]
    features, labels = (torch.cat(parts) for parts in zip(*kept, strict=True))
    return Rows(features.double(), {"target": {"labels": labels[:, None]},
                                    "index": torch.arange(len(labels), device=labels.device)})


def linear_head(model: TaskModel) -> tuple[str, nn.Linear] | None:
    """The name and the layer of a head that is one linear layer; None for other heads."""
    own = [(name, module) for name, module in model.head.named_modules()
           if any(True for _ in module.parameters(recurse=False))]
    name, layer = own[-1] if own else ("", None)
    return (name, layer) if len(own) == 1 and isinstance(layer, nn.Linear) else None


def require_linear_head(model: TaskModel, technique: str) -> tuple[str, nn.Linear]:
    """The same, for a technique that goes with nothing else.

    Raises:
        Incompatible: the head is none, or has more layers.
    """
    require_new_head(model, technique)
    found = linear_head(model)
    if found is None:
        raise Incompatible(f"{technique} puts a classifier on the backbone's own features, and "
                           "this head has new layers before its last",
                           "give the backbone a pooling, whose head is one linear layer")
    return found


def require_task(data: DataModule, technique: str, fits: tuple[str, ...], mend: str) -> None:
    """Refuse a task whose outputs a baseline on features cannot give.

    Args:
        data: loaded.
        technique: its name.
        fits: transformers' `problem_type` of the tasks that go.
        mend: what to take instead.

    Raises:
        Incompatible: the task is of another kind.
    """
    task = data.task
    if task.output_type != "vector" or task.problem_type not in fits:
        raise Incompatible(f"{technique} does not go with the task {type(task).__name__}", mend)
