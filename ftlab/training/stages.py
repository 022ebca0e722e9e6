"""Fits before the measured one, on the same network: what they learn is where the run starts.

A stage is trained once for all runs that begin alike: its tensors are a file of the cache, whose
name is a hash of all that they follow from. They are a state of the run that trained them, too, so
that it goes on from there where there is no cache, or not the same one.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor

from ftlab.backbones import cache_folder
from ftlab.backbones.digest import digest
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import GuardFailed, Incompatible
from ftlab.training import hardware, kept_tensors
from ftlab.training.adapt import load
from ftlab.training.carried import (
    HEAD,
    Learned,
    Slot,
    carries_head,
    check_new_tokens,
    slots,
    tensors_of,
)
from ftlab.training.event_log import ALIVE, Report
from ftlab.training.fit import fit
from ftlab.training.make_trainer import silent_trainer
from ftlab.training.run import Run
from ftlab.training.run_state import seconds_of_run
from ftlab.training.state_files import (
    FOLDER,
    StateFiles,
    Unwritten,
    identity_of,
    read_manifest,
    source_of,
)

LAYOUT = 2  # of the kept tensors' names; with 1 tied tensors had several
SECONDS = "seconds"
"""Name of the time that a stage took, beside its tensors."""
ENDED = "ended"
"""Folder, in a stage's, of the state that it ended with."""


def learn(run: Run, report: Report) -> None:
    """Train a run's stages, or read what another run has trained, and let the run start there.

    Raises:
        Incompatible: a stage cannot be trained on this network, or adds what does not merge.
        GuardFailed: the result would be wrong.
    """
    if not run.before:
        return
    tensors: dict[str, Tensor] = {}
    seconds = 0.0
    for number, stage in enumerate(run.before):
        begun = Learned(dict(tensors), seconds) if tensors else None
        fit_before = _as_run(run, number, begun)
        learned = _obtain(fit_before, number, report)
        run.seconds_before = fit_before.seconds_before
        tensors = {place: tensor for place, tensor in {**tensors, **learned.tensors}.items()
                   if stage.carry == "all" or not place.startswith(HEAD)}
        seconds += learned.seconds
    run.learned = Learned(tensors, seconds)
    run.head_trained = carries_head(run.learned)


def _as_run(run: Run, number: int, learned: Learned | None) -> Run:
    """A stage as a run of its own, which starts where the stages before it have ended."""
    stage = run.before[number]
    data = run.data if stage.data is None else stage.data
    own = stage.select_by or (run.select_by if stage.data is None
                              else f"val/{data.task.default_metric}")
    own_record = {name: value for name, value in stage.record.items() if value is not None}
    return replace(
        run, data=data, technique=stage.technique, settings=stage.settings, select_by=own,
        directory=run.directory_before(number), before=run.before[:number],
        record={**run.record, "before": [], **own_record}, learned=learned,
        head_trained=carries_head(learned), retain={}, quantized=())


def _obtain(run: Run, number: int, report: Report) -> Learned:
    """What a stage has learned: read, or trained and kept for others."""
    title = f"stage {number + 1} ({type(run.technique).__name__})"
    run.data.load()
    learned = _ended(run, title, report)
    if learned is not None:
        return learned
    if run.plain or "backbone" not in run.record or not cache_folder.may_add():
        return _train(run, title, report)

    def train() -> dict[str, Tensor]:
        nonlocal learned
        learned = _train(run, title, report)
        return {**learned.tensors, SECONDS: torch.tensor(learned.seconds, dtype=torch.float64)}

    tensors = kept_tensors.obtain("stages", _key(run), train, lambda: report(ALIVE))
    if learned is not None:
        return learned
    seconds = float(tensors.pop(SECONDS))
    report({"event": "note", "text": f"{title} was read: {len(tensors)} tensors, which "
            f"had taken {seconds:.1f} s"})
    return Learned(tensors, seconds)


