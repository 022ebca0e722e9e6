"""The memory of a cell's training beside what the device has, and the settings that would make it fit."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ftlab.backbones.base import Backbone
from ftlab.data.base import DataModule
from ftlab.errors import InputError
from ftlab.studies.components import build
from ftlab.studies.plan import PlannedCell
from ftlab.studies.study import Study
from ftlab.training import hardware
from ftlab.training.memory_forecast import MemoryForecast, NotForetold, forecast, measure
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

FOUR_BITS = 4.5 / 8  # bytes of a weight with its share of the scales, a scale of 32 bits for 64 weights
MOST_DEVICES = 1024
SPARE = 2  # times the tensors' bytes: room for updates that are made to measure what a process takes


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory of a device that a cell's training needs.

    Attributes:
        foretold: None where nothing trains, or it is not known.
        room: bytes that are free on the device.
        shared: devices over which FSDP shares weights, gradients and optimizer state out; else 1.
        why_not: why there is no forecast; empty where nothing trains.
        remedies: what would make it fit, each with the bytes that it leaves needed.
    """

    foretold: MemoryForecast | None
    room: int
    shared: int = 1
    why_not: str = ""
    remedies: tuple[tuple[str, int], ...] = ()

    @property
    def needed(self) -> int:
        """Bytes on each device; 0 where they are not known."""
        return 0 if self.foretold is None else _on_each(self.foretold, self.shared)

    @property
    def fits(self) -> bool:
        """True where there is room, as far as is known."""
        return self.needed <= self.room

    def text(self) -> str:
        """One sentence."""
        known = self.foretold
        if known is None:
            return f"not known: {self.why_not}" if self.why_not else "nothing trains"
        shape = f"{known.examples} x {known.length} tokens" if known.length else f"{known.examples} examples"
        parts = [f"{name} {size(value)}" for name, value in
                 (("weights", known.weights), ("gradients", known.gradients),
                  ("optimizer", known.optimizer), (f"activations of {shape}", known.activations),
                  ("libraries and data", known.process)) if value or name != "libraries and data"]
        over = f" on each of {self.shared} devices" if self.shared > 1 else ""
        over += ", measured," if known.measured else ""
        said = (f"{'fits' if self.fits else 'does not fit'}: {size(self.needed)}{over} of {size(self.room)} "
                f"({', '.join(parts)})")
        if self.fits:
            return said
        ways = "; ".join(f"{text} ({size(needed)})" for text, needed in self.remedies)
        return f"{said}. It would with {ways}" if ways else f"{said}. No setting of one machine makes it fit"


def size(number: int) -> str:
    """Bytes in words: 12 MB, 3.4 GB."""
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.0f} MB"


def memory_of(study: Study, planned: PlannedCell, data: DataModule, backbone: Backbone,
              weights: bool = True) -> MemoryEstimate:
    """Foretell the memory of a cell's runs.

    Args:
        study: of the cell.
        planned: the cell.
        data: loaded, and connected with the backbone.
        backbone: of the cell.
        weights: whether they are here, to be computed with where tensors without numbers do not do.
    """
    settings = TrainerSettings(**planned.cell.trainer)
    room = hardware.room_of(device := hardware.device_of(settings))
    if device.type == "cpu":
        room //= settings.devices
    shared = _shared(settings)

    def run(settings: TrainerSettings, data: DataModule = data) -> Run:
        return Run(backbone, data, build(planned.cell.technique), settings, study.seeds[0], study.select_by,
                   Path(), plain=not study.shortcuts, head_trained=planned.cell.keeps_head)

    def foretold(settings: TrainerSettings, data: DataModule = data) -> MemoryForecast:
        return forecast(run(settings, data))

    if not build(planned.cell.technique).trains:
        return MemoryEstimate(None, room)
    try:
        first = foretold(settings)
    except NotForetold as error:
        if not weights or planned.total * 16 > room:
            return MemoryEstimate(None, room, why_not=str(error))
        first = forecast(run(settings), measured=True)
    if weights and shared == 1 and SPARE * first.peak + first.process <= room:
        first = replace(first, peak=measure(run(settings)), measured=True)
    made = MemoryEstimate(first, room, shared)
    return made if made.fits else replace(made, remedies=tuple(
        _remedies(first, settings, data, room, foretold, planned.total - planned.trainable)))


def _remedies(first: MemoryForecast, settings: TrainerSettings, data: DataModule, room: int,
              foretold: Any, numbers: int) -> Iterator[tuple[str, int]]:
    """Single settings that make it fit; where none does, several together."""
    one = copy.copy(data)
    one.batch_size = settings.processes
    parts = settings.accumulate * data.batch_size // settings.processes
    recomputed = replace(settings, checkpoint_activations=True)
    cut = replace(settings, accumulate=parts)
    both = replace(recomputed, accumulate=parts)
    names = {"checkpoint_activations: true": (recomputed, data),
             f"batch_size: {settings.processes}, accumulate: {parts}": (cut, one)}
    shared = _shared(settings)
    found: list[tuple[str, int]] = []
    enough = _on_each(replace(first, peak=first.peak - first.activations), shared) < room
    for text, (changed, batches) in names.items() if enough else ():
        try:
            found.append((text, _on_each(foretold(changed, batches), shared)))
        except InputError:  # refused here
            continue
    found += _elsewhere(first, settings, room, numbers)
    if not any(needed <= room for _, needed in found):
        least = foretold(both, one)
        together = " and ".join(names)
        found.append((together, _on_each(least, shared)))
        found += [(f"{together}, {text}", needed) for text, needed in _elsewhere(least, settings, room, numbers)]
    yield from [(text, needed) for text, needed in found if needed <= room]


def _elsewhere(known: MemoryForecast, settings: TrainerSettings, room: int, numbers: int) -> Iterator[tuple[str, int]]:
    """About what a quantised base (of so many frozen `numbers`) and further devices leave."""
    shared = _shared(settings)
    frozen = known.frozen
    if frozen > known.weights / 2 and frozen > numbers:
        saved = int(frozen - numbers * FOUR_BITS)
        yield "a base in 4 bits, about", _on_each(replace(known, weights=known.weights - saved,
                                                         peak=known.peak - saved), shared)
    if known.weights > room:  # the first rank tests with them whole
        return
    devices = 2
    while devices <= MOST_DEVICES and _on_each(known, devices) > room:
        devices *= 2
    if shared == 1 and devices <= MOST_DEVICES:
        yield f"devices: {devices}, strategy: fsdp, about", _on_each(known, devices)


def _shared(settings: TrainerSettings) -> int:
    return settings.processes if settings.strategy == "fsdp" else 1


def _on_each(known: MemoryForecast, devices: int) -> int:
    held = known.weights + known.gradients + known.optimizer
    return known.process + known.activations + -(-held // devices)
