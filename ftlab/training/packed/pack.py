"""The network that the runs of a pack share, and its steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ftlab.backbones.task_model import Batch, Outputs
from ftlab.data.examples import SPLITS
from ftlab.training.evaluate import placing
from ftlab.training.fit import make_trainer
from ftlab.training.packed.packed_batches import Batches, Rows, part, parts, tiled
from ftlab.training.packed.packed_member import Member
from ftlab.training.packed.slot_dropout import SlotDropout
from ftlab.training.packed.stacked_lora import StackedModel
from ftlab.training.prefix import use_cache


class Pack:
    """Runs on one network: that of the first.

    Args:
        members: adapted, on their device.

    Attributes:
        alive: those that still train, slot by slot.
        said: what was decided, and why.
        sample: a batch of which all is computed, and how many rows each slot has in it.

    Raises:
        Declined: they cannot share one.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.alive = list(members)
        self.run, self.guard = members[0].run, members[0].guard
        self.trainer = make_trainer(self.run, [])
        self.device = self.trainer.strategy.root_device
        self.place = placing(self.trainer, self.device)
        self.context = self.trainer.precision_plugin.forward_context
        self.model = self.run.technique.model
        self.stacked = StackedModel([member.model for member in members])
        self.dropping: SlotDropout | None = SlotDropout(
            [member.state for member in members], self.device)
        self.said: list[str] = []

    def report(self, event: dict[str, Any]) -> None:
        """To all that still train; what was decided is kept and said at once."""
        if event["event"] == "shortcut":
            self.said.append(event["text"])
            return
        for member in self.alive:
            member.report(event)

    def attach(self) -> float:
        """Compute or read what the frozen prefix hands on, for all; the seconds that it took."""
        data = [member.run.data for member in self.alive]
        # with its inputs, which nobody may read once the prefix hands on
        self.sample = self.batch_of(next(Batches(data, 1).epoch(0)))
        seconds = use_cache.attach(
            self.run, self.trainer, self.guard, SPLITS[:2], self.report)
        self.batches = Batches(data, self.run.settings.accumulate)
        return seconds

    def batch_of(self, rows: Rows) -> tuple[Batch, int]:
        """The rows of all, on the device, and how many each has."""
        batch, size = rows.of([member.run.data for member in self.alive])
        return self.place(batch), size

    def outputs(self, batch: Batch, size: int, dropping: SlotDropout | None) -> list[Outputs]:
        """What each slot's model gives for its rows."""
        with self.stacked.packed(dropping):
            if dropping is None:
                outputs = self.model(batch)
            else:
                with dropping:
                    outputs = self.model(batch)
        return parts(outputs, len(self.alive), size)

    def step(self, batch: Batch, size: int, parts: Sequence[float]) -> list[Tensor]:
        """The loss of each slot, whose gradients are added up in the stacks.

        Args:
            batch: the rows of all.
            size: rows of each slot.
            parts: of each slot's rows in the update.
        """
        losses = []
        with self.context():
            for slot, outputs in enumerate(self.outputs(batch, size, self.dropping)):
                technique = self.alive[slot].run.technique
                loss = technique.task.loss(outputs, part(batch, slot, size))
                losses.append(loss + technique.penalty(self.alive[slot].model))
        # the slots' losses depend on different parameters, so their sum has the gradients of each
        torch.stack([loss * part for loss, part in zip(losses, parts, strict=True)]).sum().backward()
        return [loss.detach() for loss in losses]

    def validate(self, heard: Iterable[Any]) -> None:
        """Every member's metrics over the validation split, for `Member.judge`.

        Args:
            heard: the split's batches.
        """
        for member in self.alive:
            member.run.technique.eval()
        self.run.technique.eval()
        with torch.no_grad():
            for raw in heard:
                size = len(raw["index"])
                batch = self.place(tiled(raw, len(self.alive), size))
                with self.context():
                    for slot, outputs in enumerate(self.outputs(batch, size, None)):
                        self.alive[slot].measure(outputs, part(batch, slot, size))

    def keep(self, members: Sequence[Member]) -> None:
        """Go on with these alone, on smaller stacks."""
        if len(members) == len(self.alive):
            return
        if self.dropping is not None:
            self.dropping.states = [state for member, state
                                    in zip(self.alive, self.dropping.states, strict=True)
                                    if member in members]
        self.alive = list(members)
        if members:
            self.stacked.restack([member.model for member in members])
