import json
from pathlib import Path

import pytest
import torch
from torch import nn

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import InputError
from ftlab.training import checkpoint


def model(seed: int = 0) -> TaskModel:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    return TaskModel(network, [("0", ["0", "1"])], head=["2"])


def saved(directory: Path, of: TaskModel) -> None:
    names = {"network.2.weight", "network.1.running_mean"}
    checkpoint.save(directory, checkpoint.tensors(of, names), {"epoch": 3})


def test_round_trip__restores_named_tensors_alone(tmp_path: Path) -> None:
    one, two = model(1), model(2)
    one(  # moves the running mean
        {"inputs": {"input": torch.randn(8, 4)}}
    )
    untouched = two.state_dict()["network.0.weight"].clone()
    saved(tmp_path, one)
    assert checkpoint.load(tmp_path, two)["epoch"] == 3
    for name in ("network.2.weight", "network.1.running_mean"):
        assert torch.equal(one.state_dict()[name], two.state_dict()[name])
    assert torch.equal(two.state_dict()["network.0.weight"], untouched)
    assert {path.name for path in tmp_path.iterdir()} == {"delta.safetensors", "manifest.json"}


@pytest.mark.parametrize("position", [0, 9, 60, -1])
def test_load__refuses_a_changed_byte(tmp_path: Path, position: int) -> None:
    saved(tmp_path, model())
    content = bytearray((tmp_path / checkpoint.WEIGHTS).read_bytes())
    content[position] ^= 1
    (tmp_path / checkpoint.WEIGHTS).write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        checkpoint.load(tmp_path, model())


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": {}}'])
def test_load__refuses_a_torn_manifest(tmp_path: Path, text: str) -> None:
    saved(tmp_path, model())
    (tmp_path / checkpoint.MANIFEST).write_text(text)
    with pytest.raises(InputError, match="no readable checkpoint"):
        checkpoint.load(tmp_path, model())


def test_load__refuses_another_architecture(tmp_path: Path) -> None:
    saved(tmp_path, model())
    other = TaskModel(nn.Sequential(nn.Linear(4, 9)), [], head=["0"])
    with pytest.raises(InputError, match="tensors this model lacks"):
        checkpoint.load(tmp_path, other)


def test_save__a_crash_before_the_manifest_leaves_the_old_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ftlab.files.os.fsync", crash)
    with pytest.raises(OSError, match="No space"):
        saved(tmp_path, model())
    assert not (tmp_path / checkpoint.MANIFEST).exists()
    with pytest.raises(InputError):
        checkpoint.load(tmp_path, model())


def test_manifest__holds_hash_and_record(tmp_path: Path) -> None:
    saved(tmp_path, model())
    manifest = json.loads((tmp_path / checkpoint.MANIFEST).read_text())
    assert manifest["epoch"] == 3
    assert len(manifest["files"][checkpoint.WEIGHTS]["sha256"]) == 64
