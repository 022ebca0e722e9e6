"""The base class of techniques whose layers are PEFT's."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from peft import PeftConfig
from torch import nn

from ftlab.backbones.quantization import is_quantized
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.techniques import peft_settings
from ftlab.techniques.base import Optimization, Technique
from ftlab.techniques.peft_injection import attach, choose_targets, exactly, merge_injected
from ftlab.techniques.peft_methods import METHODS, find

WRITTEN = ("pissa", "olora")
"""Initialisations that take something out of the weights."""


class PeftTechnique(Technique):
    """Adapters of a method of PEFT at some layers, and the head; the adapters are float32.

    Args:
        method: a key of `peft_methods.METHODS`.
        config: settings of the method; None leaves a setting to ftlab or PEFT.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer where it has none.
        last: adapt the last so many blocks alone; None for all.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    only: ClassVar[Collection[str] | None] = None
    """Kinds of layers, where they are fewer than those that the method is right on."""

    @abstractmethod
    def __init__(
        self, method: str, config: Mapping[str, Any], targets: list[str] | None, last: int | None,
        lr: float, optim: Optimization,
    ) -> None:
        super().__init__(lr, optim)
        self.facts = find(method)
        self.settings = {key: value for key, value in config.items() if value is not None}
        peft_settings.check_config(method, self.settings)
        if last is not None and last < 1:
            raise ValueError(f"last must be at least 1, got {last}")
        self.method, self.targets, self.last = method, targets, last
        apart = peft_settings.initial(method, self.settings) in self.facts.apart
        self.identity_at_start = not apart  # type: ignore[misc]  # it depends on the method

    @property
    def label(self) -> str:
        """For messages."""
        return type(self).__name__

    def adapt(self, model: TaskModel) -> None:
        if self.last is not None and self.last > len(model.blocks):
            raise Incompatible(
                f"{self.label}(last={self.last}): the model has {len(model.blocks)} blocks",
                "choose a smaller `last`, or null for all")
        chosen = choose_targets(
            model, self.label, peft_settings.usual_targets(self.method), self.targets, self.last,
            self.only or peft_settings.kinds_for(self.method, self.settings))
        layers = {path: model.network.get_submodule(path) for path in chosen}
        if any(map(is_quantized, layers.values())):
            self._check_quantized()
        dtypes = {layer.weight.dtype for layer in layers.values()}
        if not self.facts.half and dtypes != {torch.float32}:
            raise Incompatible(f"{self.label}: PEFT's {self.method} goes with float32 weights alone",
                               "give the backbone dtype: float32, or take another method")
        named = self.targets is not None and self.targets != ["all"]
        paths, size, notes = peft_settings.sized(self.method, self.settings, layers, self.label, named)
        self.notes += notes
        attach(model, self.made(paths, size), paths, self.label)

    def _check_quantized(self) -> None:
        """Refuse what would write into quantised weights, or PEFT has no layers for.

        Raises:
            Incompatible: it says which methods go with them.
        """
        initial = peft_settings.initial(self.method, self.settings)
        if initial in WRITTEN:
            raise Incompatible(f"{self.label}: {initial} takes its start out of the weights, which are "
                               "quantised and would be rounded anew", "leave quantize out, or take LoRA")
        if not self.facts.quantized:
            able = sorted(name for name, known in METHODS.items() if known.quantized)
            raise Incompatible(f"{self.label}: PEFT's {self.method} does not go with quantised weights",
                               f"leave quantize out, or take one that does: {', '.join(able)}")

    def made(self, paths: list[str], size: Mapping[str, Any]) -> PeftConfig:
        """PEFT's config for these layers; what is drawn at random and stays follows the run's seed."""
        kind: Any = peft_settings.config_class(self.method)
        names = {entry.name for entry in dataclasses.fields(kind)}
        ours: dict[str, Any] = {name: torch.initial_seed() % 2**31 for name in names
                                if name.endswith(("seed", "prng_key"))}
        if "feedforward_modules" in names:  # of these layers the input would be rescaled
            ours["feedforward_modules"] = []
        try:
            made: PeftConfig = kind(target_modules=exactly(paths), **{**ours, **self.settings, **size})
        except (ValueError, TypeError) as error:
            raise Incompatible(f"{self.label}: PEFT takes no such settings: {error}",
                               "change them") from error
        return made

    def merge(self, model: nn.Module) -> bool:
        return self.facts.merges and merge_injected(model)
