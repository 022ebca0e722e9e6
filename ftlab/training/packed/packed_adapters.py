"""Several LoRA trials on one backbone in one process, each with the results that it has alone.

A trial keeps its own seed, data order, dropout, optimizer, schedule, clipping, best epoch and end.
What they share is the product with the frozen weights, and what a frozen prefix hands on.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ftlab.errors import FtlabError, GuardFailed
from ftlab.training import costs
from ftlab.training.callbacks import ALIVE, EVERY, HEARTBEAT, Report
from ftlab.training.declined import NotApplicable
from ftlab.training.fit import adapt, load
from ftlab.training.packed import packing_check
from ftlab.training.packed.pack import Pack
from ftlab.training.packed.packed_member import Member
from ftlab.training.packed.slot_dropout import generator_of
from ftlab.training.run import Run

Result = dict[str, float] | Exception


def fit_packed(
    runs: Sequence[Run], reports: Sequence[Report], stops: Sequence[Callable[[], bool]]
) -> list[Result]:
    """As `search` of each, on one network.

    Args:
        runs: with equal backbone, data and settings, all with the technique LoRA.
        reports: take each run's events; a `shortcut` says what was decided, and why.
        stops: as for `search`.

    Returns:
        Of each run what `search` returns, or the exception that it failed with.

    Raises:
        Declined: it would not be exact, or not be faster. Nothing has trained.
    """
    if reason := _why_not(runs):
        raise NotApplicable(reason)
    members, failed, memory = adapted(runs, reports, stops)
    if len(members) < 2:
        raise NotApplicable("there is no other run that can be trained")
    pack = Pack(list(members.values()))
    cached = pack.attach()
    for member in pack.alive:
        member.begin(len(pack.batches))
    packing_check.check(pack)
    for member in pack.alive:
        member.report({"event": "shortcut", "text": "; ".join(pack.said)})
    memory.start()
    failed |= _fit(pack, members)
    shared = {"cost/peak_memory_bytes": memory.peak() / len(members),
              "cost/prefix_seconds": cached / len(members)}
    results: list[Result] = []
    for number in range(len(runs)):
        try:
            results.append(failed.get(number) or members[number].results(shared))
        except GuardFailed as guarded:
            results.append(guarded)
    return results


def _why_not(runs: Sequence[Run]) -> str:
    settings = runs[0].settings
    if len(runs) < 2:
        return "there is no other run"
    if any(run.plain for run in runs):
        return "--plain"
    if settings.devices > 1:
        return "a run has several devices"
    if settings.precision == "16-mixed":
        return "float16 scales the loss of each run in its own way"
    if any(run.technique.changes_freezing or not run.technique.trains for run in runs):
        return "what trains changes from epoch to epoch"
    if len({run.seed for run in runs}) > 1 and getattr(runs[0].data, "augment", None) is not None:
        return "augmentation changes the examples otherwise for every seed"
    return ""


def adapted(
    runs: Sequence[Run], reports: Sequence[Report], stops: Sequence[Callable[[], bool]]
) -> tuple[dict[int, Member], dict[int, Exception], costs.MemoryMeter]:
    """The runs adapted as each alone would be, by number; and those that failed at it."""
    members: dict[int, Member] = {}
    failed: dict[int, Exception] = {}
    backbone, data = runs[0].backbone, {runs[0].seed: runs[0].data}
    for number, (run, report, stop) in enumerate(zip(runs, reports, stops, strict=True)):
        if run.seed not in data:  # tokens and all are the same, the order is another
            data[run.seed] = copy.copy(runs[0].data)
        run = replace(run, backbone=backbone, data=data[run.seed])
        memory = load(run, report)
        if not number:
            first = memory
        try:
            _, guard = adapt(run, report)
        except FtlabError as error:
            failed[number] = error
            continue
        run.technique.to(memory.device)
        state = generator_of(memory.device).get_state()
        members[number] = Member(run, report, stop, guard, state)
        share_frozen(members[min(members)], members[number])
    return members, failed, first


def share_frozen(first: Member, other: Member) -> None:
    """Let a member's frozen tensors be those of the first.

    Raises:
        Declined: they are other ones.
    """
    theirs = dict(first.model.named_parameters())
    for name, parameter in other.model.named_parameters():
        if not parameter.requires_grad:
            if first.guard.before.get(name) != other.guard.before[name]:
                raise NotApplicable(f"{name} is frozen and differs from run to run")
            parameter.data = theirs[name].data


def _fit(pack: Pack, members: dict[int, Member]) -> dict[int, Exception]:
    """Train all to their ends; the failures of those that failed, by number."""
    failed: dict[int, Exception] = {}
    numbers = {id(member): number for number, member in members.items()}

    def keep(goes_on: Callable[[Member], bool]) -> None:
        kept = []
        for member in pack.alive:
            try:
                if goes_on(member):
                    kept.append(member)
            except GuardFailed as error:
                failed[numbers[id(member)]] = error
        pack.keep(kept)

    step = 0
    for epoch in range(pack.run.settings.max_epochs):
        begin, slots = time.perf_counter(), pack.alive
        step = _epoch(pack, epoch, step, keep)
        if pack.alive:
            pack.validate(_heard(pack))
        for member in slots:
            member.seconds += (time.perf_counter() - begin) / len(slots)
        keep(partial(Member.judge, epoch=epoch, step=step))
        if not pack.alive:
            break
    return failed


def _epoch(
    pack: Pack, epoch: int, step: int, keep: Callable[[Callable[[Member], bool]], None]
) -> int:
    """One pass over the training examples; the number of updates so far."""
    accumulate, batches = pack.run.settings.accumulate, len(pack.batches)
    for member in pack.alive:
        member.begin_epoch(epoch)
    pack.run.technique.train()  # of the network that is called, though its own run may have ended
    said = 0.0
    for number, rows in enumerate(pack.batches.epoch(epoch), 1):
        begin, slots = time.perf_counter(), pack.alive
        counted = rows.shares([member.run.data for member in slots])
        losses = pack.step(*pack.batch_of(rows), [share.part for share in counted])
        for member, loss, share in zip(slots, losses, counted, strict=True):
            member.note(loss, share.weight)
        if number % accumulate == 0 or number == batches:
            step += 1
            keep(partial(Member.update, step=step, last=number == batches))
            if not pack.alive:
                break
            pack.stacked.zero_grad()
        if number % EVERY == 0 or number == batches:
            keep(partial(Member.look, step=step, done=epoch * batches + number))
            if not pack.alive:
                break
        elif time.perf_counter() - said > HEARTBEAT:
            said = time.perf_counter()
            pack.report(ALIVE)
        for member in pack.alive:
            member.took((time.perf_counter() - begin) / len(slots), step)
    return step


def _heard(pack: Pack) -> Iterator[Any]:
    for number, batch in enumerate(pack.run.data.val_dataloader()):
        if number % EVERY == 0:
            pack.report(ALIVE)
        yield batch
