"""Checks of a restored model and of an exported one, before an export counts."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftlab.backbones.heads.single_precision import HALF
from ftlab.backbones.load_pretrained import quiet
from ftlab.backbones.passes import tensors
from ftlab.backbones.source import reason
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import FtlabError, InputError
from ftlab.exports.loading_code import LoadingCode
from ftlab.exports.restore_run import Restored
from ftlab.interchange import Parquet
from ftlab.tasks.base import Task
from ftlab.techniques.single_precision import in_single_precision
from ftlab.tracking import artifacts
from ftlab.training import guards
from ftlab.training.costs import without_target
from ftlab.training.evaluate import placing
from ftlab.training.make_trainer import silent_trainer

FEW = 4
"""Examples on which an exported model is compared with ours, one at a time."""
SOME = 32
"""Stored predictions that a restored model must give again, at least."""
EXACT = 1e-5


@dataclass(frozen=True)
class Sample:
    """One test example.

    Attributes:
        name: its id.
        raw: as `predict` takes it.
        batch: of it alone.
        inputs: what the network is called with.
    """

    name: str
    raw: Any
    batch: dict[str, Any]
    inputs: dict[str, Any]


@dataclass(frozen=True)
class ExpectedOutput:
    """Our model's output for a sample: comparable tensors, and its prediction record."""

    outputs: list[Tensor]
    record: dict[str, Any]


