from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.techniques.base import Choice, Technique
from ftlab.techniques.trained_tensors import averaged, copies, holding, named, of_backbone
from ftlab.techniques.wrapper import Wrapper


class WiSEFT(Wrapper):
    """Finish with weights between those before and after fine-tuning (a wrapper).

    After the fit they are (1 - alpha) w0 + alpha w1, without another step. Take it where
    examples of another kind than the training data matter, which fine-tuning forgets. At w0 the
    model must be of use: its head is the pre-trained one, or a stage has trained it (`before`, with
    `carry: all`), or the technique has trained it alone before, and w0 is the model then. Of an
    adapter, w0 is its start, where it changes nothing; its factors are interpolated one by one.
    Where the best epoch is one in which the head alone had trained, nothing is interpolated, with a
    note: the model is the one before fine-tuning already.

    Wortsman, Ilharco, Kim, Li, Kornblith, Roelofs, Gontijo-Lopes, Hajishirzi, Farhadi, Namkoong,
    Schmidt (2022), https://arxiv.org/abs/2109.01903

    Args:
        technique: what adapts the model.
        alpha: share of the fine-tuned weights, from 0 (before) to 1 (after).
        curve: further shares, at which the model is measured too, as `test.alpha-0.3/...`.
    """

    search_space = {"alpha": Choice((0.2, 0.4, 0.5, 0.6, 0.8, 1.0))}
    of_training = True

    def __init__(self, technique: Technique, alpha: float = 0.5,
                 curve: list[float] | None = None) -> None:
        super().__init__(technique)
        for share in (alpha, *(curve or ())):
            if not 0 <= share <= 1:
                raise ValueError(f"alpha must be from 0 to 1, got {share}")
        self.alpha, self.curve = alpha, curve or []
        self.end: dict[str, Tensor] = {}
        self.names: list[str] = []
        self.start: dict[str, Tensor] = {}
        self.probed = False  # the head alone trained first

    def adapt(self, model: TaskModel) -> None:
        self.technique.adapt(model)
        if model.has_random_head and not self.changes_freezing:
            raise Incompatible(
                "WiSEFT starts from a model of use, and the new head is random",
                "train the head first: before: [{technique: LinearProbe, carry: all}], or put it "
                "around a technique that does so")

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.technique.begin_fit(model, data, steps)
        self.names, self.start = list(averaged(model)), {}

    def begin_epoch(self, model: TaskModel, epoch: int, epochs: int) -> None:
        self.technique.begin_epoch(model, epoch, epochs)
        if self.start or not of_backbone(model):
            return  # so far the head alone trains, and all else is as before the fit
        if epoch == 0 and model.has_random_head:
            raise Incompatible("WiSEFT: the first epoch trains more than the new head, which is "
                               "random", "put it around a technique that trains the head first")
        self.probed = epoch > 0
        self.start = copies(named(model, self.names))

    def settle(self, model: TaskModel, data: DataModule, score: Callable[[], float]) -> None:
        self.technique.settle(model, data, score)
        if not self.start:
            raise Incompatible("WiSEFT: no epoch trained more than the head",
                               "raise max_epochs, or leave it out")
        if self._is_before(model):
            self.notes.append("WiSEFT: the head alone had trained by the best epoch, so that nothing "
                              "was interpolated")
            self.curve = []
            return
        if self.curve:
            self.end = copies(named(model, self.names))
        for name, tensor in named(model, self.names).items():
            tensor.copy_(torch.lerp(self.start[name], tensor, self.alpha))

    def _is_before(self, model: TaskModel) -> bool:
        """Return whether all but the head is as it was before fine-tuning, in an earlier epoch."""
        of_backbone = [name for name in self.names if not model.head.holds(name)]
        same = all(torch.equal(self.start[name], tensor)
                   for name, tensor in named(model, of_backbone).items())
        return same and self.probed and bool(of_backbone)

    def variants(self, model: TaskModel) -> Mapping[str, AbstractContextManager[Any]]:
        mixed = {f"alpha-{share:g}": {name: torch.lerp(self.start[name], self.end[name], share)
                                      for name in self.names} for share in self.curve}
        return {**self.technique.variants(model),
                **{name: holding(model, values) for name, values in mixed.items()}}
