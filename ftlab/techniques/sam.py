from __future__ import annotations

import torch
from torch import Tensor

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.tasks.base import Task
from ftlab.tasks.losses.base import at_least_float32
from ftlab.techniques.base import Choice, Technique
from ftlab.techniques.trained_tensors import computed_at, copies, parameters, statistics
from ftlab.techniques.wrapper import MOVES, Wrapper


class SAM(Wrapper):
    """Follow the gradient at the worst weights nearby, towards flat minima (a wrapper).

    Sharpness-aware minimisation: g is the gradient at w, and the step's gradient is that at
    w + rho g / |g|. Both passes drop the same units, and batch norms take their statistics from
    the first. The loss that is shown is the one at w. A step costs two. Take it where the
    training loss is near zero and the validation loss is not.

    Foret, Kleiner, Mobahi, Neyshabur (2021), https://arxiv.org/abs/2010.01412

    Args:
        technique: what adapts the model.
        rho: distance to the worst weights, 0 (plain training) or more; 0.05 in the paper.
    """

    search_space = {"rho": Choice((0.01, 0.02, 0.05, 0.1, 0.2))}
    of_training = True
    does = frozenset({MOVES})
    single_batches = True

    def __init__(self, technique: Technique, rho: float = 0.05) -> None:
        super().__init__(technique)
        if rho < 0:
            raise ValueError(f"rho must be 0 or more, got {rho}")
        self.rho = rho

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        if not self.rho:
            return self.technique.objective(model, task, batch)
        weights, device = parameters(model), batch["index"].device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            loss = self.technique.objective(model, task, batch)
        gradients = dict(zip(weights, torch.autograd.grad(
            loss, list(weights.values()), allow_unused=True), strict=True))
        found = {name: gradient for name, gradient in gradients.items() if gradient is not None}
        norm = torch.stack([at_least_float32(g).norm() for g in found.values()]).norm()
        scale = self.rho / (norm + 1e-12)
        worst = {name: weights[name] + (scale * gradient).to(gradient.dtype)
                 for name, gradient in found.items()}
        own = copies(statistics(model))  # for the second pass to change
        there: Tensor = computed_at(
            model, worst | own, lambda model: self.technique.objective(model, task, batch))
        return loss.detach() + (there - there.detach())
