from __future__ import annotations

from typing import Any

from peft import PromptEncoderConfig

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.techniques.base import Choice, LogUniform, Optimization, Technique
from ftlab.techniques.prompt_learning import (
    bounds,
    note_token_types,
    refuse_packing,
    wrap_with_virtual_tokens,
)


class PTuning(Technique):
    """P-tuning: train virtual tokens put before the text through a small network, and the head.

    The network, an MLP of two hidden layers over the tokens' embeddings, makes them learn together;
    afterwards the tokens alone are needed. Take it where prompt tuning is slow or unstable.

    Liu, Zheng, Du, Ding, Qian, Yang, Tang (2021), https://arxiv.org/abs/2103.10385

    Args:
        tokens: how many virtual tokens.
        width: of the hidden layers; None for the embeddings' own.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-5, 1e-2), "tokens": Choice((5, 10, 20, 50))}
    identity_at_start = False  # the text attends to random embeddings

    def __init__(
        self, tokens: int = 10, width: int | None = None, lr: float = 1e-3,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__(lr, optim)
        if tokens < 1:
            raise ValueError(f"tokens must be at least 1, got {tokens}")
        if width is not None and width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.tokens, self.width = tokens, width
        self.lengths: dict[str, int] = {}

    def prepare(self, data: DataModule) -> None:
        refuse_packing(data, "PTuning")
        note_token_types(data, "PTuning")
        self.lengths = bounds(data, "max_length", "max_source_length")

    def adapt(self, model: TaskModel) -> None:
        width: Any = self.width or getattr(getattr(model.network, "config", None), "hidden_size", 0)
        config = PromptEncoderConfig(num_virtual_tokens=self.tokens, encoder_hidden_size=width)
        wrap_with_virtual_tokens(model, "PTuning", config, "inputs_embeds", self.lengths)
