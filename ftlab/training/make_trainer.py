"""Lightning's Trainer with the settings of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from lightning import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, Strategy

from ftlab.training import fsdp, hardware, precision
from ftlab.training.run import Run


def make_trainer(run: Run, callbacks: list[Callback]) -> Trainer:
    """Lightning's Trainer with a run's settings."""
    settings = run.settings
    return Trainer(
        max_epochs=settings.max_epochs,
        max_steps=settings.max_steps or -1,
        **precision.chosen(settings, hardware.device_of(settings)),
        gradient_clip_val=settings.gradient_clip,
        accumulate_grad_batches=settings.accumulate,
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.nodes or 1,
        strategy=_strategy(run),
        callbacks=callbacks,
        default_root_dir=run.directory,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # ours are exact, and sample by class
        inference_mode=settings.strategy != "fsdp",  # what it gathers serves training next
    )


def _strategy(run: Run) -> Strategy | str:
    settings = run.settings
    if settings.processes == 1:
        return "auto"
    if settings.strategy == "fsdp":
        return fsdp.strategy(settings.processes)
    return DDPStrategy(find_unused_parameters=run.technique.changes_freezing)


def silent_trainer(run: Run) -> Trainer:
    """Lightning's Trainer for a run's device and precision, without its greetings."""
    with no_greetings():
        return make_trainer(run, [])


@contextmanager
def no_greetings() -> Iterator[None]:
    """Lightning says nothing of its devices, inside."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
