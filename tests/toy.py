"""A network of two layers in float64, whose losses and gradients a test can work out itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ftlab.backbones.task_model import TaskModel
from ftlab.tasks.base import Task


class Squares(Task):
    """Half the squared outputs, summed over them, mean over examples."""

    one_class = True

    def fit(self, labels: Any) -> None: ...

    def encode(self, label: Any, where: str) -> Any: ...

    def loss(self, outputs: Tensor, batch: Any) -> Tensor:
        return outputs.square().sum(dim=1).mean() / 2

    def metrics(self) -> list[Any]:
        return []

    def records(self, predictions: Any, target: Any) -> dict[str, list[Any]]:
        return {}


def toy(seed: int = 0) -> TaskModel:
    """Linear 5 to 4, tanh, and a head 4 to 3."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    return TaskModel(network, [("0", ["0"])], head=["2"])


def batch(examples: int = 6, seed: int = 1) -> dict[str, Any]:
    inputs = torch.randn(examples, 5, dtype=torch.float64,
                         generator=torch.Generator().manual_seed(seed))
    return {"inputs": {"input": inputs}, "index": torch.arange(examples)}


def shift(model: TaskModel, seed: int = 4) -> None:
    """Move all parameters, as a fit would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator, dtype=torch.float64)


def gradients(model: TaskModel, loss: Tensor) -> dict[str, Tensor]:
    names = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(names.values()), allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g
            for (name, p), g in zip(names.items(), found, strict=True)}
