from __future__ import annotations

from typing import Any

from ftlab.techniques.base import LogUniform, Optimization
from ftlab.techniques.peft_methods import METHODS, find
from ftlab.techniques.peft_technique import PeftTechnique
from ftlab.wording import listed


class Peft(PeftTechnique):
    """Train the adapters of any of PEFT's methods on the layers that it is right on, and the head.

    Take it for a method that has no class of its own here, or for its settings that a class leaves
    out. Which layers a method goes with is measured, and others are refused.

    Mangrulkar, Gugger, Debut, Belkada, Paul, Bossan (2022), https://github.com/huggingface/peft;
    a survey: Han, Gao, Liu, Zhang, Zhang (2024), https://arxiv.org/abs/2403.14608

    Args:
        method: PEFT's name of it in small letters, `lora` or `hira` for instance.
        config: its settings by PEFT's names; what is left out is PEFT's default, and a size that
            must fit the layers' widths is then made to.
        targets: endings of the names of the layers to adapt, or ["all"] for all that the method
            is right on; None for PEFT's choice.
        last: adapt the last so many blocks alone, counted from the output; None for all blocks.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-4, 1e-2)}

    def __init__(
        self,
        method: str = "lora",
        config: dict[str, Any] | None = None,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 1e-3,
        optim: Optimization = Optimization(),
    ) -> None:
        if not find(method).alone:
            takes = [name for name, known in METHODS.items() if known.alone]
            raise ValueError(f"PEFT's {method} needs more than its layers, and is a technique of its "
                             f"own (see `ftlab list techniques`); method is one of {listed(takes)}")
        super().__init__(method, config or {}, targets, last, lr, optim)

    @property
    def label(self) -> str:
        return f"Peft({self.method})"
