from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ftlab.errors import Incompatible, InputError
from ftlab.studies import plan as planning
from ftlab.studies.components import build
from ftlab.studies.plan import plan
from ftlab.studies.study import load_study

Write = Callable[..., Path]


def test_plan__counts_what_trains_without_weights(write: Write) -> None:
    made = plan(load_study(write(techniques={"full": "FullFineTuning", "probe": "LinearProbe"})))
    full, probe = made.cells
    assert full.trainable == full.total
    assert probe.trainable == 32 * 2 + 2
    cell = full.cell
    data, backbone = build(cell.data), build(cell.backbone)
    data.load()
    real = backbone.build(data.task)
    assert full.total == sum(parameter.numel() for parameter in real.parameters())
    assert full.data_fingerprint == data.fingerprint
    assert full.backbone_fingerprint == backbone.fingerprint


def test_plan__a_cell_has_the_notes_of_its_own_technique(
    write: Write, tiny_resnet: Path, shapes: Path
) -> None:
    """Norms that stay frozen take no statistics from the batches of an update."""
    backbones = {"resnet": {"class_path": "HuggingFace", "init_args": {"source": str(tiny_resnet)}}}
    data = {"shapes": {"class_path": "ImageClassification", "init_args": {
        "train": str(shapes), "image_size": 32, "batch_size": 8}}}
    made = plan(load_study(write(
        backbones=backbones, datasets=data, trainer={"accumulate": 2},
        techniques={"full": "FullFineTuning", "probe": "LinearProbe"})))
    full, probe = (" ".join(cell.notes) for cell in made.cells)
    assert "batch norms take their statistics from each batch" in full
    assert "statistics" not in probe
    assert sum("statistics" in note for note in made.notes) == 1


def test_plan__refuses_what_makes_no_sense(write: Write) -> None:
    techniques = {"deep": {"class_path": "PartialFineTuning", "init_args": {"last": 40}}}
    with pytest.raises(Incompatible, match=r"deep on reviews from bert: .*4 blocks"):
        plan(load_study(write(techniques=techniques)))


def test_plan__every_device_has_an_example(write: Write, tmp_path: Path) -> None:
    data = load_study(write()).cells[0].data["init_args"]
    few = {"reviews": {"class_path": "TextClassification", "init_args": {
        "train": data["train"], "batch_size": 4, "max_length": 32,
        "subset": {"limit": 3, "splits": ["validation"]}}}}
    study = load_study(write(datasets=few, trainer={"devices": 4, "accelerator": "cpu"}))
    with pytest.raises(InputError, match="3 validation examples for 4 devices"):
        plan(study)


def test_plan__unknown_metrics(write: Write) -> None:
    for key, value in (("select_by", "val/acc"), ("report", "test/acc")):
        with pytest.raises(InputError, match="unknown metric 'acc'"):
            plan(load_study(write(**{key: value})))


def test_space__needs_room_for_every_run(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(load_study(write()))
    free = SimpleNamespace(free=10**12)
    monkeypatch.setattr(planning.shutil, "disk_usage", lambda folder: free)
    made.check_space([tmp_path / "not" / "made" / "yet"])
    free.free = made.bytes
    with pytest.raises(InputError, match="GB free, and the study needs about"):
        made.check_space([tmp_path])
