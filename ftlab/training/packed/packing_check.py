"""Whether runs may be packed, and whether it pays: found out before the first step."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from ftlab.backbones.task_model import Batch
from ftlab.training import guards
from ftlab.training.declined import NotApplicable
from ftlab.training.packed.pack import Pack
from ftlab.training.packed.packed_batches import part
from ftlab.training.packed.slot_dropout import SlotDropout, drawing_from

ROUNDS = 3  # each way, the first of which warms up
AT_ONCE = 3  # steps of a run alone: the first one after a pack's finds its memory given away
WORTH = 1.1  # times as fast, at least: what is timed in so few steps is not surer than that
STD = 0.05  # of the weights with which models are compared: LoRA's own start at zero


def check(pack: Pack) -> None:
    """Hold a pack's first step to that of its runs alone, then time both.

    Weights, gradients and random numbers are afterwards as before.

    Raises:
        Declined: it would not be exact, or not be faster.
    """
    batch, size = pack.batch_of(next(pack.batches.epoch(0)))
    for member in pack.alive:
        member.run.technique.train()
    alike(pack, *pack.sample)
    saved = _saved(pack)
    together, alone = _seconds(pack, batch, size)
    _restore(pack, saved)
    pays = len(pack.alive) * alone / together
    pack.said.append(f"{len(pack.alive)} runs packed on one network: a step of all takes "
                     f"{1e3 * together:.1f} ms, of one alone {1e3 * alone:.1f} ms")
    if not worth(pays):
        raise NotApplicable(f"a step of {len(pack.alive)} runs takes {1 / pays:.2f} times as long "
                       f"packed as one after another, and has to take {1 / WORTH:.2f} times at most")


def worth(pays: float) -> bool:
    """Whether to pack, where steps are so many times as fast."""
    return pays > WORTH


def alike(pack: Pack, batch: Batch, size: int) -> None:
    """Compare what the packed network gives with what each run's model gives, in training.

    Outside autocast, where rounding would hide a difference, and with all computed.
    """
    saved = _saved(pack)
    generator = torch.Generator(pack.device).manual_seed(0)
    for member in pack.alive:
        for parameter in member.trainable:
            parameter.data.normal_(std=STD, generator=generator)
    assert pack.dropping is not None
    with torch.no_grad():
        packed = pack.outputs(batch, size, pack.dropping)
        states = saved["states"].copy()
        for slot, member in enumerate(pack.alive):
            with drawing_from(pack.dropping.generator, states, slot):
                alone = member.model(part(batch, slot, size))
            if not guards.close(member.model.comparable(alone),
                                member.model.comparable(packed[slot])):
                raise NotApplicable("the network gives something else for rows of several runs")
    if pack.dropping.strayed:
        raise NotApplicable("the network draws random numbers otherwise than by dropout")
    _restore(pack, saved)
    if not pack.dropping.draws:
        pack.dropping = None
    elif len(pack.batches.orders) > 1 and pack.run.data.lengths("train") is not None:
        raise NotApplicable("with dropout, runs of several seeds would be padded to other widths, "
                       "and drop out otherwise")


def _saved(pack: Pack) -> dict[str, Any]:
    return {"values": [stack.tensor.detach().clone() for stack in pack.stacked.stacks],
            "states": list(pack.dropping.states) if pack.dropping else []}


def _restore(pack: Pack, saved: dict[str, Any]) -> None:
    with torch.no_grad():
        for stack, values in zip(pack.stacked.stacks, saved["values"], strict=True):
            stack.tensor.copy_(values)
    pack.stacked.zero_grad()
    if pack.dropping is not None:
        pack.dropping.states = list(saved["states"])


def _seconds(pack: Pack, batch: Batch, size: int) -> tuple[float, float]:
    """Of a step of all, and of one of them; each the fastest of some."""
    own, technique = part(batch, 0, size), pack.run.technique
    dropping = pack.dropping or SlotDropout([pack.alive[0].state], pack.device)

    def alone() -> None:
        with drawing_from(dropping.generator, list(dropping.states), 0):
            with pack.context():
                loss = technique.task.loss(pack.model(own), own)
            loss.backward()

    def seconds(act: Callable[[], Any]) -> float:
        begin = time.perf_counter()
        act()
        if pack.device.type == "cuda":
            torch.cuda.synchronize(pack.device)
        return time.perf_counter() - begin

    one, all_of_them = [], []
    for _ in range(ROUNDS):
        one += [seconds(alone) for _ in range(AT_ONCE)]
        all_of_them.append(seconds(lambda: pack.step(batch, size, [1.0] * len(pack.alive))))
    return min(all_of_them[1:]), min(one[AT_ONCE:])
