"""Weights are mapped from their file: nothing is drawn at random that they replace, and training
writes to memory of its own."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from families import IMAGE, TEXT
from safetensors.torch import save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import models

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.task_model import TaskModel
from ftlab.backbones.torchvision import Torchvision

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc names what is mapped")
NAMES = ("resnet18", "mobilenet_v2")


@contextmanager
def drawn() -> Iterator[list[int]]:
    """How many numbers are drawn at random, inside."""
    counts = []

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (),
                               kwargs: Any = None) -> Any:
            random = torch.Tag.nondeterministic_seeded in operator.tags
            result = operator(*args, **(kwargs or {}))
            if random and not result.is_meta:
                counts.append(result.numel())
            return result

    with Counting():
        yield counts


def mapped(tensor: Tensor, file: Path) -> bool:
    """Whether a tensor's memory is a private map of a file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        words = line.split(maxsplit=5)
        begin, end = (int(edge, 16) for edge in words[0].split("-"))
        if begin <= tensor.data_ptr() < end:
            return words[1].endswith("p") and words[-1] == str(file.resolve())
    return False


def hash_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def check(build: Callable[[], TaskModel], file: Path) -> TaskModel:
    """All but the head is the file's, and the file stays as it is when the model trains."""
    before = hash_of(file)
    with drawn() as counts:
        model = build()
    head = sum(parameter.numel() for parameter in model.head.parameters())
    assert 0 < sum(counts) <= 4 * head  # which transformers fills before we do, some more than once
    for name, parameter in model.named_parameters():
        assert mapped(parameter, file) != model.head.holds(name), name
    kept = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert hash_of(file) == before
    again = dict(build().named_parameters())  # while the first is alive, and maps the same file
    assert all(torch.equal(again[name], tensor) for name, tensor in kept.items()
               if not model.head.holds(name))
    return model


@pytest.mark.parametrize("family", [*TEXT, *IMAGE])
def test_huggingface__maps_its_weights(
    family: str, backbone: Callable[..., HuggingFace], task: Any
) -> None:
    made = backbone(family, pooling="mean" if family == "bert_mlm" else None)  # it has no pooler
    (file,) = made._weights()
    network = check(lambda: made.build(task), file).network
    plain = dict(type(network)(network.config).named_buffers())
    stored = network.state_dict()
    ours = dict(network.named_buffers())
    assert ours.keys() == plain.keys()
    for name, buffer in ours.items():  # positions and the like, which no file holds
        assert buffer.device.type == "cpu"
        assert name in stored or torch.equal(buffer, plain[name]), name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_torchvision__maps_its_weights(
    name: str, kind: str, tmp_path: Path, task: Any
) -> None:
    state = models.get_model(name, weights=None).state_dict()
    file = tmp_path / f"weights.{kind}"
    save_file(state, file) if kind == "safetensors" else torch.save(state, file)
    check(lambda: Torchvision(name, str(file)).build(task), file)


def test_torchvision__reads_torchs_old_format(tmp_path: Path, task: Any) -> None:
    state = models.resnet18(weights=None).state_dict()
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    built = Torchvision("resnet18", str(tmp_path / "old.pth")).build(task)
    assert torch.equal(built.network.conv1.weight, state["conv1.weight"])
