"""A finished run as the model that it tested, built again and held to what it wrote."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ftlab.backbones.base import Backbone
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.prediction_split import put
from ftlab.errors import InputError
from ftlab.studies.components import build, check, check_plain
from ftlab.studies.yaml_file import Place
from ftlab.techniques.base import Technique
from ftlab.tracking import artifacts
from ftlab.tracking.find_run import RunReader
from ftlab.tracking.records import RunRecord
from ftlab.training import checkpoint
from ftlab.training.adapt import adapt, load
from ftlab.training.manifest import FAILED, MANIFEST
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

_PARTS = {"backbone": Backbone, "data": DataModule, "technique": Technique}
_AGAIN = "take a run whose artifacts are whole, or run its study again"


@dataclass(frozen=True)
class Restored:
    """A run's model.

    Attributes:
        record: what the store says of the run.
        spec: the run's specification, as its checkpoint's manifest has it.
        run: backbone, data, technique and settings, connected.
        files: a folder with the run's `checkpoint` and `predictions`; it goes with the context.
        cell: the metrics of its cell, over the seeds.
        labelled: of each test example, whether it has a label of its own; None where all have.
        notes: on the source, for users, in the test split's place.
    """

    record: RunRecord
    spec: dict[str, Any]
    run: Run
    files: Path
    cell: dict[str, float]
    labelled: Sequence[bool] | None = None
    notes: Sequence[str] = ()

    @property
    def model(self) -> TaskModel:
        """In eval mode, on the CPU."""
        return self.run.technique.model

    @property
    def title(self) -> str:
        """For people: `lora on bbc from minilm, seed 0`."""
        tags = self.record.tags
        return (f"{tags['ftlab.technique']} on {tags['ftlab.dataset']} from "
                f"{tags['ftlab.backbone']}, seed {self.record.seed}")


@contextmanager
def restore_run(
    run: str, tracking_uri: str | None = None, allow: Sequence[str] = (),
    test: str | None = None, dequantized: bool = False,
) -> Iterator[Restored]:
    """A run's model, its data loaded; what was downloaded is gone afterwards.

    Args:
        run: MLflow's id, or the beginning of one.
        tracking_uri: as in `Tracker`.
        allow: packages outside ftlab whose classes the run may name.
        test: a source whose examples stand in the test split's place.
        dequantized: build a quantised base in the floating point that it stands for.

    Raises:
        InputError: no such run, a missing or damaged checkpoint, or a backbone or data that are
            no longer what they were.
    """
    reader = RunReader(tracking_uri)
    record = reader.find(run)
    with tempfile.TemporaryDirectory(prefix="ftlab-") as folder:
        files = Path(folder) / "run"
        for name in ("checkpoint", "predictions"):
            reader.download(record.run_id, name, files)
        artifacts.check(record, files, "checkpoint")
        spec = _specification(files, record.run_id)
        made = _checked(spec, record.run_id, allow, Path(folder))
        _hold("backbone", "weights have", made.backbone.fingerprint, spec, record.run_id)
        if "answers" in made.technique.hooks:
            raise InputError(f"run {record.run_id}: its predictions came from a file, so that there "
                             "is no model", "take a run of another technique")
        made.backbone.dequantized = dequantized
        made.data.load()
        _hold("dataset", "data have", made.data.fingerprint, spec, record.run_id)
        made.data.notes.clear()  # the run has said them
        labelled = None if test is None else put(made.data, test)
        notes = tuple(made.data.notes)
        load(made, lambda event: None)
        adapt(made, lambda event: None)
        model = made.technique.model
        checkpoint.load(files / "checkpoint", model)
        model.requires_grad_(False).eval()
        yield Restored(record, spec, made, files, reader.cell(record), labelled, notes)


def _specification(files: Path, run_id: str) -> dict[str, Any]:
    """Read the run's specification from its checkpoint's manifest."""
    path = files / "checkpoint" / MANIFEST
    try:
        spec: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = {*_PARTS, "trainer", "seed", "select_by", "fingerprints"} - spec.keys()
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"run {run_id}: its checkpoint has no readable manifest ({error})",
                         _AGAIN) from error
    if FAILED in spec:
        raise InputError(f"run {run_id}: its checkpoint is that of a failed run: {spec[FAILED]}",
                         "run its study again; ftlab.training.checkpoint.load takes it as it is")
    if missing:
        raise InputError(f"run {run_id}: its checkpoint's manifest lacks {', '.join(sorted(missing))}",
                         _AGAIN)
    return spec


def _checked(spec: dict[str, Any], run_id: str, allow: Sequence[str], folder: Path) -> Run:
    """The run's objects; a manifest names classes, so it is held to what a study may name."""
    place = Place(f"run {run_id}")
    parts = {name: build(check(base, spec[name], place / name, allow))
             for name, base in _PARTS.items()}
    settable = {field.name for field in fields(TrainerSettings)}
    settings = TrainerSettings(**check_plain(
        TrainerSettings, {k: v for k, v in spec["trainer"].items() if k in settable},
        place / "trainer"))
    # one process evaluates, as at the end of every run; `auto` is what it became
    settings = replace(settings, **spec.get("became", {}), devices=1, nodes=None, strategy="auto")
    directory = folder / "work"
    directory.mkdir()
    return Run(**parts, settings=settings, seed=spec["seed"], select_by=spec["select_by"],
                   directory=directory, record={}, plain=spec.get("plain", False),
                   head_trained=any(s["carry"] == "all" for s in spec.get("before", [])[-1:]))


def _hold(kind: str, what: str, actual: str, spec: dict[str, Any], run_id: str) -> None:
    expected = spec["fingerprints"].get(f"ftlab.{kind}_sha256")
    if actual != expected:
        raise InputError(
            f"run {run_id}: the {kind}'s {what} changed since: sha256 {actual[:12]}, and the run "
            f"had {str(expected)[:12]}", f"put the {kind} of then back, or run its study again")
