from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.examples import STREAM
from ftlab.errors import Incompatible
from ftlab.tasks.losses.base import at_least_float32
from ftlab.techniques.base import Choice, Technique
from ftlab.techniques.wrapper import READS_STREAM, Wrapper


class AdaBN(Wrapper):
    """Give the batch norms the statistics of another domain after the fit (a wrapper).

    Adaptive batch normalisation: mean and variance of each batch norm are those of what it reads of
    all examples of a stream, exactly, layer by layer, each computed with the layers before it as
    they are by then. Labels are not read and nothing trains. Take it where a network with batch
    norms meets images that differ in light, contrast or device; it then fits that domain, and the
    own one less. It costs about half as many passes over the stream as there are batch norms.

    Li, Wang, Shi, Liu, Hou (2016), https://arxiv.org/abs/1603.04779

    Args:
        technique: what adapts the model.
        stream: name of the data set's stream (`beside`) of the other domain's examples.
        part: of the stream's statistics in the model's, from 0 (plain) to 1; less than 1 where the
            stream has few examples. Source validation, which is of the own domain, cannot choose it.
    """

    search_space = {"part": Choice((0.5, 0.9, 1.0))}
    does = frozenset({READS_STREAM, "renews the statistics of batch norms"})
    never_around = frozenset({"renews the statistics of batch norms"})
    whole_passes = True

    def __init__(self, technique: Technique, stream: str = "target", part: float = 1.0) -> None:
        super().__init__(technique)
        if not 0 <= part <= 1:
            raise ValueError(f"part must be from 0 to 1, got {part}")
        self.stream, self.part = stream, part
        self.streams = self.streams | {stream}

    def adapt(self, model: TaskModel) -> None:
        self.technique.adapt(model)
        if not _norms(model):
            raise Incompatible("AdaBN changes the statistics of batch norms, and this network has "
                               "none", "leave it out for this backbone")

    def settle(self, model: TaskModel, data: DataModule, score: Callable[[], float]) -> None:
        self.technique.settle(model, data, score)
        if not self.part:
            return
        batches = _Batches(data, f"{STREAM}{self.stream}", next(model.parameters()).device)
        norms = _in_order(model, next(iter(batches)))
        for norm, calls in norms:
            mean, variance = moments(model, norm, calls, batches)
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.lerp_(mean.to(norm.running_mean), self.part)
            norm.running_var.lerp_(variance.to(norm.running_var), self.part)
        self.notes.append(f"AdaBN: {len(norms)} batch norms have the statistics of the stream "
                          f"{self.stream!r}, scores on validation and test too")


class _Batches:
    """The stream's batches, without labels or augmentation, once more each time."""

    def __init__(self, data: DataModule, split: str, device: torch.device) -> None:
        self.data, self.split, self.device = data, split, device

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.data.eval_loader(self.split):
            yield move_data_to_device(
                {name: value for name, value in dict(batch).items() if name != "target"}, self.device)


class _Read(Exception):
    """All that was wanted of a pass has been seen."""


def moments(model: TaskModel, norm: nn.Module, calls: int, batches: Iterator[Any] | _Batches
            ) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of what a batch norm reads of all batches, in float64.

    Args:
        model: in eval mode.
        norm: in it.
        calls: of the norm in a pass.
        batches: each example once.
    """
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        with _watched([norm]) as seen:
            seen.wanted = calls
            with suppress(_Read):
                model(batch)
        for _, read in seen.calls:
            values = at_least_float32(read).transpose(0, 1).flatten(start_dim=1)  # (C, N)
            new, own = values.shape[1], values.mean(dim=1).double()
            spread = (values - own.to(values)[:, None]).square().sum(dim=1).double()
            shift = own - mean.to(own)
            mean = mean.to(own) + shift * (new / (count + new))
            squares = squares.to(own) + spread + shift.square() * (count * new / (count + new))
            count += new
    return mean, squares / count


class _Seen:
    """Calls of some modules, with what each read."""

    def __init__(self) -> None:
        self.calls: list[tuple[nn.Module, Tensor]] = []
        self.wanted: int | None = None

    def look(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self.calls.append((module, arguments[0]))
        if len(self.calls) == self.wanted:
            raise _Read


@contextmanager
def _watched(modules: list[Any]) -> Iterator[_Seen]:
    seen = _Seen()
    hooks = [module.register_forward_pre_hook(seen.look) for module in modules]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _norms(model: TaskModel) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)
            and module.track_running_stats]


def _in_order(model: TaskModel, batch: Any) -> list[tuple[_BatchNorm, int]]:
    """The batch norms as a pass calls them, each with how often it does."""
    with _watched(_norms(model)) as seen:
        model(batch)
    called: list[Any] = [module for module, _ in seen.calls]
    return [(module, called.count(module)) for module in dict.fromkeys(called)]
