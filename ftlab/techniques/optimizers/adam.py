from __future__ import annotations

from typing import Any

import torch

from ftlab.techniques.optimizers.base import Optimizer, fused


class Adam(Optimizer):
    """Adam; weight decay is added to the gradient.

    Kingma, Ba (2015), https://arxiv.org/abs/1412.6980
    """

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return fused(torch.optim.Adam, groups)
