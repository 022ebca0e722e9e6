"""Metrics over groups of examples: of each group, of the worst, the gap, the mean by train's shares."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ftlab.tasks.metric import Metric
from ftlab.tracking.metric_facts import PER_CLASS, Unit

WORST, GAP, REWEIGHTED, OF_EACH = "worst_", "gap_", "reweighted_", "_by_group"
"""Parts of names: `worst_accuracy`, `gap_accuracy`, `reweighted_accuracy`, `accuracy_by_group/<group>`."""


def single(metrics: Sequence[Metric]) -> list[Metric]:
    """The metrics that are measured and give one number, of which groups have scores."""
    return [metric for metric in metrics
            if metric.make is not None and not metric.name.endswith(PER_CLASS)]


def over_groups(metrics: Sequence[Metric]) -> list[Metric]:
    """The metrics over groups of those that give one number.

    Args:
        metrics: of a task.
    """
    def renamed(metric: Metric, name: str, higher_is_better: bool, unit: Unit | None = None) -> Metric:
        return replace(metric, name=name, make=None, higher_is_better=higher_is_better,
                       unit=unit or metric.unit, per_example=None, right_or_wrong=False)

    return [made for metric in single(metrics) for made in (
        renamed(metric, f"{WORST}{metric.name}", metric.higher_is_better),
        renamed(metric, f"{GAP}{metric.name}", False,
                metric.unit if metric.unit in ("share", "fraction", "error rate") else "non-negative"),
        renamed(metric, f"{REWEIGHTED}{metric.name}", metric.higher_is_better),
        renamed(metric, f"{metric.name}{OF_EACH}{PER_CLASS}", metric.higher_is_better))]


def over_group(name: str, metrics: Sequence[Metric]) -> Metric | None:
    """The metric over groups of a name; None where there is none.

    Args:
        name: without split prefix; `accuracy_by_group/<group>` with the name of any group.
        metrics: of a task.
    """
    family = f"{name.partition('/')[0]}{PER_CLASS}" if "/" in name else name
    return next((entry for entry in over_groups(metrics) if entry.name in (name, family)), None)


def parsed(name: str) -> tuple[str, str, str] | None:
    """Metric, part (`group`, `worst`, `gap` or `reweighted`) and group, if any; None for other names.

    Args:
        name: without split prefix.
    """
    family, slash, group = name.partition("/")
    if slash and family.endswith(OF_EACH):
        return family.removesuffix(OF_EACH), "group", group
    return next(((name.removeprefix(begins), begins.rstrip("_"), "")
                 for begins in (WORST, GAP, REWEIGHTED) if name.startswith(begins)), None)


def of_which(metric: str, measured: Collection[str]) -> str | None:
    """The metric whose scores of groups are shown for a study's: its own, or else the first that has any.

    Args:
        metric: with split prefix; over groups or not.
        measured: names of all that runs measured.

    Returns:
        With split prefix; None where no metric has scores of groups.
    """
    split, _, name = metric.partition("/")
    begins = f"{split}/{WORST}"
    if f"{begins}{bare(name)}" in measured:
        return f"{split}/{bare(name)}"
    return next((f"{split}/{worst.removeprefix(begins)}" for worst in sorted(measured)
                 if worst.startswith(begins)), None)


def bare(name: str) -> str:
    """The metric that one over groups is of, `accuracy` of `worst_accuracy`; another name as it is."""
    found = parsed(name)
    return name if found is None else found[0]


def summarised(
    scores: Mapping[str, Mapping[str, Tensor]], shares: Mapping[str, float],
    higher_is_better: Mapping[str, bool],
) -> dict[str, Tensor]:
    """The metrics over groups, computed.

    Args:
        scores: metrics of each group (by its key in names), those that give one number.
        shares: of the training examples by group; those that it lacks have none.
        higher_is_better: direction of each metric.

    Returns:
        Groups without a value (not a number) are left out, and metrics that none has one of.
    """
    computed: dict[str, Tensor] = {}
    for name, upwards in higher_is_better.items():
        values = {group: metrics[name].double() for group, metrics in scores.items()
                  if name in metrics and metrics[name].numel() == 1
                  and not bool(torch.isnan(metrics[name]))}
        if not values:
            continue
        computed |= {f"{name}{OF_EACH}/{group}": value for group, value in values.items()}
        every = torch.stack([value.reshape(()) for value in values.values()])
        weights = torch.tensor([shares.get(group, 0.0) for group in values]).to(every)
        computed[f"{WORST}{name}"] = every.min() if upwards else every.max()
        computed[f"{GAP}{name}"] = every.max() - every.min()
        if float(weights.sum()):
            computed[f"{REWEIGHTED}{name}"] = (weights * every).sum() / weights.sum()
    return computed
