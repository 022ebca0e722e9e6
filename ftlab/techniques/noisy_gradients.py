"""The gradient of differentially private training: clipped by example, summed, with noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ftlab.backbones.task_model import Batch
from ftlab.data.base import DataModule
from ftlab.data.batches import pick
from ftlab.errors import Incompatible
from ftlab.tasks.losses.base import at_least_float32


def clipped_sums(
    objective: Callable[[Batch], Tensor], parameters: Sequence[Tensor], batch: Batch, clip: float
) -> tuple[list[Tensor], Tensor]:
    """Sum the gradients of a batch's examples, each cut to a norm, and average the losses.

    Args:
        objective: of a batch of one example.
        parameters: by which it is derived.
        batch: with any number of examples, or none.
        clip: largest norm of an example's gradient, over all parameters.

    Returns:
        A sum for each parameter, in float32 at least, and the mean loss, 0 of no examples.
    """
    sums = [torch.zeros_like(at_least_float32(p)) for p in parameters]
    mean = torch.zeros((), device=batch["index"].device)
    count = len(batch["index"])
    for position in range(count):
        loss = objective(pick(batch, [position]))
        given = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradients = [None if g is None else at_least_float32(g) for g in given]
        norm = torch.stack([g.norm() for g in gradients if g is not None]).norm()
        scale = (clip / (norm + 1e-6)).clamp(max=1)
        for total, gradient in zip(sums, gradients, strict=True):
            if gradient is not None:
                total.addcmul_(gradient, scale)  # without a copy of the gradient
        mean = mean + loss.detach() / count
    return sums, mean


def add_noise(sums: Sequence[Tensor], deviation: float, seeds: Sequence[int]) -> None:
    """Add independent normal noise to every number, in place.

    Args:
        sums: on one device.
        deviation: of the noise.
        seeds: from which it follows, whatever was drawn before.
    """
    device = sums[0].device
    # a last number that data sets, which draw by seed and epoch, do not have
    high, low = np.random.SeedSequence([*seeds, 0xD9]).generate_state(2, np.uint32)
    generator = torch.Generator(device).manual_seed(int(high) << 31 | int(low) >> 1)
    for total in sums:
        total.add_(torch.randn(total.shape, generator=generator, dtype=total.dtype, device=device),
                   alpha=deviation)


def with_gradients(parameters: Sequence[Tensor], gradients: Sequence[Tensor], value: Tensor) -> Tensor:
    """A scalar of a given value, whose gradients by the parameters are the given ones."""
    parts = [(p * g.to(p.dtype)).sum().to(value.dtype)
             for p, g in zip(parameters, gradients, strict=True)]
    surrogate = torch.stack(parts).sum()
    return surrogate - surrogate.detach() + value


def check_examples(data: DataModule) -> None:
    """Refuse data and tasks in which the loss of a row is not that of one example alone.

    Raises:
        Incompatible: with the reason.
    """
    if data.packs or data.mixes:
        what, mend = (("packs several examples in a row", "set packing: false") if data.packs else
                      ("mixes several examples in one", "set augment: {mix: none}"))
        raise Incompatible(f"DifferentiallyPrivate clips the gradient of each example, and the data "
                           f"set {what}", mend)
    task = data.task
    if task.output_type != "vector":
        return
    if not task.of_examples:
        raise Incompatible("DifferentiallyPrivate clips the gradient of each example, and the loss of "
                           f"this task ({type(task).__name__}) is not a mean of theirs",
                           "give the task another loss")
    if task.kept_of_targets:
        raise Incompatible(f"DifferentiallyPrivate hides each example, and {task.kept_of_targets}",
                           "give the task a loss that reads no counts, or leave the wrapper out")
    weights = task.weights(next(iter(data.val_dataloader())))
    if not bool((weights == 1).all()):
        raise Incompatible("DifferentiallyPrivate divides by the expected number of examples, and "
                           "the loss weighs them by class, by counts that are not private",
                           "give the task a loss without weights")
