"""What is decided for the hardware, with machines that are not here played by fakes."""

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from matrix import make_technique, make_world
from safetensors.torch import load_file
from torch import nn

from ftlab.data.examples import SPLITS
from ftlab.data.image_cache import ImageCache
from ftlab.training import costs, hardware
from ftlab.training.adapt import adapt, load
from ftlab.training.checkpoint import WEIGHTS
from ftlab.training.execute import execute
from ftlab.training.manifest import MANIFEST
from ftlab.training.run import Run
from ftlab.training.shortcuts import compiled_blocks, device_images
from ftlab.training.shortcuts.base import Fitting
from ftlab.training.shortcuts.take import decide
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
DEPTHWISE = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4))
GROUPED = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4))
CONVNEXT = nn.Sequential(nn.Conv2d(4, 4, 7, groups=4), nn.LayerNorm(4))
DENSE = nn.Linear(4, 4)


@pytest.fixture
def make_run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Run]:
    def make(world: str, folder: str, technique: str = "FullFineTuning", plain: bool = False,
             **settings: Any) -> Run:
        backbone, data = make_world(world, request.getfixturevalue)()
        record = {"backbone": {"source": repr(vars(backbone))}, "data": {"init_args": {}}}
        directory = tmp_path / folder
        directory.mkdir()
        return Run(backbone, data, make_technique(technique), TrainerSettings(**settings), 7,
                   "val/loss", directory, record, plain)

    return make


def fitting(run: Run, events: list[dict[str, Any]]) -> Fitting:
    """A loaded run before its fit, on the CPU."""
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=CPU))
    absent: Any = None
    return Fitting(run, absent, trainer, absent, absent, SPLITS, events.append)


def said(events: list[dict[str, Any]]) -> dict[str, str]:
    """Of each kind the text; each kind once."""
    kinds = ("precision", "hardware", "compile")
    pairs = [(event["event"], event["text"]) for event in events if event["event"] in kinds]
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


# Precision

@pytest.mark.parametrize(("amx", "avx", "onednn", "name"), [
    (True, True, True, "AMX-BF16"), (False, True, True, "AVX512-BF16"),
    (False, False, True, ""), (True, True, False, ""),
])
def test_instructions__are_those_torch_names(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx: bool, onednn: bool, name: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    assert hardware.bfloat16_instructions() == name


@pytest.mark.parametrize(("device", "has", "model", "becomes"), [
    (CPU, "AMX-BF16", DENSE, "bf16-mixed"), (CPU, "AVX512-BF16", DENSE, "bf16-mixed"),
    (CPU, "", DENSE, "32-true"), (CPU, "AVX512-BF16", DEPTHWISE, "32-true"),
    (CPU, "AVX512-BF16", GROUPED, "bf16-mixed"), (CPU, "AVX512-BF16", CONVNEXT, "bf16-mixed"),
    (MPS, "AVX512-BF16", DENSE, "32-true"),
    (CUDA, "bf16", DEPTHWISE, "bf16-mixed"), (CUDA, "", DENSE, "32-true"),
])
def test_auto__becomes(monkeypatch: pytest.MonkeyPatch, device: torch.device, has: str,
                       model: nn.Module, becomes: str) -> None:
    monkeypatch.setattr(hardware, "bfloat16_instructions", lambda: has)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bool(has))
    name, why = hardware.auto_precision(device, model)
    assert name == becomes
    assert why


@pytest.mark.parametrize(("has", "becomes"), [("AMX-BF16", "bf16-mixed"), ("", "32-true")])
def test_run__in_auto_is_the_run_in_what_it_became_and_says_so(
    monkeypatch: pytest.MonkeyPatch, make_run: Callable[..., Run], has: str, becomes: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(hardware, "bfloat16_instructions", lambda: has)
    metrics, weights, manifests = [], [], []
    for folder, precision in (("auto", "auto"), ("named", becomes)):
        events: list[dict[str, Any]] = []
        run = make_run("text_classification", folder, max_epochs=1, precision=precision)
        metrics.append(execute(run, events.append))
        assert run.settings.precision == said(events)["precision"] == becomes
        assert ("hardware" in said(events)) == (precision == "auto")
        weights.append(load_file(run.directory / "checkpoint" / WEIGHTS))
        manifests.append(json.loads((run.directory / "checkpoint" / MANIFEST).read_text()))
    assert manifests[0]["became"] == {"precision": becomes}
    assert "became" not in manifests[1]
    assert metrics[0]["test/loss"] == metrics[1]["test/loss"]
    for name, tensor in weights[0].items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, weights[1][name])


