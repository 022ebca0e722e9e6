from __future__ import annotations

from peft import IA3Config
from peft.utils import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as FEEDFORWARD
from peft.utils import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as KNOWN
from torch import nn

from ftlab.backbones.task_model import TaskModel
from ftlab.techniques.base import LogUniform, Optimization, Technique
from ftlab.techniques.peft_injection import choose_targets, exactly, inject, merge_injected


class IA3(Technique):
    """(IA)^3: train vectors that rescale activations, and the head; they start at one.

    Keys, values and feed-forward activations in transformers; the outputs of every
    convolution in CNNs. The layers are PEFT's.

    Liu, Tam, Muqeeth, Mohta, Huang, Bansal, Raffel (2022), https://arxiv.org/abs/2205.05638

    Args:
        targets: endings of the names of the layers to rescale, or ["all"]; None for PEFT's
            choice, every layer where it has none.
        lr: peak learning rate; the paper's is 3e-3.
        optim: optimizer and schedule.
    """

    search_space = {"lr": LogUniform(1e-3, 3e-2)}

    def __init__(
        self,
        targets: list[str] | None = None,
        lr: float = 1e-2,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__(lr, optim)
        self.targets = targets

    def adapt(self, model: TaskModel) -> None:
        paths = choose_targets(model, "IA3", KNOWN, self.targets)
        model_type = getattr(getattr(model.network, "config", None), "model_type", "")
        # Of these layers the input is rescaled, of the others the output.
        inputs = FEEDFORWARD.get(model_type, []) if self.targets is None else []
        rescaled = [p for p in paths if any(p.endswith("." + ending) for ending in inputs)]
        config = IA3Config(
            target_modules=exactly(paths), feedforward_modules=exactly(rescaled) if rescaled else []
        )
        inject(model, config)

    def merge(self, model: nn.Module) -> bool:
        return merge_injected(model)
