"""YOLOX of libreyolo as a detector like the others."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ftlab.backbones.heads.detection_model import Keep
from ftlab.backbones.yolox import YOLOX
from ftlab.data.box_augment import BoxAugment
from ftlab.data.object_detection import ObjectDetection
from ftlab.errors import Incompatible, InputError
from ftlab.studies.discover import members
from ftlab.techniques.base import Technique
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

TASK = SimpleNamespace(output_type="boxes", auto_classes=(), outputs=2)


@pytest.fixture(scope="module")
def library():
    return pytest.importorskip("libreyolo.models.yolox.nn", reason="libreyolo is not installed",
                               exc_type=ImportError).LibreYOLOXModel


@pytest.fixture(scope="module")
def weights(library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the smallest, as the paper's repository saves them."""
    file = tmp_path_factory.mktemp("yolox") / "yolox_nano.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = library("n", 5)
        network.init_weights()
        torch.save({"model": network.state_dict(), "start_epoch": 300}, file)
    return file


def batch(targets: bool = True) -> dict:
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    one = {"boxes": torch.tensor([[4.0, 8, 40, 50]]), "labels": torch.tensor([1]), "ignored": torch.tensor([False])}
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long),
            "ignored": torch.zeros(0, dtype=torch.bool)}
    return {"inputs": {"images": image}} | ({"target": [one, none]} if targets else {})


def test_losses__are_the_library_s(library, weights: Path) -> None:
    model = YOLOX("n", str(weights)).build(TASK).train()
    theirs = library("n", 2).train()
    theirs.load_state_dict(model.network.network.state_dict())
    labels = torch.tensor([[[1, 22.0, 29, 36, 42]], [[0.0] * 5]])
    parts = theirs(batch()["inputs"]["images"].flip(1), labels)
    ours = model(batch())["losses"]
    torch.testing.assert_close(sum(ours.values()), parts["total_loss"])
    model.eval()
    assert model(batch(False))["losses"] == {}
    assert set(model(batch())["losses"]) == {"iou", "obj", "cls"}


def test_detections__are_the_library_s_places(library, weights: Path) -> None:
    model = YOLOX("n", str(weights), keep=Keep(score=0.0, overlap=1.0, most=1000)).build(TASK).eval()
    theirs = library("n", 2).eval()
    theirs.load_state_dict(model.network.network.state_dict())
    theirs.head.export = True
    with torch.no_grad():
        places = theirs(batch()["inputs"]["images"].flip(1))[0]
        found = model(batch(False))["detections"][0]
    scores, labels = (places[:, 5:] * places[:, 4:5]).max(dim=1)
    order = scores.argsort(descending=True)
    torch.testing.assert_close(found["scores"], scores[order])
    best = places[order[0]]
    torch.testing.assert_close(found["boxes"][0], torch.cat([best[:2] - best[2:4] / 2, best[:2] + best[2:4] / 2]))
    assert int(found["labels"][0]) == int(labels[order[0]])


def test_head__is_what_says_the_class(weights: Path) -> None:
    model = YOLOX("n", str(weights)).build(TASK)
    assert {name.split(".")[-2] for name, _ in model.head.named_parameters()} == {"0", "1", "2"}
    assert [block.name for block in model.blocks][-1] == "head"
    assert [block.name for block in YOLOX("n").build(TASK, meta=True).blocks][-1] == "network.backbone.C3_n4"


@pytest.mark.parametrize("name", ["FullFineTuning", "LinearProbe", "LoRA"])
def test_run__trains_and_is_measured(name: str, weights: Path, rectangles: Path, tmp_path: Path) -> None:
    data = ObjectDetection(str(rectangles), augment=BoxAugment("none"), batch_size=8)
    run = Run(YOLOX("n", str(weights), image_size=64), data, members(Technique)[name](lr=5e-3),
              TrainerSettings(max_epochs=2), 7, "val/loss", tmp_path)
    events: list[dict] = []
    metrics = execute(run, events.append)
    losses = [event["metrics"]["train/epoch_loss"] for event in events
              if event["event"] == "metrics" and "train/epoch_loss" in event["metrics"]]
    assert losses[1] < losses[0]
    assert 0 <= metrics["test/map"] <= 1


def test_refuses(tmp_path: Path, library) -> None:
    with pytest.raises(ValueError, match="size must be one of"):
        YOLOX("huge")
    with pytest.raises(Incompatible, match="finds objects in images; it gives no vector"):
        YOLOX("n").build(SimpleNamespace(output_type="vector", auto_classes=(), outputs=2))
    torch.save([1], tmp_path / "other.pth")
    with pytest.raises(InputError, match="holds no plain state dict"):
        YOLOX("n", str(tmp_path / "other.pth")).build(TASK)
    torch.save({"model": {"x": torch.ones(1)}}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="does not fit"):
        YOLOX("n", str(tmp_path / "other.pth")).build(TASK)


def test_without_the_package__says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libreyolo.models.yolox.nn", None)
    with pytest.raises(InputError, match="needs the package libreyolo") as caught:
        YOLOX("n").build(TASK)
    assert "ftlab[yolox]" in caught.value.mend
