import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from matrix import make_technique, make_world
from torch import nn
from torchvision.transforms.v2 import InterpolationMode

from ftlab.backbones.task_model import TaskModel
from ftlab.data.image_cache import ImageCache
from ftlab.data.image_dataset import FitSize
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.training import costs
from ftlab.training.costs import MemoryMeter, first_examples, flops, latency, parameter_counts
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True


class Task:
    def collection(self) -> nn.Module:
        return nn.Identity()

    def predict(self, model: TaskModel, batch: dict) -> torch.Tensor:
        return model(batch)

    def loss(self, outputs: torch.Tensor, batch: dict) -> torch.Tensor:
        return outputs.sum()


def technique() -> FullFineTuning:
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    model = TaskModel(network, [("0", ["0"])], head=["2"])
    return FullFineTuning().bind(model, Task())


BATCH = {"inputs": {"input": torch.ones(8, 64)}, "index": torch.arange(8)}


def test_flops__closed_formula() -> None:
    forward = 2 * (64 * 32 + 32 * 4)
    # Each layer's weight gradient costs its forward pass, and so does the gradient of its input,
    # which the first layer does not need.
    backward = forward + 2 * 32 * 4
    assert flops(technique(), BATCH) == {
        "cost/inference_flops": forward,
        "cost/train_flops": forward + backward,
    }


def test_parameter_counts__trained_and_total() -> None:
    model = technique().model
    assert parameter_counts(model, {"network.2.bias"}) == {
        "cost/trainable_parameters": 4,
        "cost/total_parameters": 64 * 32 + 32 + 32 * 4 + 4,
    }


def test_memory__sees_a_peak_that_is_gone_and_forgets_it() -> None:
    size = 64 * 2**20
    meter = MemoryMeter(torch.device("cpu"))
    meter.start()
    torch.ones(size, dtype=torch.uint8)
    assert meter.peak() >= 0.9 * size
    meter.start()
    assert meter.peak() < 0.5 * size


@pytest.mark.parametrize("fault", [None, ModuleNotFoundError(), RuntimeError("no driver"), "NVMLError"])
def test_joules__are_the_device_s_counter__or_none(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("pynvml")
    error = type("NVMLError_NotSupported", (Exception,), {"__module__": "pynvml"})

    def read(handle: str) -> int:
        assert handle == "the first"
        if fault is not None:
            raise error() if isinstance(fault, str) else fault
        return 12_345_000  # thousandths

    library.nvmlDeviceGetTotalEnergyConsumption = read  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(torch.cuda, "_get_pynvml_handler", lambda device: "the first")
    assert costs.joules(torch.device("cuda")) == (12_345.0 if fault is None else None)
    assert costs.joules(torch.device("cpu")) is None
    library.nvmlDeviceGetTotalEnergyConsumption = lambda handle: {}["x"]  # type: ignore[attr-defined]
    with pytest.raises(KeyError):
        costs.joules(torch.device("cuda"))


def test_memory__leaves_out_the_code_of_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = tmp_path / "smaps"
    maps.write_text("7f00-7f10 r-xp 00000000 08:01 1   /usr/lib/libmkl.so.2\nSize: 64 kB\nRss: 40 kB\nPss: 20 kB\n"
                    "7f10-7f20 r--p 00000000 08:01 2   /data/model.safetensors\nRss: 90 kB\n"
                    "7f20-7f30 rw-p 00000000 00:00 0 \nRss: 7 kB\n7f30-7f40 r-xp 0 0:0 3 /python/_C.so\nRss: 2 kB\n")
    monkeypatch.setattr(costs, "MAPS", maps)
    assert costs._code() == 42 * 1024


def test_memory__leaves_out_images_that_are_kept() -> None:
    images = [torch.zeros(3, 8, 8, dtype=torch.uint8)] * 64
    kept = ImageCache(images, FitSize((512, 512), InterpolationMode.BILINEAR), 3)
    meter = MemoryMeter(torch.device("cpu"))
    meter.start()
    for index in range(len(images)):
        kept[index]
    assert kept.bytes == 48 * 2**20
    assert meter.peak() < 16 * 2**20
    torch.ones(64 * 2**20, dtype=torch.uint8)
    assert meter.peak() >= 56 * 2**20


def test_latency__is_a_positive_time() -> None:
    assert 0 < latency(Task(), technique().model, BATCH, repeats=3) < 1


def test_first_examples__cuts_every_column() -> None:
    cut = first_examples({**BATCH, "target": [1, 2, 3]}, 2)
    assert cut["inputs"]["input"].shape == (2, 64)
    assert cut["target"] == [1, 2]


def test_untrained__counts_the_parameters_that_a_prediction_reads(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    backbone, data = make_world("image_classification_clip", request.getfixturevalue)()
    zero_shot = make_technique("ZeroShot")
    run = Run(backbone, data, zero_shot, TrainerSettings(), 0, "val/loss", tmp_path)
    notes: list[dict] = []
    metrics = execute(run, notes.append)
    whole = backbone.build(data.task, "embedding")
    vision = sum(p.numel() for n, p in whole.named_parameters() if "vis" in n)
    assert 0 < metrics["cost/total_parameters"] == vision  # the text tower has done its work
    assert any("left out" in event.get("text", "") for event in notes)
