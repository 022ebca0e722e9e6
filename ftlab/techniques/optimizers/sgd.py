from __future__ import annotations

from typing import Any

import torch

from ftlab.techniques.optimizers.base import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent with a momentum of 0.9.

    Sutskever, Martens, Dahl, Hinton (2013), https://proceedings.mlr.press/v28/sutskever13.html
    """

    rate = 100.0  # 0.01 to 0.1 where AdamW takes 1e-4 to 1e-3: Kornblith et al. 2019, appendix

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, momentum=0.9)
