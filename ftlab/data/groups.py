"""Groups of a data set's examples, by its column `group`, and the scores of a split over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from ftlab.data.batches import pick
from ftlab.data.examples import Examples, SplitName, kind_of
from ftlab.errors import InputError
from ftlab.tasks.base import Task
from ftlab.tasks.class_names import metric_keys, name_order
from ftlab.tasks.over_groups import summarised
from ftlab.tracking.metric_facts import PER_CLASS
from ftlab.wording import listed

GROUP = "group"
"""The column whose values divide the examples into groups, which have scores of their own."""
MOST = 100
"""Groups, each of which has a score for each metric."""


@dataclass(frozen=True)
class Groups:
    """Groups of a split's examples.

    Attributes:
        names: of all groups of the data set, in order.
        codes: position in `names` of each example of the split (N,).
        shares: of the training examples, by `names`.
    """

    names: tuple[str, ...]
    codes: Tensor
    shares: tuple[float, ...]


def groups_of(splits: Mapping[SplitName, Examples], split: SplitName) -> Groups | None:
    """The groups of a split; None where the data set has no column `group`.

    Args:
        splits: of the data set, read.
        split: one of them.
    """
    if GROUP not in splits[split].columns:
        return None
    names = group_names(splits)
    codes = {name: code for code, name in enumerate(names)}
    train = Counter(splits["train"].columns[GROUP])
    return Groups(names, torch.tensor([codes[name] for name in splits[split].columns[GROUP]]),
                  tuple(train[name] / train.total() for name in names))


def group_names(splits: Mapping[SplitName, Examples]) -> tuple[str, ...]:
    """The groups of all splits but streams, numbers first; none without a column `group`."""
    used = [examples for name, examples in splits.items() if name == "train" or kind_of(name) != "train"]
    names = {name for examples in used for name in examples.columns.get(GROUP, ())}
    return tuple(sorted(names, key=name_order))


def check_groups(splits: Mapping[SplitName, Examples]) -> list[str]:
    """Notes on groups that a split lacks.

    Raises:
        InputError: a group of one example in a split that is measured, or more groups than `MOST`.
    """
    names = group_names(splits)
    if len(names) > MOST:
        raise InputError(f"columns: {GROUP}: {len(names)} values, and each has scores of its own; "
                         f"at most {MOST} are possible",
                         "bin the values, or give the column another name, which has no scores")
    notes = []
    for split, examples in splits.items():
        if not names or (split != "train" and kind_of(split) == "train"):
            continue
        counts = Counter(examples.columns[GROUP])
        single = [name for name in names if counts[name] == 1 and split != "train"]
        if single:
            raise InputError(
                f"columns: {GROUP}: the {split} split has one example of group {single[0]!r}, whose "
                "score would say nothing", "join the group with another, give the split more of it, "
                "or leave the column out")
        if lacking := [repr(name) for name in names if not counts[name]]:
            notes.append(f"the {split} split has no example of group {listed(lacking[:5])}"
                         + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""))
    return notes


class SplitScores(nn.Module):
    """The metrics of a split, `loss` among them, and those over its groups.

    Args:
        task: whose metrics they are.
        groups: of the split's examples; None where it has none.
    """

    def __init__(self, task: Task, groups: Groups | None = None) -> None:
        super().__init__()
        self.task, self.groups = task, groups
        self.metrics = task.collection()
        self.loss = _MeanLoss()
        if groups is not None:
            self.by_group = nn.ModuleDict(
                {str(code): task.collection() for code in groups.codes.unique().tolist()})

    def update(self, predictions: Any, batch: Mapping[str, Any], loss: Tensor | None = None) -> None:
        """Take a batch, of which `target` and `index` are read.

        Args:
            predictions: of the task.
            batch: in which the examples are.
            loss: the batch's mean; None where nobody knows it.
        """
        if loss is not None:
            self.loss.update(loss, self.task.weight(batch))
        self.metrics.update(predictions, batch["target"])
        if self.groups is None:
            return
        codes = self.groups.codes[batch["index"].cpu()]
        for code in codes.unique().tolist():
            part = pick({"predictions": predictions, "target": batch["target"]},
                        (codes == code).nonzero().flatten().tolist())
            self.by_group[str(code)].update(part["predictions"], part["target"])  # type: ignore[operator]  # a collection

    def compute(self) -> dict[str, float]:
        """The values by name; no loss where no batch had one."""
        computed: dict[str, Tensor] = dict(self.metrics.compute())
        if self.loss.update_called:
            computed["loss"] = self.loss.compute()
        return self.task.scalars(computed | self._over_groups())

    def _over_groups(self) -> dict[str, Tensor]:
        if self.groups is None:
            return {}
        upwards = {metric.name: metric.higher_is_better for metric in self.task.metrics()
                   if metric.make is not None and not metric.name.endswith(PER_CLASS)}
        keys = metric_keys(self.groups.names)
        scores = {keys[int(code)]: metrics.compute()  # type: ignore[operator]  # a collection
                  for code, metrics in self.by_group.items()}
        return summarised(scores, dict(zip(keys, self.groups.shares, strict=True)), upwards)

    def reset(self) -> None:
        """Forget all batches."""
        for metric in (self.loss, self.metrics, *(self.by_group.values() if self.groups else ())):
            metric.reset()


class _MeanLoss(Metric):
    """Mean in float64, which torchmetrics' own gives up with `to`.

    A NaN stays one, so that its epoch is not the best.
    """

    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "weight"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, loss: Tensor, weight: float) -> None:
        self.total += loss.double() * weight
        self.weight += weight

    def compute(self) -> Tensor:
        return self.total / self.weight