def _key(run: Run) -> str:
    """Hash of all that a stage follows from."""
    record = {name: run.record[name] for name in ("backbone", "data", "technique", "trainer")}
    parts = {
        "record": record, "begun": _begun(run),
        "rows": run.data.fingerprint, "weights": run.backbone.fingerprint, "seed": run.seed,
        "select_by": run.select_by, "device": str(hardware.device_of(run.settings)),
        "source": source_of(run.technique), "versions": kept_tensors.versions(), "layout": LAYOUT,
    }
    return kept_tensors.key(parts)


def _begun(run: Run) -> dict[str, str]:
    """Digests of what the stages before have left, by place."""
    tensors = {} if run.learned is None else run.learned.tensors
    return {place: digest(tensor) for place, tensor in tensors.items()}


def _files(run: Run) -> StateFiles:
    """The state that a stage ended with."""
    return StateFiles(run.directory / ENDED / FOLDER, identity_of(run, _begun(run)))


def _ended(run: Run, title: str, report: Report) -> Learned | None:
    """What this run's stage has learned in a process before; None where it has not ended."""
    files = _files(run)
    if not read_manifest(files.folder):
        return None
    trainer = silent_trainer(run)
    for text in files.check(trainer):
        report({"event": "note", "text": f"{title}: {text}"})
    if files.newest is None:
        return None
    found = files.read(files.newest, trainer, shared_out=False)
    run.seconds_before = found["seconds_of_run"]
    report({"event": "note", "text": f"{title} had ended in another process, and is not trained again"})
    return Learned(found["tensors"], found["seconds"])


def _keep(run: Run, learned: Learned, trainer: Trainer, title: str, report: Report) -> None:
    """Write what a stage has learned beside its states, and remove these and all else."""
    kept = run.settings.save_every is not None
    if kept:
        content = {"tensors": dict(learned.tensors), "seconds": learned.seconds,
                   "seconds_of_run": seconds_of_run(run)}
        try:
            _files(run).write(lambda: content, trainer.global_step, trainer, None)
        except Unwritten as error:
            kept = False
            report({"event": "note", "text": f"what {title} has learned could not be written: {error}"})
    for path in run.directory.iterdir():
        if not (kept and path.name == ENDED):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _train(run: Run, title: str, report: Report) -> Learned:
    """Fit a stage and take what it changed, what it added merged."""
    run.directory.mkdir(exist_ok=True)
    start: dict[Slot, tuple[str, str]] = {}

    def begun(model: TaskModel) -> None:
        check_new_tokens(model)
        start.update({slot: (place, digest(tensor)) for slot, place, tensor in tensors_of(model)})

    run.begun = begun
    quiet = _of_stage(title, report)
    trainer, best, measured = fit(run, load(run, quiet), quiet)
    model, technique = run.technique.model.cpu(), run.technique
    now, state = slots(model), model.state_dict(keep_vars=True)
    added = [name for name, parameter in model.named_parameters()
             if parameter.requires_grad and now[name] not in start]
    if not technique.merge(model) and added:
        raise Incompatible(f"{title} adds {added[0]}, which does not merge into the network",
                           "take another technique for the stage")
    tensors = {start[slot][0]: state[name].detach().clone() for name, slot in now.items()
               if slot in start and digest(state[name]) != start[slot][1]}
    if not tensors:
        raise GuardFailed(f"{title} has changed nothing")
    learned = Learned(tensors, measured["cost/train_seconds"])
    _keep(run, learned, trainer, title, report)
    report({"event": "note", "text": f"{title} was trained: {len(tensors)} tensors, best epoch "
            f"{best.epoch}, {learned.seconds:.1f} s"})
    return learned


def _of_stage(title: str, report: Report) -> Report:
    """Passes on that a stage is alive and what it notes; its metrics are not the run's."""

    def tell(event: Mapping[str, Any]) -> None:
        if event["event"] == "note":
            report({**event, "text": f"{title}: {event['text']}"})
        elif event["event"] == "progress":
            report({**event, "phase": title})
        else:
            report(ALIVE)

    return tell
