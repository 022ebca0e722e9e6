"""The memory of a run's training, before it: an update, computed with tensors that hold no numbers.

Model, technique, objective, backward pass and optimizer are the run's own. What they make is
counted as it is made and freed, so that there is no formula of any of them, and a network needs no
weights for it. Where weights are here and there is room, some updates are made and measured, too:
of a process on a CPU the C library keeps much of what is freed, by where it lay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ftlab.backbones.quantization import scales
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.techniques.base import Technique
from ftlab.training import (
    activation_checkpointing,
    batches,
    costs,
    fake_tensors,
    hardware,
    precision,
)
from ftlab.training.live_bytes import LiveBytes
from ftlab.training.run import Run

UPDATES = 3
"""Updates that are measured: by the third a CPU's heap has nine tenths of what it grows to, and more."""


class NotForetold(Exception):
    """The memory of a run is not known before it; says why."""


@dataclass(frozen=True)
class MemoryForecast:
    """Bytes of a run's training at its highest.

    Attributes:
        weights: of the model, frozen ones and buffers too.
        gradients: of what trains.
        optimizer: its state, and what the technique keeps beside the model.
        peak: of all at once; activations and what is computed with them are the rest.
        frozen: of the weights, what does not train.
        examples: of a batch.
        length: tokens of the longest text of a batch; 0 where there are none.
        process: of what a process on a CPU holds without a model, its libraries and data.
        measured: whether `peak` is of updates that were made here.
    """

    weights: int
    gradients: int
    optimizer: int
    peak: int
    frozen: int
    examples: int
    length: int = 0
    process: int = 0
    measured: bool = False

    @property
    def activations(self) -> int:
        """Bytes at the peak beside weights, gradients and the optimizer's state."""
        return self.peak - self.weights - self.gradients - self.optimizer


def forecast(run: Run, measured: bool = False) -> MemoryForecast:
    """Compute the memory of training a run, with nothing cached.

    Args:
        run: its data are loaded and connected; its technique is fresh, and is used up.
        measured: with weights and numbers, for what depends on them.

    Raises:
        NotForetold: a computation depends on numbers, or cannot be computed without them.
        InputError: as `adapt`.
    """
    held = costs.held_by_process(hardware.device_of(run.settings))
    model, data, name = _adapted(run, meta=not measured)
    batch = precision.convert_inputs(longest_batch(data, run.settings.processes), name)
    device = hardware.device_of(run.settings)
    if measured:
        model.to(device)
        known = _updates(run.technique, data, move_data_to_device(batch, device), name, run.settings.accumulate)
        return replace(known, process=held)
    made = fake_tensors.mode()
    fake_tensors.empty(model, made, device)
    try:
        with made:
            known = _updates(run.technique, data, fake_tensors.batch_like(batch, made, device), name,
                             run.settings.accumulate)
    except Exception as error:  # whatever a network, a loss or a technique makes of tensors without numbers
        raise NotForetold(_reason(error, run.technique)) from error
    return replace(known, process=held)


def _reason(error: Exception, technique: Technique) -> str:
    """One line on why nothing is known: numbers were asked for, or what else went wrong, and in what."""
    line = (str(error).splitlines() or [""])[0][:120]
    said = f"{type(error).__name__}: {line}" if line else type(error).__name__
    if fake_tensors.asks_for_numbers(error):
        return f"it needs the weights ({said})"
    return f"an update of {type(technique).__name__} cannot be computed without numbers: {said}"


def measure(run: Run) -> int:
    """Bytes by which a device's memory grows in the first updates of a run, its model included.

    Args:
        run: as for `forecast`, with its weights and room for its training.
    """
    device, settings = hardware.device_of(run.settings), run.settings
    meter = costs.MemoryMeter(device)
    with torch.random.fork_rng(devices=[]):
        model, data, name = _adapted(run, meta=False)
        batch = precision.convert_inputs(longest_batch(data, settings.processes), name)
        model.to(device)
        batch = move_data_to_device(batch, device)
        meter.start()
        technique, context = run.technique, precision.context_of(name, device)
        if "begin_fit" in technique.hooks:
            technique.begin_fit(model, data, UPDATES)
        optimizer = technique.optimizer(technique.optimizer_groups())
        for update in range(UPDATES * min(settings.accumulate, 2)):
            with context():
                loss = technique.training_step(batch, 0)["loss"]
            if update % min(settings.accumulate, 2) == 0:
                optimizer.zero_grad()
            loss.backward()
            del loss
            if (update + 1) % min(settings.accumulate, 2) == 0:
                optimizer.step()
        return meter.peak()


