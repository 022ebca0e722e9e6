from __future__ import annotations

from peft import PrefixTuningConfig

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.techniques.base import Choice, LogUniform, Optimization, Technique
from ftlab.techniques.prompt_learning import (
    bounds,
    note_token_types,
    refuse_packing,
    wrap_with_virtual_tokens,
)


class PrefixTuning(Technique):
    """Train keys and values of virtual tokens that every layer attends to, and the head.

    Li, Liang (2021), https://arxiv.org/abs/2101.00190; without the reparametrisation for
    classification: Liu et al. 2022, https://arxiv.org/abs/2110.07602 (P-tuning v2).

    Args:
        tokens: how many virtual tokens.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-3, 1e-1), "tokens": Choice((5, 10, 20, 50))}
    identity_at_start = False  # random keys and values take attention from the text

    def __init__(
        self, tokens: int = 10, lr: float = 1e-2, optim: Optimization = Optimization()
    ) -> None:
        super().__init__(lr, optim)
        if tokens < 1:
            raise ValueError(f"tokens must be at least 1, got {tokens}")
        self.tokens = tokens
        self.lengths: dict[str, int] = {}

    def prepare(self, data: DataModule) -> None:
        refuse_packing(data, "PrefixTuning")
        note_token_types(data, "PrefixTuning")
        self.lengths = bounds(data, "max_length", "max_target_length")
        if "max_target_length" in self.lengths:  # what a decoder generates goes behind the prefix too
            self.lengths |= bounds(data, "max_new_tokens")

    def adapt(self, model: TaskModel) -> None:
        config = PrefixTuningConfig(num_virtual_tokens=self.tokens)
        wrap_with_virtual_tokens(model, "PrefixTuning", config, "past_key_values", self.lengths)
