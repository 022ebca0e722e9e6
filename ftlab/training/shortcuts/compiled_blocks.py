"""Blocks that train, compiled by `torch.compile` where a run is long enough to repay it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from ftlab.backbones.task_model import TaskModel
from ftlab.training import hardware
from ftlab.training.run import Run
from ftlab.training.shortcuts.base import Fitting, NotApplicable, Shortcut, ShortcutPlan

REPAID = 1000
"""Steps from which compiled blocks pay. On a CPU, compiling a twelve-layer encoder costs what some
500 steps win; no GPU has been measured, hence twice as many."""


class CompiledBlocks(Shortcut):
    """Compile the blocks in which something trains, while they train."""

    step = "blocks"
    event = "compile"

    def applies(self, fitting: Fitting) -> ShortcutPlan:
        if fitting.run.settings.compile == "never":
            raise NotApplicable
        if reason := why_not(fitting.run):
            raise NotApplicable(reason)
        modules = blocks_that_train(fitting.run.technique.model)
        return ShortcutPlan(f"{len(modules)} modules are compiled", training=partial(compiled, modules))


def why_not(run: Run) -> str:
    """The reason against compiling a run's blocks, where that is asked for; empty for none."""
    batches, settings = len(run.data.train_dataloader()), run.settings
    steps = settings.max_epochs * math.ceil(batches / settings.accumulate)
    if run.plain:
        return "--plain"
    if hardware.device_of(settings).type != "cuda":
        return "only on a GPU is it repaid"
    if steps < REPAID:
        return f"{steps} steps do not repay it, {REPAID} would"
    if settings.strategy == "fsdp":
        return "weights are shared out"
    if settings.checkpoint_activations:
        return "blocks are computed again in the backward pass"
    if "objective" in run.technique.hooks:
        return f"{type(run.technique).__name__} has an objective of its own"
    if run.technique.changes_freezing:
        return "what trains changes, and all would be compiled again"
    return ""


def blocks_that_train(model: TaskModel) -> list[nn.Module]:
    """The modules of blocks in which something trains; lists of modules have no forward to compile.

    Args:
        model: adapted.
    """
    named = dict(model.named_modules())
    paths = [path for block in model.blocks for path in block.paths
             if any(parameter.requires_grad for parameter in block.parameters())]
    return [named[path] for path in paths
            if path in named and not isinstance(named[path], nn.ModuleList | nn.ModuleDict)]


@contextmanager
def compiled(modules: Sequence[nn.Module], **options: Any) -> Iterator[None]:
    """Within it modules are compiled, each in place: tensors keep their names.

    Args:
        modules: such as `blocks_that_train` gives.
        options: of `torch.compile`.
    """
    for module in modules:
        module.compile(**options)
    try:
        yield
    finally:
        for module in modules:
            module._compiled_call_impl = None