def _adapted(run: Run, meta: bool) -> tuple[TaskModel, DataModule, str]:
    """The model of a run as its training begins, its data, and its precision."""
    technique, data = run.technique, batches.with_streams(run.data, run.technique, run.settings)
    technique.prepare(data)
    model = run.backbone.build(data.task, technique.output_type, meta=meta)
    name = hardware.suit(run, model, lambda event: None)
    precision.convert(model, name)
    technique.bind(model, data.task)
    precision.convert(model, name)
    if run.settings.checkpoint_activations:
        activation_checkpointing.install(model, compare=False)
    technique.train()
    return model, data, name


def _updates(technique: Technique, data: DataModule, batch: dict[str, Any], precision_name: str,
             accumulate: int) -> MemoryForecast:
    """An update in Lightning's order: gradients of the one before are there in the forward pass."""
    with LiveBytes() as live, torch.random.fork_rng(devices=[]):
        return _counted(technique, data, batch, precision_name, accumulate, live)


def _counted(technique: Technique, data: DataModule, batch: dict[str, Any], precision_name: str,
             accumulate: int, live: LiveBytes) -> MemoryForecast:
    model = technique.model
    context = precision.context_of(precision_name, next(model.parameters()).device)
    weights = live.add([*model.parameters(), *model.buffers(), *scales(model)])
    frozen = sum(_sizes([*(p for p in model.parameters() if not p.requires_grad), *scales(model)]))
    live.add(leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor))
    given = live.now
    if "begin_fit" in technique.hooks:
        technique.begin_fit(model, data, 2)
    kept = live.now - given
    optimizer = technique.optimizer(technique.optimizer_groups())
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    before = live.now
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    gradients = live.now - before
    _make_state(optimizer)
    state = live.now - before - gradients
    for part in range(min(accumulate, 2)):
        with context():
            loss = technique.training_step(batch, 0)["loss"]
        if not part:
            optimizer.zero_grad()
        loss.backward()
        del loss
    if not hasattr(optimizer, "init_state"):
        optimizer.step()
    return MemoryForecast(weights, gradients, kept + state, live.peak, frozen, *shape_of(batch))


def _make_state(optimizer: Any) -> None:
    """Let an optimizer make its state: by a step, where it has no other way.

    The kernels of bitsandbytes take addresses of numbers, and there are none.
    """
    if not hasattr(optimizer, "init_state"):
        optimizer.step()
        return
    for i, group in enumerate(optimizer.param_groups):
        for j, parameter in enumerate(group["params"]):
            optimizer.init_state(group, parameter, i, j)


def longest_batch(data: DataModule, devices: int = 1) -> dict[str, Any]:
    """A device's training batch of the first epoch that is the largest, padding included."""
    loader, lengths = data.train_dataloader(), data.padded_lengths()
    if lengths is None:
        batch: dict[str, Any] = next(iter(loader))
        return batch
    drawn: list[list[int]] = list(loader.batch_sampler or ())
    rows = max(drawn, key=lambda rows: len(rows) * max(lengths[i] for i in rows))
    return loader.made(rows[: -(-len(rows) // devices)])


def shape_of(batch: Mapping[str, Any]) -> tuple[int, int]:
    """Examples of a batch, and tokens of its longest text; 0 without texts."""
    mask = batch["inputs"].get("attention_mask")
    return len(batch["index"]), mask.shape[1] if isinstance(mask, Tensor) and mask.ndim == 2 else 0


def _sizes(tensors: Iterable[Tensor | None]) -> list[int]:
    return [tensor.nbytes for tensor in tensors if tensor is not None]
