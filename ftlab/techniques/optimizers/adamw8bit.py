from __future__ import annotations

from typing import Any

import torch

from ftlab.errors import InputError
from ftlab.techniques.optimizers.base import Optimizer


class AdamW8bit(Optimizer):
    """AdamW whose two averages are kept in 8 bits, in blocks of 256 numbers: a quarter of its state.

    Take it where the optimizer's state is what fills the memory: full fine-tuning of large
    networks. Its rate is AdamW's. Tensors of fewer than 4,096 numbers keep 32 bits. It is
    bitsandbytes', on GPUs and CPUs.

    Dettmers, Lewis, Shleifer, Zettlemoyer (2022), https://arxiv.org/abs/2110.02861
    """

    package = "bitsandbytes"

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        try:
            from bitsandbytes.optim import AdamW8bit as Adam8  # takes seconds to import
        except ImportError as error:
            raise InputError("the optimizer adamw8bit is bitsandbytes', which is not installed",
                             "pip install 'ftlab[quantized]', or take another") from error
        optimizer: torch.optim.Optimizer = Adam8(groups)
        return optimizer
