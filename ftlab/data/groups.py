"""Groups of a data set's examples, by its column `group`, and the scores of a split over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from ftlab.data.batches import pick
from ftlab.data.examples import Examples, SplitName, kind_of
from ftlab.errors import Incompatible
from ftlab.tasks.base import Task
from ftlab.tasks.class_names import metric_keys, name_order
from ftlab.tasks.over_groups import bare, single, summarised
from ftlab.wording import did_you_mean, listed

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

    @property
    def scored(self) -> set[int]:
        """Codes of the groups that have a score in the split: those of two examples or more."""
        return {code for code, count in Counter(self.codes.tolist()).items() if count > 1}


def groups_of(splits: Mapping[SplitName, Examples], split: SplitName) -> Groups | None:
    """The groups of a split; None where the data set has no column `group`, or too many values.

    Args:
        splits: of the data set, read.
        split: one of them.
    """
    names = group_names(splits)
    if not names:
        return None
    codes = {name: code for code, name in enumerate(names)}
    train = Counter(splits["train"].columns[GROUP])
    return Groups(names, torch.tensor([codes[name] for name in splits[split].columns[GROUP]]),
                  tuple(train[name] / train.total() for name in names))


def required_groups(splits: Mapping[SplitName, Examples], split: SplitName, asked_by: str) -> Groups:
    """The groups of a split, for a technique that reads them.

    Args:
        splits: of a data set with a column `group`.
        split: one of them.
        asked_by: name of the technique.

    Raises:
        Incompatible: there are too many.
    """
    groups = groups_of(splits, split)
    if groups is None:
        raise Incompatible(f"{asked_by} wants at most {MOST} groups, and the column {GROUP!r} has "
                           f"{len(_values(splits))} values", "bin them")
    return groups


def group_names(splits: Mapping[SplitName, Examples]) -> tuple[str, ...]:
    """The groups of all splits but streams, numbers first; none without a column `group`."""
    names = _values(splits)
    return tuple(sorted(names, key=name_order)) if len(names) <= MOST else ()


def note_groups(splits: Mapping[SplitName, Examples]) -> list[str]:
    """Notes on groups that have no scores: too many, lacking in a split, or of one example there."""
    names = group_names(splits)
    if not names and (many := len(_values(splits))):
        text = f"columns: {GROUP} has {many} values, more than the {MOST} that can have scores: bin them"
        return [text]
    notes = []
    for split, examples in splits.items() if names else ():
        if kind_of(split) == "train":
            continue
        counts = Counter(examples.columns[GROUP])
        for count, what in ((0, "no example"), (1, "one example")):
            if few := [repr(name) for name in names if counts[name] == count]:
                more = f" and {len(few) - 5} more" if len(few) > 5 else ""
                notes.append(f"the {split} split has {what} of group {listed(few[:5])}{more}, which "
                             "has no score there")
    return notes


class Fault(NamedTuple):
    """A reason against a metric over groups, in the words of a sentence, and how to mend it."""

    what: str
    mend: str


def faulty_groups(metric: str, task: Task, splits: Mapping[SplitName, Examples], split: SplitName
                  ) -> Fault | None:
    """The reason why a metric over groups says nothing of a split; None where it does.

    Args:
        metric: over groups, without split prefix.
        task: of the data set.
        splits: of it, with targets.
        split: one of them.
    """
    groups = groups_of(splits, split)
    if groups is None:
        many = len(_values(splits))
        return Fault(f"has {many} groups, more than the {MOST} that can have scores" if many else "has none",
                     "bin the values of the column" if many else
                     f"add columns: {{{GROUP}: COLUMN}} to the data set, or name another metric")
    more = f"join groups, give the {split} split more of it, or name another metric"
    sizes = torch.bincount(groups.codes, minlength=len(groups.names)).tolist()
    keys = metric_keys(groups.names)
    wanted = metric.partition("/")[2]
    if wanted and wanted not in keys:
        return Fault(f"has no group {wanted!r}", did_you_mean(wanted, keys))
    for code, (name, size) in enumerate(zip(groups.names, sizes, strict=True)):
        if size == 1 or (wanted == keys[code] and not size):
            count = "one example" if size else "no example"
            return Fault(f"has {count} of group {name!r} in its {split} split", more)
        targets = [target for target, own in zip(splits[split].targets, groups.codes.tolist(), strict=True)
                   if own == code]
        if targets and (reason := task.unmeasurable(bare(metric), targets)):
            return Fault(f"gives it no value for group {name!r} of the {split} split: {reason}", more)
    return None


def _values(splits: Mapping[SplitName, Examples]) -> set[str]:
    return {value for name, examples in splits.items() if name == "train" or kind_of(name) != "train"
            for value in examples.columns.get(GROUP, ())}


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
        self.by_group = nn.ModuleDict(
            {} if groups is None else {str(code): task.collection() for code in groups.scored})
        for module in self.by_group.modules():
            if isinstance(module, Metric):
                module.dist_sync_fn = _gathered

    def update(self, predictions: Any, batch: Mapping[str, Any], loss: Tensor | None = None) -> None:
        """Take a batch, of which `target` and `index` are read.

        Args:
            predictions: of the task.
            batch: in which the examples are.
            loss: the batch's mean; None for predictions of another system.
        """
        if self.loss.total.device != batch["index"].device:
            self.to(batch["index"].device)
        if loss is None:
            self.loss.update(torch.zeros(()), 0.0)
        else:
            self.loss.update(loss, self.task.weight(batch))
        self.metrics.update(predictions, batch["target"])
        if self.groups is None:
            return
        codes = self.groups.codes[batch["index"].cpu()]
        for code in codes.unique().tolist():
            if str(code) not in self.by_group:
                continue
            part = pick({"predictions": predictions, "target": batch["target"]},
                        (codes == code).nonzero().flatten().tolist())
            metrics: Any = self.by_group[str(code)]
            metrics.update(part["predictions"], part["target"])

    def compute(self) -> dict[str, float]:
        """The values by name; no loss where no batch had one."""
        computed: dict[str, Tensor] = dict(self.metrics.compute())
        total, weight = self.loss.compute()
        if weight:
            computed["loss"] = total / weight
        return self.task.scalars(computed | self._over_groups())

    def _over_groups(self) -> dict[str, Tensor]:
        if self.groups is None:
            return {}
        upwards = {metric.name: metric.higher_is_better for metric in single(self.task.metrics())}
        keys = metric_keys(self.groups.names)
        scores = {keys[int(code)]: metrics.compute()  # type: ignore[operator]  # a collection
                  for code, metrics in self.by_group.items()}
        return summarised(scores, dict(zip(keys, self.groups.shares, strict=True)), upwards)

    def reset(self) -> None:
        """Forget all batches."""
        for metric in (self.loss, self.metrics, *self.by_group.values()):
            metric.reset()  # type: ignore[operator]  # a metric, or a collection of them


class _MeanLoss(Metric):
    """Sum of the losses and of their weights, in float64; torchmetrics' mean is in float32 after `to`.

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

    def compute(self) -> tuple[Tensor, Tensor]:
        return self.total, self.weight


def _gathered(tensor: Tensor, group: Any = None) -> list[Tensor]:
    """A tensor of each process, of whatever shape, but for those that have nothing.

    torchmetrics' own wants like shapes, and a process may have no example of a group.
    """
    parts: list[Any] = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(parts, tensor.cpu(), group=group)
    return [part.to(tensor.device) for part in parts if part.numel()] or [tensor]
