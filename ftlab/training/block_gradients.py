"""The size of each block's gradient: where it vanishes or explodes on its way back."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlab.backbones.task_model import TaskModel
from ftlab.training.fsdp import full

REST = "rest"
"""Name of all that a technique has added outside every block."""


class BlockGradients:
    """Gradient norms by block, before clipping, of the steps that are looked at.

    Norms stay on their device until an epoch is over, so that no step waits for it.
    """

    def __init__(self) -> None:
        self._owner: dict[str, str] = {}
        self._seen: list[dict[str, Tensor]] = []

    def look(self, model: TaskModel) -> Tensor:
        """Take the gradients that there are; returns the norm of them all, a scalar.

        Sharded gradients are gathered, so all ranks must look together.
        """
        parts: dict[str, list[Tensor]] = {}
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                parts.setdefault(self._block(model, name), []).append(parameter.grad)
        norms = {name: _at_least_single(full(torch.nn.utils.get_total_norm(gradients)))
                 for name, gradients in parts.items()}
        if not norms:  # the guard says which parameters should have had one
            return torch.zeros(())
        self._seen.append(norms)
        return torch.linalg.vector_norm(torch.stack(list(norms.values())))

    def take(self) -> dict[str, float]:
        """`train/grad_norm/<block>` since the last call: the root mean square over its steps.

        Nothing where a single block trains, a head on frozen features say: there is nothing to
        compare it with, and `train/grad_norm` is the same.
        """
        seen, self._seen = self._seen, []
        names = list(dict.fromkeys(name for norms in seen for name in norms))
        squares = [torch.stack([norms[name] for norms in seen if name in norms]).square().mean()
                   for name in names]
        if len(squares) < 2:
            return {}
        values = torch.stack(squares).sqrt().tolist()
        return {f"train/grad_norm/{name}": value
                for name, value in zip(names, values, strict=True)}

    def _block(self, model: TaskModel, parameter: str) -> str:
        """The block of a parameter; found once, since looking at every path takes milliseconds."""
        if parameter not in self._owner:
            blocks = [*model.blocks, model.head]
            self._owner |= {name: next((b.name for b in blocks if b.holds(name)), REST)
                            for name, _ in model.named_parameters()}
        return self._owner[parameter]


def _at_least_single(norm: Tensor) -> Tensor:
    """Half precision has three digits, which squares and means would lose."""
    return norm.to(torch.promote_types(norm.dtype, torch.float32))
