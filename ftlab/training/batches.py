"""Training batches that batch norms can use, and losses for which several are not one large one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from ftlab.backbones.base import Backbone
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.sampling import Natural, share_of_batch
from ftlab.data.train_batches import Update, leaves_one
from ftlab.errors import Incompatible, InputError
from ftlab.techniques.base import Technique
from ftlab.techniques.wrapper import Wrapper
from ftlab.training import by_steps
from ftlab.training.costs import first_examples
from ftlab.training.trainer_settings import TrainerSettings
from ftlab.wording import listed

LONE = ("the last training batch would have 1 example a device, of which batch norms have no "
        "variance: it joins the batch before, with every technique")


@contextmanager
def watched(model: TaskModel, examples: int) -> Iterator[set[nn.Module]]:
    """Collects the batch norms that see one value of each channel per example.

    Args:
        model: of which a batch is computed inside.
        examples: of that batch.

    Raises:
        InputError: another norm sees a single value, and so gives always the same.
    """
    single: set[nn.Module] = set()

    def look(module: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        values: Tensor = args[0] if args else named["input"]
        if isinstance(module, _BatchNorm):
            if values.numel() <= examples * module.num_features:
                single.add(module)
            return
        groups = module.num_groups if isinstance(module, nn.GroupNorm) else values.shape[1]
        if values.numel() <= len(values) * groups:
            raise InputError(f"{type(module).__name__} sees a single value of each channel or "
                             "group, and gives always the same", "take larger inputs")

    norms = [module for module in model.modules()
             if isinstance(module, _BatchNorm | _InstanceNorm | nn.GroupNorm)]
    hooks = [module.register_forward_pre_hook(look, with_kwargs=True) for module in norms]
    try:
        yield single
    finally:
        for hook in hooks:
            hook.remove()


def norms(model: TaskModel) -> set[nn.Module]:
    """The batch norms of a model."""
    return {module for module in model.modules() if isinstance(module, _BatchNorm)}


def trained_norms(model: TaskModel) -> set[nn.Module]:
    """The batch norms that take their statistics from training batches.

    Args:
        model: adapted, in training mode.
    """
    return {module for module in norms(model) if module.training}


def foretell(data: DataModule, backbone: Backbone, technique: Technique,
             settings: TrainerSettings, again: Callable[[], Technique]) -> list[str]:
    """Notes that `settle` will make of a run, before there is one.

    A pass of the network shows which norms see a single value of an example: it is built where a
    device has a training batch of one example.

    Args:
        data: connected with the backbone.
        backbone: of the run.
        technique: attached to a model without weights.
        settings: of the run.
        again: makes the technique once more.

    Raises:
        InputError: as `settle` and `check_update`.
    """
    check_update(technique, data, settings)
    technique.train()
    examples, size = _shares(data, settings)
    lone = size == 1 or examples == 1 or leaves_one(examples, size)
    if not lone or not norms(technique.model):
        return caveats(technique.model, settings)
    trained = technique.model.head_trained
    technique = again()
    technique.prepare(data)
    model = backbone.build(data.task, technique.output_type).eval()
    model.head_trained = trained
    sample = first_examples(next(iter(data.val_dataloader())), 2)
    with torch.no_grad(), watched(model, len(sample["index"])) as single:
        model(sample)
    technique.bind(model, data.task).train()
    return settle(data, model, single, settings)[1]


def settle(data: DataModule, model: TaskModel, single: Collection[nn.Module],
           settings: TrainerSettings) -> tuple[Update, list[str]]:
    """Decide on training batches that batch norms can take; also returns notes on them.

    Every technique has the same batches, also where it freezes the norms.

    Args:
        data: connected.
        model: adapted, in training mode.
        single: the batch norms that see one value of each channel per example.
        settings: of the run.

    Raises:
        InputError: norms that train have a batch of one example.
    """
    examples, size = _shares(data, settings)
    if (size == 1 or examples == 1) and trained_norms(model) & set(single):
        count = settings.processes
        devices, least = f" on each of {count} devices" if count > 1 else "", 2 * count
        mend = (f"set batch_size: {least}" if examples > 1
                else f"train on {least} examples at least")
        raise InputError(f"training batches of 1 example{devices} give batch norms that train one "
                         "value of each channel, which has no variance",
                         f"{mend}, or take a technique that freezes norms")
    notes = [LONE] if single and leaves_one(examples, size) and not data.sampling.plans else []
    return (Update(settings.accumulate, joins_last=bool(single)),
            [*notes, *caveats(model, settings)])


def caveats(model: TaskModel, settings: TrainerSettings) -> list[str]:
    """The reasons why the batches of an update are not as one large batch.

    Args:
        model: adapted, in training mode.
        settings: of the run.
    """
    cut = [f"{name}: {value}" for name, value in
           (("accumulate", settings.accumulate), ("devices", settings.devices),
            ("nodes", settings.nodes or 1)) if value > 1]
    if not cut:
        return []
    norms = "batch norms take their statistics from each batch" if trained_norms(model) else ""
    return [f"with {' and '.join(cut)} an update is not quite that of one large batch: {reason}"
            for reason in (norms, model.batch_loss) if reason]


def check_update(technique: Technique, data: DataModule, settings: TrainerSettings) -> None:
    """Refuse to add up gradients of batches of which each would be another objective, and early ends.

    Raises:
        InputError: the technique or the sampling takes an update's examples in one batch, or the
            technique wants every epoch and there may be fewer, or other ones.
    """
    if technique.trains:
        technique.foresee(data, settings.max_epochs)
        # a schedule knows whether so many epochs suffice
        technique.lr_factors([], settings.max_epochs, settings.max_epochs)
    if technique.own_clipping and settings.precision == "16-mixed":
        raise InputError(f"{type(technique).__name__} takes gradients of each example, which float16 "
                         "does not hold without a scale", "set trainer: {precision: bf16-mixed}")
    if technique.trains:
        by_steps.check(technique, data, settings)
    whole = [type(part).__name__ for part, alone in
             ((technique, technique.single_batches), (data.sampling, data.sampling.plans)) if alone]
    for name, value in (("accumulate", settings.accumulate), ("devices", settings.devices),
                        ("nodes", settings.nodes or 1)):
        if value > 1 and whole:
            raise InputError(f"{whole[0]} takes all examples of an update in one batch, and "
                             f"{name}: {value} would split them", f"set trainer: {{{name}: 1}}")


def with_streams(data: DataModule, technique: Technique, settings: TrainerSettings) -> DataModule:
    """The data set, whose training batches bring along the streams that a technique reads.

    It looks whether the columns that it reads are there as well.

    Raises:
        Incompatible: it has no such stream, or no column that the technique reads.
        InputError: the devices cannot share a stream's batches equally.
    """
    read = data.splits["train"].columns if data.splits else data.columns
    for kind, needed, there, entry in (
        ("stream", technique.streams, data.beside, "beside: {%s: {source: ...}}"),
        ("column", technique.columns, read, "columns: {%s: COLUMN}"),
    ):
        if lacking := sorted(needed - there.keys()):
            while isinstance(technique, Wrapper) and lacking[0] in (
                    technique.technique.streams | technique.technique.columns):
                technique = technique.technique
            raise Incompatible(
                f"{type(technique).__name__} reads the {kind} {lacking[0]!r}, which the data set does "
                f"not have: it has {listed(sorted(there)) if there else 'none'}",
                f"add {entry % lacking[0]} to the data set")
    for name in technique.streams:
        if size := data.beside[name].batch_size:
            share_of_batch(size, settings.processes, f"beside: {name}: ")
    return _sampled(data, technique).with_streams(technique.streams)


def _sampled(data: DataModule, technique: Technique) -> DataModule:
    """The data set with the sampling that a technique wants, where it wants one."""
    own, wanted = data.sampling, technique.sampling
    if wanted is None:
        if own.varies:
            raise InputError(f"sampling {type(own).__name__} may give a batch without examples, of "
                             f"which {type(technique).__name__} has no loss", "leave sampling out")
        return data
    if type(own) not in (Natural, type(wanted)):
        raise Incompatible(f"{type(technique).__name__} draws training examples by "
                           f"{type(wanted).__name__}, and the data set by {type(own).__name__}",
                           "leave the data set's sampling out")
    return data.sampled_by(wanted)


def _shares(data: DataModule, settings: TrainerSettings) -> tuple[int, int]:
    """The training examples per device, and per batch."""
    devices = settings.processes
    return (-(-len(data.splits["train"]) // devices), share_of_batch(data.batch_size, devices))
