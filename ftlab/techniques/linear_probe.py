from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.fabric.utilities import move_data_to_device

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.batches import pick
from ftlab.data.sampling import Natural
from ftlab.techniques.base import (
    Choice,
    LogUniform,
    Optimization,
    SearchSpace,
    Technique,
    freeze_all_but_head,
    require_new_head,
)
from ftlab.techniques.contract import KEEPS_OPTIMUM
from ftlab.techniques.features import linear_head
from ftlab.techniques.head_optimum import ByEpochs, HeadOptimum, HeadProblem, Solver

MOST_BYTES = 8e9
"""Memory that the rows of a problem may take, in float64."""


class LinearProbe(Technique):
    """Feature extraction: fit the head alone on the frozen backbone's features, to its optimum.

    Take it first: what it reaches is what the features hold, in seconds. A linear head's loss is
    convex, so its minimum is computed from the features of all training rows (L-BFGS in float64;
    for squared errors one step, ridge regression), with the weight decay that validation prefers,
    and the fit fails where the gradient does not vanish. Dropout in the head has no place at an
    optimum and is left out. The optimum does not depend on the seed: all seeds give the same, with
    a standard deviation of 0, unless splits or subset differ between them.

    By epochs it trains as every other technique, which `solver: null` asks for; and, with a note,
    where there is no such optimum: a head of several layers, a loss that is not convex (focal,
    absolute error), examples that are drawn by class, augmentation or mixtures that are new in
    every epoch (a fixed number of `views` is solved). Only epochs read `lr` and `optim`.

    Alain, Bengio (2016), https://arxiv.org/abs/1610.01644; as a way of transfer, and solved:
    Kornblith, Shlens, Le (2019), https://arxiv.org/abs/1805.08974.

    Args:
        lr: peak learning rate; a linear layer bears far more than a backbone.
        optim: optimizer, weight decay and schedule.
        solver: lbfgs, or null for epochs of `optim`.
        decay: of the optimum: mean loss + decay / 2 * squared weights (without bias), above 0;
            null for the best of up to 17 values, by the metric that selects, then by the loss.
    """

    search_space = {"decay": Choice((1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0))}
    together = "heads"

    def __init__(
        self, lr: float = 5e-3, optim: Optimization = Optimization(weight_decay=0.0),
        solver: Literal["lbfgs"] | None = "lbfgs", decay: float | None = None,
    ) -> None:
        super().__init__(lr, optim)
        if solver not in ("lbfgs", None):
            raise ValueError(f"solver must be lbfgs or null, got {solver!r}")
        if decay is not None and solver is None:
            raise ValueError("decay must be null where solver is, which has optim: {weight_decay: ...}")
        if decay is not None and decay <= 0:
            raise ValueError(f"decay must be above 0, got {decay}")
        self.solver, self.decay = solver, decay

    @classmethod
    def space(cls, arguments: Mapping[str, Any]) -> SearchSpace:
        return {"lr": LogUniform(1e-4, 1e-1)} if arguments["solver"] is None else cls.search_space

    def adapt(self, model: TaskModel) -> None:
        require_new_head(model, "LinearProbe")
        freeze_all_but_head(model)

    def optimum(self, model: TaskModel, data: DataModule) -> Solver | None:
        if self.solver is None:
            return None
        if own := self.hooks - KEEPS_OPTIMUM:  # of a class derived from this one
            raise ByEpochs(f"{type(self).__name__} has its own {min(own)}")
        _require_optimum(model, data)
        return self._solve

    def _solve(self, problem: HeadProblem) -> HeadOptimum:
        return problem.best(problem.decays()) if self.decay is None else problem.at(self.decay)


def _require_optimum(model: TaskModel, data: DataModule) -> None:
    """Find out whether there is an optimum that can be computed.

    Raises:
        ByEpochs: there is none; says why.
    """
    task, augment = data.task, getattr(data, "augment", None)
    found = linear_head(model)
    if found is None or task.output_type not in ("vector", "tokens"):
        raise ByEpochs("the head is more than one linear layer")
    if {p for p in model.parameters() if p.requires_grad} != set(found[1].parameters()):
        raise ByEpochs("more trains than the head")
    # a task that inherits the fact, and has a loss of its own, does not state it
    kinds = type(task).__mro__
    stating, losing = (next(i for i, kind in enumerate(kinds) if name in vars(kind))
                       for name in ("convex", "loss"))
    if not task.convex or stating > losing:
        raise ByEpochs("the loss is not known to be convex and smooth")
    if type(data.sampling) is not Natural:
        raise ByEpochs(f"sampling {type(data.sampling).__name__} draws examples anew every epoch")
    if augment is not None and getattr(augment, "mix", "none") != "none":
        raise ByEpochs("mixtures of a batch's examples are new every time")
    if augment is not None and not data.views:
        raise ByEpochs("augmentation changes the examples every epoch (augment: {views: 4} would "
                       "keep four)")
    _, layer = found
    lengths = data.lengths("train") if task.output_type == "tokens" else None
    rows = sum(lengths) if lengths else len(data.splits["train"]) * (data.views or 1)
    if (size := 8.0 * rows * (2 * layer.in_features + 6 * layer.out_features)) > MOST_BYTES:
        raise ByEpochs(f"{rows:,} rows would take {size / 1e9:.0f} GB in float64")
    device = next(model.parameters()).device
    sample = move_data_to_device(pick(next(iter(data.val_dataloader())), [0]), device)
    model.eval()
    with torch.no_grad():
        watched = model.watched(sample)
        read = watched.read if task.output_type == "tokens" else watched.features
        alone = layer(read)
    if alone.shape != watched.outputs.shape or not torch.allclose(
            alone.float(), watched.outputs.float(), rtol=1e-2, atol=1e-3):
        raise ByEpochs("the outputs are not those of the head's linear layer on its features")
