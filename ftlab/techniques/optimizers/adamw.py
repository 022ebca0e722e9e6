from __future__ import annotations

from typing import Any

import torch

from ftlab.techniques.optimizers.base import Optimizer, fused


class AdamW(Optimizer):
    """Adam with decoupled weight decay.

    Loshchilov, Hutter (2019), https://arxiv.org/abs/1711.05101
    """

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return fused(torch.optim.AdamW, groups)
