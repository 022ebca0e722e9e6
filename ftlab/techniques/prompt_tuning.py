from __future__ import annotations

from peft import PromptTuningConfig

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.techniques.base import Choice, LogUniform, Optimization, Technique
from ftlab.techniques.prompt_learning import (
    bounds,
    note_token_types,
    refuse_packing,
    wrap_with_virtual_tokens,
)


class PromptTuning(Technique):
    """Train the embeddings of virtual tokens put before the text, and the head.

    Lester, Al-Rfou, Constant (2021), https://arxiv.org/abs/2104.08691

    Args:
        tokens: how many virtual tokens.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-3, 3e-1), "tokens": Choice((5, 10, 20, 50, 100))}
    identity_at_start = False  # the text attends to random embeddings

    def __init__(
        self, tokens: int = 10, lr: float = 1e-2, optim: Optimization = Optimization()
    ) -> None:
        super().__init__(lr, optim)
        if tokens < 1:
            raise ValueError(f"tokens must be at least 1, got {tokens}")
        self.tokens = tokens
        self.lengths: dict[str, int] = {}

    def prepare(self, data: DataModule) -> None:
        refuse_packing(data, "PromptTuning")
        note_token_types(data, "PromptTuning")
        self.lengths = bounds(data, "max_length", "max_source_length")

    def adapt(self, model: TaskModel) -> None:
        config = PromptTuningConfig(num_virtual_tokens=self.tokens)
        wrap_with_virtual_tokens(model, "PromptTuning", config, "inputs_embeds", self.lengths)