# Layout

@pytest.mark.parametrize("technique", ["FullFineTuning", "LoRA"])
def test_channels_last__gives_what_a_plain_run_gives(
    make_run: Callable[..., Run], technique: str
) -> None:
    found = []
    for folder, plain in (("plain", True), ("ours", False)):
        events: list[dict[str, Any]] = []
        run = make_run("image_classification", folder, technique, plain, max_epochs=2,
                       precision="64-true", accelerator="cpu")
        metrics = execute(run, events.append)
        found.append((metrics, load_file(run.directory / "checkpoint" / WEIGHTS)))
        assert ("hardware" in said(events)) == (not plain)
        strided = [layer.weight.is_contiguous(memory_format=torch.channels_last)
                   for layer in run.technique.model.modules()
                   if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)]
        assert strided and set(strided) == {not plain}
    (plain_metrics, plain_weights), (metrics, weights) = found
    assert metrics["test/loss"] == pytest.approx(plain_metrics["test/loss"], abs=1e-9)
    assert weights.keys() == plain_weights.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, plain_weights[name], rtol=0, atol=1e-9)


def test_channels_last__gradients_lie_as_their_weights(make_run: Callable[..., Run]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))
    assert hardware.lay_out(make_run("image_classification", "run", accelerator="cpu"), model)
    model(torch.rand(2, 3, 9, 9)).sum().backward()
    for layer in model:
        assert layer.weight.grad.stride() == layer.weight.stride()


def test_channels_last__is_for_networks_of_convolutions(make_run: Callable[..., Run]) -> None:
    events: list[dict[str, Any]] = []
    run = make_run("image_classification_clip", "patches")
    load(run, events.append)
    adapt(run, events.append)
    assert said(events) == {"precision": "32-true"}


# Images that reside on the device, for which the CPU stands

@pytest.mark.parametrize(("world", "precision"), [
    ("image_classification", "bf16-mixed"), ("regression", "32-true"),
    ("object_detection", "64-true"),
])
def test_images__on_the_device_give_what_those_in_memory_give(
    monkeypatch: pytest.MonkeyPatch, make_run: Callable[..., Run], world: str, precision: str
) -> None:
    found, moved = [], []
    gather = ImageCache.gather

    def counted(self: ImageCache, index: torch.Tensor, device: torch.device) -> torch.Tensor:
        moved.append(len(index))
        return gather(self, index, device)

    monkeypatch.setattr(ImageCache, "gather", counted)
    for folder, room in (("memory", 0), ("device", 2**30)):
        monkeypatch.setattr(device_images, "room_for_images", lambda device, room=room: room)
        events: list[dict[str, Any]] = []
        run = make_run(world, folder, max_epochs=2, precision=precision, accelerator="cpu")
        metrics = execute(run, events.append)
        weights = load_file(run.directory / "checkpoint" / WEIGHTS)
        found.append(({n: v for n, v in metrics.items() if not n.startswith("cost/")}, weights))
        assert bool(moved) == bool(room)
        assert any("images reside on the device" in event["text"] for event in events
                   if event["event"] == "hardware") == bool(room)
    assert found[0][0] == found[1][0]
    assert found[0][1].keys() == found[1][1].keys()
    for name, tensor in found[0][1].items():
        assert torch.equal(tensor, found[1][1][name])


