from __future__ import annotations

from typing import Any

import torch

from ftlab.techniques.optimizers.base import Optimizer


class Adafactor(Optimizer):
    """Second moments by row and column alone, steps in proportion to each tensor's size.

    It takes next to no memory. PyTorch's, without the paper's schedule of the rate.

    Shazeer, Stern (2018), https://arxiv.org/abs/1804.04235
    """

    rate = 20.0  # times the root mean square of a tensor, some 0.05 in pre-trained networks

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.Adafactor(groups)
