"""Recognises linear probes: a linear layer on cached features, and everything else frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor, nn

from ftlab.data.examples import SPLITS, SplitName
from ftlab.techniques.base import Technique
from ftlab.training.evaluate import placing
from ftlab.training.guards import close
from ftlab.training.run import Run
from ftlab.training.shortcuts.base import NotApplicable
from ftlab.training.shortcuts.linear_heads.stacked_linear import OPTIMIZERS

PRECISIONS = {"32-true": torch.float32, "64-true": torch.float64, "bf16-mixed": torch.bfloat16}
"""Dtypes of the products; parameters are in float32 or float64."""
SAME_LOOP = {"adapt", "optimum", "prepare", "merge", "audit", "search_space", "space", "together", "identity_at_start"}
"""Attributes that a technique may override and still be trained by the loop of heads."""


@dataclass
class CachedHead:
    """A linear layer on cached features, and dropout on them.

    Attributes:
        linear: weight (O, D).
        names: of its parameters in the model, the weight first.
        dropouts: applied to the features, in order.
        features: (N, D) on the device, by the names of cached rows (`DataModule.cached_names`).
        target: of each split, on the device.
        products: what the layer computes in.
        views: names of the training features, which take turns, an epoch each.
    """

    linear: nn.Linear
    names: list[str]
    dropouts: list[nn.Module]
    features: dict[str, Tensor]
    target: dict[SplitName, Tensor]
    products: torch.dtype
    views: Sequence[str] = ("train",)

    def parameters(self) -> list[Tensor]:
        """Copies of the linear layer's."""
        return [parameter.detach().clone() for parameter in self.linear.parameters()]

    def training(self, epoch: int) -> Tensor:
        """The features that an epoch (from 0) trains on."""
        return self.features[self.views[epoch % len(self.views)]]

    def put(self, values: Sequence[Tensor]) -> None:
        """Give the linear layer other parameters."""
        with torch.no_grad():
            for parameter, value in zip(self.linear.parameters(), values, strict=True):
                parameter.copy_(value)

    def dropped(self, features: Tensor) -> Tensor:
        """Features with dropout, which draws from torch's generator as the model's own does."""
        for dropout in self.dropouts:
            features = dropout(features)
        return features


def find_head(run: Run, trainer: Trainer) -> CachedHead:
    """The head of a run whose features are cached; its model is left in training mode.

    Raises:
        NotApplicable: the run needs the Trainer, says why.
    """
    if not run.plain and not _names(run, SPLITS[:2]).keys() <= run.data.cached.keys():
        raise NotApplicable("its features are not cached")
    head = head_alone(run)
    _check(run, trainer, head)
    return head


def head_alone(run: Run) -> CachedHead:
    """The head of a run as its settings and its model have it, still without features.

    Raises:
        NotApplicable: the run needs the Trainer, says why.
    """
    technique, model = run.technique, run.technique.model
    overridden = [name for kind in type(technique).__mro__ if not issubclass(Technique, kind)
                  for name in vars(kind)
                  if hasattr(Technique, name) and name not in SAME_LOOP
                  and not name.startswith(("__", "_abc_"))]
    if run.plain:
        raise NotApplicable("--plain")
    if run.data.task.output_type != "vector":
        raise NotApplicable("its outputs are no vector an example")
    if overridden:
        raise NotApplicable(f"{type(technique).__name__} has its own {overridden[0]}")
    if technique.optim.optimizer not in OPTIMIZERS:
        raise NotApplicable(f"optimizer {technique.optim.optimizer}")
    if run.settings.processes > 1:
        raise NotApplicable("it has several devices")
    if run.settings.cuts_epochs:
        raise NotApplicable("its fit is counted in steps or seconds")
    if run.settings.precision not in PRECISIONS:
        raise NotApplicable(f"precision {run.settings.precision}")
    leaves = [m for _, m in model.head.named_modules() if not any(True for _ in m.children())]
    *dropouts, linear = leaves or [model]
    trains = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if (not isinstance(linear, nn.Linear) or not all(isinstance(m, nn.Dropout) for m in dropouts)
            or set(trains.values()) != set(linear.parameters())):
        raise NotApplicable("more trains than a linear layer on the features")
    names = [next(name for name, p in trains.items() if p is parameter)
             for parameter in linear.parameters()]
    views = tuple(_names(run, SPLITS[:1]))
    return CachedHead(linear, names, dropouts, {}, {}, PRECISIONS[run.settings.precision], views)


def _names(run: Run, splits: Sequence[SplitName]) -> dict[str, SplitName]:
    return run.data.cached_names(splits, run.settings.max_epochs)


def _check(run: Run, trainer: Trainer, head: CachedHead) -> None:
    """Hold the head alone to the whole model, on a batch, with dropout and without."""
    data, technique, device = run.data, run.technique, trainer.strategy.root_device
    for name, split in _names(run, SPLITS[:2]).items():
        (features,) = data.cached[name].rows(torch.arange(len(data.splits[split])), [None])
        target = data.task.stack(data.splits[split].targets)
        if not isinstance(target, Tensor) or features.ndim != 2:
            raise NotApplicable("what the head reads is no vector an example")
        head.features[name], head.target[split] = features.to(device), target.to(device)
    batch: Any = placing(trainer, device)(next(iter(data.train_dataloader())))
    features = head.training(0)[batch["index"]]
    technique.model.to(device)
    context = trainer.precision_plugin.forward_context
    for mode in (False, True):
        technique.train(mode)
        with torch.random.fork_rng(_cuda(device)), torch.no_grad(), context():
            whole = technique.model(batch)
        with torch.random.fork_rng(_cuda(device)), torch.no_grad(), context():
            alone = head.linear(head.dropped(features))
        if not isinstance(whole, Tensor) or not close([whole], [alone]):
            raise NotApplicable("its outputs are not those of its linear layer on the features")
    if data.task.slope(whole[None], batch["target"][None]) is None:
        raise NotApplicable("its loss states no gradient in closed form")


def _cuda(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