@pytest.mark.parametrize(("room", "plain", "says"), [
    (2**30, False, "images reside on the device (0.3 MB)"),
    (1000, False, "images stay in memory: 0 MB are more than 0, a sixteenth of the GPU"),
    (0, False, ""), (2**30, True, ""),
])
def test_images__reside_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, make_run: Callable[..., Run], room: int, plain: bool, says: str
) -> None:
    monkeypatch.setattr(device_images, "room_for_images", lambda device: room)
    run = make_run("image_classification", "run", plain=plain)
    load(run, lambda event: None)
    events: list[dict[str, Any]] = []
    plan = decide(device_images.DeviceImages(), fitting(run, events))
    taken = plan.bytes if plan else 0
    assert said(events) == ({"hardware": says} if says else {})
    resident = [each for each in run.data.kept_images() if each.residence is not None]
    assert taken == sum(each.bytes for each in resident)
    assert bool(taken) == says.startswith("images reside")


# CUDA

@pytest.fixture
def rounding() -> Iterator[None]:
    """Torch's global choices, put back afterwards."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.usefixtures("rounding")
@pytest.mark.parametrize("tf32", [True, False])
def test_load__on_a_gpu_chooses_tf32_and_pins_batches(
    monkeypatch: pytest.MonkeyPatch, make_run: Callable[..., Run], tf32: bool
) -> None:
    torch.backends.cudnn.allow_tf32 = not tf32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(costs, "MemoryMeter", lambda device: device)
    run = make_run("text_classification", "run", tf32=tf32)
    assert load(run, lambda event: None) == CUDA
    assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    assert torch.backends.cudnn.allow_tf32 == tf32
    assert run.data.val_dataloader().pin_memory


def test_load__on_a_cpu_leaves_both(make_run: Callable[..., Run]) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    run = make_run("text_classification", "run", accelerator="cpu", tf32=True)
    load(run, lambda event: None)
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
    assert not run.data.val_dataloader().pin_memory


@pytest.mark.parametrize(("device", "repaid", "technique", "plain", "reason"), [
    (CUDA, 1, "FullFineTuning", False, ""), (CPU, 1, "FullFineTuning", False, "only on a GPU"),
    (CUDA, 10**6, "FullFineTuning", False, "do not repay"),
    (CUDA, 1, "FullFineTuning", True, "--plain"),
    (CUDA, 1, "GradualUnfreezing", False, "compiled again"),
])
def test_compile__only_where_it_is_repaid(
    monkeypatch: pytest.MonkeyPatch, make_run: Callable[..., Run], device: torch.device,
    repaid: int, technique: str, plain: bool, reason: str,
) -> None:
    events: list[dict[str, Any]] = []
    run = make_run("text_classification", "run", technique, plain, compile="auto")
    load(run, events.append)
    model, _ = adapt(run, lambda event: None)
    monkeypatch.setattr(hardware, "device_of", lambda settings: device)
    monkeypatch.setattr(compiled_blocks, "REPAID", repaid)
    plan = decide(compiled_blocks.CompiledBlocks(), fitting(run, events))
    with plan.training() if plan else nullcontext():
        compiled = [m for m in model.modules() if m._compiled_call_impl is not None]
        assert bool(compiled) == (not reason)
    assert reason in said(events)["compile"]
    assert all(module._compiled_call_impl is None for module in model.modules())


# the compiler looks at `.grad` of tensors that have none
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_blocks__keep_names_outputs_and_gradients(make_run: Callable[..., Run]) -> None:
    run = make_run("text_classification", "run", "PartialFineTuning")
    load(run, lambda event: None)
    model, _ = adapt(run, lambda event: None)
    model.eval()
    batch = next(iter(run.data.val_dataloader()))
    names, plain = list(model.state_dict()), model(batch)
    plain.sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    frozen = [m for m in model.modules() if not any(p.requires_grad for p in m.parameters())]
    modules = compiled_blocks.blocks_that_train(model)
    assert modules and not set(modules) & set(frozen)
    with compiled_blocks.compiled(modules, backend="eager"):
        assert list(model.state_dict()) == names
        ours = model(batch)
        ours.sum().backward()
    torch.testing.assert_close(ours, plain)
    for name, gradient in gradients.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient)
