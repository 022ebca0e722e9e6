from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ftlab.techniques.optimizers.base import Optimizer, fused, loss_of


class Muon(Optimizer):
    """Orthogonalised momentum for the matrices of the blocks, AdamW for all the rest.

    Embeddings, convolutions, vectors and the head are the rest. Its steps are scaled to the size
    of AdamW's, so that one rate serves both (Liu et al. 2025, https://arxiv.org/abs/2502.16982).

    Jordan, Jin, Boza, You, Cesista, Newhouse, Bernstein (2024),
    https://kellerjordan.github.io/posts/muon/
    """

    matrices_apart = True

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        hidden = [group for group in groups if group.get("hidden")]
        rest = [group for group in groups if not group.get("hidden")]
        parts: list[torch.optim.Optimizer] = []
        if hidden:
            parts.append(torch.optim.Muon(hidden, adjust_lr_fn="match_rms_adamw"))
        if rest:
            parts.append(fused(torch.optim.AdamW, rest))
        return _Joined(groups, parts)


class _Joined(torch.optim.Optimizer):
    """Several optimizers as one, which share groups and state with it.

    Args:
        groups: of all parts, in the order in which their rates are given.
        parts: each with some of the groups.
    """

    def __init__(self, groups: list[dict[str, Any]], parts: list[torch.optim.Optimizer]) -> None:
        super().__init__(groups, {})
        vars(self)["_step_supports_amp_scaling"] = False
        self.parts = parts
        for part in parts:
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch's overloads
        loss = loss_of(closure)
        for part in self.parts:
            part.step()
        return loss