def samples(restored: Restored) -> list[Sample]:
    """A few test examples, spread over those of which the run predicted something, if it did.

    They are read as if they had no labels, as the lines of an export read them.
    """
    data, model = restored.run.data, restored.model
    examples, dataset = data.splits["test"], data.dataset("test", training=False)
    stored, collate = _stored(restored), data.collate(training=False)
    telling = [place for place, name in enumerate(examples.ids)
               if stored.get(name, {}).get("prediction") not in (None, [], "")]
    places = telling or list(range(len(examples)))
    places = places[::max(1, len(places) // FEW)][:FEW]
    chosen = []
    for place, row in zip(places, data.unlabelled(places) or [dataset[i] for i in places],
                          strict=True):
        batch = collate([row])
        chosen.append(Sample(examples.ids[place], _raw(examples.inputs[place]), batch,
                            dict(model.arguments(_read(model, batch)))))
    return chosen


def _read(model: TaskModel, batch: dict[str, Any]) -> Mapping[str, Any]:
    """The part of a batch that a forward pass of the exported network needs."""
    return model.as_exported(batch if model.needs_target else without_target(batch))


def _raw(value: Any) -> Any:
    return io.BytesIO(value) if isinstance(value, bytes) else value


def expected_outputs(restored: Restored, chosen: Sequence[Sample]) -> list[ExpectedOutput]:
    """Compute our model's outputs, in plain precision on the CPU."""
    model, task = restored.model.cpu(), restored.run.data.task
    expected = []
    for sample in chosen:
        with torch.no_grad():
            outputs = model.comparable(model(_read(model, sample.batch)))
            whole = model(sample.batch)
            predictions = in_single_precision(task.predict(model, sample.batch, whole))
        records = task.records(predictions, sample.batch["target"])
        expected.append(ExpectedOutput([o.clone() for o in outputs], {
            name: records[name][0] for name in ("prediction", "scores") if name in records}))
    return expected


def largest_change(before: Sequence[ExpectedOutput], after: Sequence[ExpectedOutput], model: TaskModel) -> float:
    """Measure what a merge or a rounding has changed of the outputs.

    Raises:
        GuardFailed: they differ by more than rounding.
    """
    return max(guards.check_merge(one.outputs, other.outputs, model)
               for one, other in zip(before, after, strict=True))


def reproduce(restored: Restored) -> None:
    """Hold a restored model to the stored predictions of its run, on some test examples.

    Raises:
        FtlabError: they differ.
    """
    run, stored = restored.run, _stored(restored)
    half = run.settings.precision not in ("32-true", "64-true") or (
        # a quantised base is multiplied by in another order than the floating point it stands for
        run.backbone.dequantized and run.backbone.quantize is not None and any(
            p.dtype in HALF for p in restored.model.parameters()))
    seen, wrong = 0, []
    for name, row in _predicted(restored, SOME):
        seen += 1
        record: dict[str, Any] = {key: row[key] for key in ("prediction", "scores") if key in row}
        then = stored.get(name, {})
        if not run.data.task.agrees(record, {key: then.get(key) for key in record},
                                    2e-2 if half else 1e-4):
            wrong.append(name)
    if wrong:
        raise FtlabError(
            f"run {restored.record.run_id}: of {seen} stored test predictions the restored model "
            f"gives {len(wrong)} otherwise, the first of them for {wrong[0]}",
            "export where the run was made, with the versions that its provenance names")


def _stored(restored: Restored) -> dict[str, dict[str, Any]]:
    """The run's test predictions by id."""
    artifacts.check(restored.record, restored.files, "predictions/test.parquet")
    path = restored.files / "predictions" / "test.parquet"
    if not path.is_file():
        raise InputError(f"run {restored.record.run_id} has no predictions/test.parquet",
                         "put its artifacts back, or run its study again")
    columns = Parquet(path, path, "put its artifacts back, or run its study again").to_pydict()
    rows = (dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True))
    return {row["id"]: row for row in rows}


def _predicted(restored: Restored, enough: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Id and record of the first examples, computed as the run's own evaluation did."""
    run = restored.run
    trainer = silent_trainer(run)
    device = trainer.strategy.root_device
    model, data, place = restored.model.to(device), run.data, placing(trainer, device)
    seen, ids = 0, data.splits["test"].ids
    for raw in data.eval_loader("test"):
        batch = place(raw)
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            outputs = model(batch)
            predictions = in_single_precision(data.task.predict(model, batch, outputs))
        columns = data.task.records(predictions, batch["target"])
        for row, position in enumerate(batch["index"].tolist()):
            yield ids[position], {name: values[row] for name, values in columns.items()}
        seen += len(batch["index"])
        if seen >= enough:
            break
    model.cpu()


def check_folded(task: Task, chosen: Sequence[Sample], before: Sequence[ExpectedOutput],
                 after: Sequence[ExpectedOutput]) -> None:
    """Hold a head that has taken in a scale and an offset to the predictions before.

    Raises:
        FtlabError: they differ.
    """
    for sample, one, other in zip(chosen, before, after, strict=True):
        if not task.agrees(other.record, one.record, EXACT):
            raise FtlabError(f"the head does not give {_short(one.record['prediction'])} for "
                             f"{sample.name} in the target's own units, but "
                             f"{_short(other.record['prediction'])}, so nothing is written",
                             "tell ftlab's authors")


def check(loading: LoadingCode, folder: Path, task: Task, chosen: Sequence[Sample],
          expected: Sequence[ExpectedOutput]) -> None:
    """Execute the card's lines on a folder and compare what they give with our model.

    Raises:
        FtlabError: they fail, or give something else.
    """
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other libraries' about each other
            names = loading.run(str(folder))
            given = [(_computed(names, sample), _prediction(loading, names, sample))
                     for sample in chosen]
    except Exception as error:  # whatever another library raises, the export is none
        raise FtlabError(f"the exported model does not load or run without ftlab: "
                         f"{type(error).__name__}: {reason(error)}",
                         "try --merged, or tell ftlab's authors") from error
    for sample, ours, (outputs, predicted) in zip(chosen, expected, given, strict=True):
        if outputs is not None and not close(outputs, ours.outputs):
            raise FtlabError(f"the exported model gives other outputs than ours for {sample.name} "
                             f"(by up to {_gap(outputs, ours.outputs):.2g}), so nothing is written",
                             "try --merged, or tell ftlab's authors")
        record = {key: ours.record[key] for key in predicted}
        if predicted and not task.agrees(predicted, record, 1e-3):
            raise FtlabError(f"the exported model predicts {_short(predicted['prediction'])} for "
                             f"{sample.name}, and ours {_short(record['prediction'])}, so nothing "
                             "is written", "tell ftlab's authors")
    if all(outputs is None and not predicted.get("prediction") for outputs, predicted in given):
        raise FtlabError("the model predicts nothing for any test example, so that nothing would "
                         "tell whether an export predicts the same",
                         "train it until it finds something, or keep lower scores")


def _computed(names: Mapping[str, Any], sample: Sample) -> list[Tensor] | None:
    """Raw outputs; None where the lines compute predictions alone."""
    if "compute" not in names:
        return None
    with torch.no_grad():
        return tensors(names["compute"](**sample.inputs))


def _prediction(loading: LoadingCode, names: Mapping[str, Any], sample: Sample) -> dict[str, Any]:
    """The prediction record of a raw example; empty where no lines lead to it."""
    if not loading.examples:
        return {}
    if isinstance(sample.raw, io.BytesIO):
        sample.raw.seek(0)
    given = names["predict"]([sample.raw])
    if loading.gives_scores:
        return {"prediction": given[0][0], "scores": given[1][0]}
    return {"prediction": given[0]}


def _short(prediction: Any) -> str:
    text = repr(prediction)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def close(given: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float = EXACT) -> bool:
    """Equal, tensor by tensor, up to a part of the largest; of half precision up to its rounding."""
    return len(given) == len(expected) and all(
        a.shape == b.shape and _gap([a], [b]) <= max(1.0, float(b.abs().max())) * (
            tolerance if b.dtype in (torch.float32, torch.float64) else 5e-2)
        for a, b in zip(given, expected, strict=True))


def _gap(given: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    if [a.shape for a in given] != [b.shape for b in expected]:
        return math.inf
    return max(float((a.float() - b.float()).abs().max()) for a, b in
               zip(given, expected, strict=True))
