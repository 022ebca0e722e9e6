"""A run up to its training: data loaded, model built and adapted, under guard."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from lightning import seed_everything

from ftlab.backbones.source import WholeOnly
from ftlab.backbones.task_model import TaskModel
from ftlab.data.groups import groups_of
from ftlab.training import (
    activation_checkpointing,
    batches,
    by_steps,
    costs,
    guards,
    hardware,
    in_shares,
    merge_guard,
    precision,
    quantized,
)
from ftlab.training.carried import lay, tensors_of
from ftlab.training.event_log import Report
from ftlab.training.padding_sensitivity import reads_padding
from ftlab.training.run import Run
from ftlab.training.unused_parameters import retire_unused


def load(run: Run, report: Report) -> costs.MemoryMeter:
    """Seed, threads and data; memory is measured from here on."""
    if run.settings.threads:  # of the run, which all its processes share
        torch.set_num_threads(max(1, run.settings.threads // run.settings.devices))
    seed_everything(run.seed, workers=True, verbose=False)
    report({"event": "progress", "phase": "load", "done": 0, "total": 1})
    if run.plain:
        run.data = run.data.without_shortcuts()
    run.data.load()
    run.data.connect(run.backbone, run.seed)
    device = hardware.device_of(run.settings)
    if device.type == "cuda":
        hardware.set_tf32(run.settings.tf32)
        run.data = run.data.in_pinned_memory()
    return costs.MemoryMeter(device)


def adapt(run: Run, report: Report, whole: bool = False) -> tuple[TaskModel, guards.TensorGuard]:
    """Build the backbone's model and let the technique adapt it, under guard.

    The weights have the run's precision before the technique and the guards see them. Under FSDP the
    model is shared out, where that can be done before it has weights; otherwise it is whole.

    Args:
        run: loaded (`load`).
        report: takes notes.
        whole: load it whole, under FSDP too.
    """
    technique = run.technique
    run.data = batches.with_streams(run.data, technique, run.settings)
    given = run.settings.max_epochs
    run.settings = by_steps.settled(run.settings, run.data)
    batches.check_update(technique, run.data, run.settings)
    if technique.trains and run.settings.min_steps and run.settings.max_epochs > given:
        report({"event": "note", "text": f"{run.settings.max_epochs} epochs in place of {given}, which "
                                         f"give min_steps: {run.settings.min_steps}"})
    technique.prepare(run.data)
    technique.validation_groups = groups_of(run.data.splits, "validation")
    if whole or run.settings.strategy != "fsdp" or not technique.trains:
        return _adapt(run, report)
    random, spare, said = torch.get_rng_state(), copy.deepcopy(technique), list[dict[str, Any]]()
    try:
        adapted = _adapt(run, said.append, shared_out=True)
    except WholeOnly as reason:
        torch.set_rng_state(random)
        run.technique = spare
        report({"event": "note", "text": f"each rank loads all weights before they are shared out: {reason}"})
        return _adapt(run, report)
    for event in said:
        report(event)
    return adapted


def _adapt(run: Run, report: Report, shared_out: bool = False) -> tuple[TaskModel, guards.TensorGuard]:
    """The model under guard, whole or shared out over the ranks.

    Raises:
        WholeOnly: it cannot be shared out before it has weights.
    """
    technique, task = run.technique, run.data.task
    model = (in_shares.build(run) if shared_out
             else run.backbone.build(task, technique.output_type)).eval()
    if run.learned is not None:
        run.carried = lay(model, run.learned)
    model.head_trained |= run.head_trained
    name = hardware.suit(run, model, report)
    precision.convert(model, name)
    if run.begun is not None:
        run.begun(model)
    if run.quantized:
        model.quantizable = quantized.layers(model)
    if run.retain:
        run.places = {slot: place for slot, place, _ in tensors_of(model)}
    sample = costs.first_examples(next(iter(run.data.val_dataloader())), 2)
    sample = precision.convert_inputs(sample, name)
    if not technique.trains:
        if model.new_ids:
            report({"event": "note", "text": f"new_tokens stay as they started: "
                    f"{type(technique).__name__} trains nothing"})
        if technique.output_type is None:  # outputs need not depend on weights when it is bound
            _retire(model, sample, report)
        technique.bind(model, task).eval()
        precision.convert(model, name)  # what the technique has added
        if technique.output_type is not None:
            # the target is the task's, and the technique may want a model of another form
            _retire(model, costs.without_target(sample), report)
        return model, guards.TensorGuard(model)
    with in_shares.shapes_alone(model, sample) if shared_out else nullcontext(sample) as seen:
        _retire(model, seen, report)
    unadapted = in_shares.filled(run, copy.deepcopy(model)) if shared_out else model
    if reads_padding(unadapted, run.data, lambda batch: precision.convert_inputs(batch, name)):
        report({"event": "note", "text": f"{type(model.network).__name__} reads padding, by its "
                "own design: an example's score depends a little on what it is batched with"})
    with torch.no_grad():
        with batches.watched(unadapted, len(sample["index"])) as single:
            before = unadapted.comparable(unadapted(sample))
        del unadapted  # its weights, where they are others than the model's
        if shared_out:
            in_shares.bind(run, model)
            in_shares.filled(run, model)
        else:
            technique.bind(model, task)
        technique.eval()
        precision.convert(model, name)
        hardware.lay_out(run, model)  # what the technique has added
        recomputing = bool(run.settings.checkpoint_activations)
        with activation_checkpointing.checked(model) if recomputing else nullcontext():
            after = model.comparable(model(sample))
        guards.check_identity(before, after, technique, model)
        merge_guard.check_layers(technique, model, sample)
    if recomputing:
        activation_checkpointing.install(model)
    technique.train()
    update, notes = batches.settle(run.data, model, single, run.settings)
    run.data = run.data.updated_by(update)
    for text in (*technique.notes, *notes):
        report({"event": "note", "text": text})
    return model, guards.TensorGuard(model)


def _retire(model: TaskModel, sample: Mapping[str, Any], report: Report) -> None:
    unused = retire_unused(model, sample)
    if unused:
        report({"event": "note", "text": f"not used by the task, left out: {', '.join(unused)}"})
