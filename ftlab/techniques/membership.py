"""A simple attack on a model: are examples that it has trained on told by their lower loss?"""

from __future__ import annotations

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from numpy.typing import NDArray

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.examples import SplitName
from ftlab.techniques.single_precision import in_single_precision

NORMAL = 1.959964  # two-sided 95%


def membership(model: TaskModel, data: DataModule) -> dict[str, float]:
    """Measure the attack: the area under its ROC curve, and the ends of its 95% interval.

    It calls an example a training example where its loss is below a threshold, for every
    threshold; 0.5 is guessing. Test examples are the others.
    Source: Yeom, Giacomelli, Fredrikson, Jha (2018), https://arxiv.org/abs/1709.01604

    Args:
        model: trained, in eval mode.
        data: of the run.

    Returns:
        Empty where the task has no loss of each example.
    """
    if not data.task.of_examples:
        return {}
    area, low, high = auc(losses(model, data, "test"), losses(model, data, "train"))
    return {"membership_auc": area, "membership_auc_low": low, "membership_auc_high": high}


def losses(model: TaskModel, data: DataModule, split: SplitName) -> NDArray[np.float64]:
    """The loss of each example of a split, without augmentation."""
    device, task = next(model.parameters()).device, data.task
    found = []
    for raw in data.eval_loader(split):
        batch = move_data_to_device(raw, device)
        with torch.no_grad():
            values = task.losses(in_single_precision(model(batch)), batch)
        assert values is not None  # `of_examples`
        found.append(values.double().cpu())
    return torch.cat(found).numpy()


def auc(higher: NDArray[np.float64], lower: NDArray[np.float64]) -> tuple[float, float, float]:
    """The chance that a value of one sample is above one of another, ties by half, and its interval.

    It takes the examples for independent, so that it is too narrow where they are in clusters.

    Source: DeLong, DeLong, Clarke-Pearson (1988), https://doi.org/10.2307/2531595

    Args:
        higher: (N,).
        lower: (M,).
    """
    above = _shares_below(higher, lower)  # of each of `higher`, how much of `lower` lies below it
    below = 1 - _shares_below(lower, higher)
    error = float(np.sqrt(sum(part.var(ddof=1) / len(part) for part in (above, below)
                              if len(part) > 1)))
    area = float(above.mean())
    return area, max(0.0, area - NORMAL * error), min(1.0, area + NORMAL * error)


def _shares_below(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    ordered = np.sort(others)
    count = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return np.asarray(count / (2 * len(others)))
