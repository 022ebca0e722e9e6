"""Models as runs leave them, without the runs; and a process without ftlab that loads exports."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matrix import World, make_technique
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

from ftlab.exports.export import write_model
from ftlab.exports.restore_run import Restored
from ftlab.exports.transformers_folder import network_of
from ftlab.exports.verify import Sample, samples
from ftlab.tracking.records import RunRecord
from ftlab.training import checkpoint
from ftlab.training.adapt import adapt, load
from ftlab.training.evaluate import evaluate, write_predictions
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

LOADER = Path(__file__).parent / "exports" / "loader.py"


def restored(world: World, technique: str, directory: Path, **cell: float) -> Restored:
    """A model as a run would leave it: adapted, then every trainable tensor moved."""
    def run() -> Run:
        backbone, data = world()
        settings = TrainerSettings(accelerator="cpu")
        made = Run(backbone, data, make_technique(technique), settings, 7, "val/loss", directory)
        load(made, lambda event: None)
        adapt(made, lambda event: None)
        made.technique.model.eval()
        return made

    trained, again = run(), run()
    model = trained.technique.model
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    changed = {name for name, p in model.named_parameters() if p.requires_grad}
    said = {part: {"class_path": f"{type(value).__module__}.{type(value).__qualname__}",
                   "init_args": {"source": getattr(value, "source", None)}}
            for part, value in (("backbone", trained.backbone), ("data", trained.data),
                                ("technique", trained.technique))}
    said |= {"trainer": {}, "seed": 7, "select_by": "val/loss", "epoch": 1, "fingerprints": {}}
    checkpoint.save(directory / "checkpoint", checkpoint.tensors(model, changed), said)
    _, records = evaluate(model, trained.data.test_dataloader(), trained.data.task,
                          trained.data.splits["test"].ids, lambda batch: batch)
    (directory / "predictions").mkdir()
    write_predictions(directory / "predictions" / "test.parquet", records)

    checkpoint.load(directory / "checkpoint", again.technique.model)
    again.technique.model.requires_grad_(False).eval()
    tags = {"ftlab.study": "study", "ftlab.technique": technique, "ftlab.dataset": "data",
            "ftlab.backbone": "tiny", "ftlab.seed": "7"}
    record = RunRecord("0" * 32, "1" * 32, 7, "FINISHED", "", {"test/loss": 1.0}, {}, tags, 0, 1)
    return Restored(record, said, again, directory, cell)


def finding(world: World) -> World:
    """The same with every detection kept: a model that never trained is sure of nothing."""
    def make() -> Any:
        backbone, data = world()
        if hasattr(backbone, "keep"):
            backbone.keep = replace(backbone.keep, score=0.0)
        return backbone, data
    return make


def exports_code(restored: Restored, merged: bool) -> bool:
    """Return whether network, task and data module have lines from raw examples to predictions."""
    model, run = restored.model, restored.run
    adapted = not merged and (isinstance(model.network, PeftModel) or any(
        isinstance(module, BaseTunerLayer) for module in model.modules()))
    built = network_of(model) is not None or (
        not adapted and run.backbone.export_code(model, run.data.task, None) is not None)
    return built and run.data.export_code(run.backbone.preprocessing, model) is not None


def without_ftlab(folders: Mapping[Any, Path], samples: Mapping[Any, Any],
                  directory: Path) -> dict[Any, Any]:
    """What the lines of each folder's card give, in one process that cannot import ftlab.

    Args:
        folders: by any key.
        samples: of each, pairs of a raw example and the network's inputs.
        directory: for what the two processes tell each other.
    """
    asked, answered = directory / "asked.pickle", directory / "answered.pickle"
    asked.write_bytes(pickle.dumps([(key, str(folders[key]), samples[key]) for key in folders]))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, str(LOADER), str(asked), str(answered)], cwd=directory,
                          env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    answers: dict[Any, Any] = pickle.loads(answered.read_bytes())
    return answers


def every_export(cases: Sequence[tuple[str, str, bool]], world: Callable[[str], World], root: Path,
                 known: Callable[[Restored, Path, list[Sample]], dict[str, Any]],
                 inputs: bool = True) -> dict[Any, dict[str, Any]]:
    """Each case exported, with what is `known` of it here and what its lines give alone.

    Args:
        cases: world, technique, and whether merged.
        world: by name.
        root: for all folders.
        known: of a model, its run's folder and the examples that are compared.
        inputs: whether the lines are tried on the network's inputs too.

    Returns:
        By case; `error` alone where it could not be exported, for the test of the case to show;
        `silent` alone where its parts export no code.
    """
    folders: dict[Any, Path] = {}
    tried: dict[Any, Any] = {}
    found: dict[Any, dict[str, Any]] = {}
    for number, case in enumerate(cases):
        name, technique, merged = case
        work, folder = root / f"run{number}", root / f"export{number}"
        work.mkdir()
        folder.mkdir()
        model = restored(world(name), technique, work)
        if not exports_code(model, merged):
            found[case] = {"silent": True}
            continue
        chosen = samples(model)
        told = known(model, work, chosen)
        try:
            _, form = write_model(model, folder, merged)
        except Exception as error:  # noqa: BLE001  the test of this case shows it
            found[case] = {"error": repr(error)}
            continue
        found[case] = {"form": form, "folder": folder} | told
        folders[case] = folder
        tried[case] = [(each.raw, each.inputs if inputs else None) for each in chosen]
    for case, given in without_ftlab(folders, tried, root).items():
        found[case] |= given
    return found
