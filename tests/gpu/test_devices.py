"""Whatever runs differently on a GPU, held to a plain run on the CPU: `pytest -m gpu` is the check of a GPU.

Each check runs on the CPU too, among the slow tests (`pytest -m slow tests/gpu`), so that its own code
is known to work; what a device has not is skipped there with the reason.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from lightning.pytorch.strategies import DDPStrategy
from matrix import make_world

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.quantization import Quantization
from ftlab.data.causal_lm import CausalLM
from ftlab.errors import InputError
from ftlab.techniques.base import Technique
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.techniques.lora import LoRA
from ftlab.techniques.partial_fine_tuning import PartialFineTuning
from ftlab.training import costs
from ftlab.training.execute import execute
from ftlab.training.memory_forecast import forecast, measure
from ftlab.training.run import Run
from ftlab.training.shared_fit import execute_together
from ftlab.training.shortcuts import compiled_blocks, device_images
from ftlab.training.shortcuts.prefix_cache import prefix_source
from ftlab.training.shortcuts.prefix_cache.cache_estimate import Forecast
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
Make = Callable[..., Run]
ACCELERATORS = {"cpu": "cpu", "cuda": "gpu"}


@pytest.fixture(params=[pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Where a check runs."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU that torch can use")
    return str(request.param)


@pytest.fixture(autouse=True)
def caches_pay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny networks are cached whatever it takes."""
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prefix_source, "foresee", lambda *_: Forecast(1, 2.0, 1.0, 0.0, 1000))


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """A run of a world on a device; without dropout, whose random numbers differ between devices."""
    def run(technique: Technique, device: str, world: str = "text_classification", plain: bool = False,
            quantized: tuple[str, ...] = (), **settings: Any) -> Run:
        backbone, data = make_world(world, request.getfixturevalue)()
        folder = tmp_path / f"run{len([*tmp_path.iterdir()])}"
        folder.mkdir()
        chosen = TrainerSettings(**{"max_epochs": 2, "accelerator": ACCELERATORS[device], **settings})
        record = {"backbone": {"source": repr(vars(backbone))}, "data": {"init_args": {}}}
        return Run(backbone, data, technique, chosen, 7, "val/loss", folder, record, plain, quantized=quantized)

    return run


def said(run: Run) -> tuple[dict[str, float], list[str]]:
    """The metrics of a run, and the texts of its events."""
    events: list[Mapping[str, Any]] = []
    metrics = execute(run, events.append)
    return metrics, [str(event["text"]) for event in events if "text" in event]


def same(one: Mapping[str, float], other: Mapping[str, float], tolerance: float = 2e-3) -> None:
    """Hold the losses of two runs to each other."""
    for name in ("val/loss", "test/loss"):
        assert one[name] == pytest.approx(other[name], rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize("technique", [FullFineTuning, LoRA, LinearProbe], ids=lambda kind: kind.__name__)
def test_fit__gives_what_a_plain_run_on_the_cpu_gives(technique: type[Technique], device: str, make: Make) -> None:
    metrics, _ = said(make(technique(), device))
    same(metrics, said(make(technique(), "cpu", plain=True))[0])
    assert metrics["cost/inference_memory_bytes"] >= 0 and metrics["cost/latency_seconds"] > 0


def test_prefix_cache__changes_nothing(device: str, make: Make) -> None:
    cached, texts = said(make(PartialFineTuning(last=1), device))
    plain, _ = said(make(PartialFineTuning(last=1), device, plain=True))
    same(cached, plain, 1e-4)
    assert any(text.startswith("prefix cache: ") for text in texts), texts


def test_heads__train_as_one_stack(device: str, make: Make) -> None:
    runs = [make(LinearProbe(lr=rate, solver=None), device) for rate in (1e-3, 1e-2)]
    texts: list[str] = []
    results = execute_together(runs, [lambda event: texts.append(str(event.get("text")))] * 2, None)
    assert any("heads by one matrix product" in text for text in texts), texts
    for rate, result in zip((1e-3, 1e-2), results, strict=True):
        assert isinstance(result, dict), result
        same(result, said(make(LinearProbe(lr=rate, solver=None), "cpu", plain=True))[0])


def test_images__reside_on_a_gpu_and_change_nothing(device: str, make: Make) -> None:
    metrics, texts = said(make(FullFineTuning(), device, "image_classification"))
    assert any("reside on the device" in text for text in texts) is (device == "cuda")
    assert (device_images.room_for_images(torch.device(device)) > 0) is (device == "cuda")
    same(metrics, said(make(FullFineTuning(), device, "image_classification", plain=True))[0])


def test_batches__are_pinned_where_they_go_to_a_gpu(device: str, make: Make) -> None:
    run = make(FullFineTuning(), device)
    run.data.load()
    run.data.connect(run.backbone, 0)
    if device == "cpu":
        pytest.skip("a batch that stays on the CPU has no need of pinned memory")
    batch = next(iter(run.data.in_pinned_memory().train_dataloader()))
    assert all(tensor.is_pinned() for tensor in batch["inputs"].values())


def test_packed_sequences__give_what_padded_ones_do(device: str, make: Make) -> None:
    packed = make(FullFineTuning(), device, "causal_lm")
    assert isinstance(packed.data, CausalLM)
    packed.data.packs = True  # as `packing: true` of the constructor
    metrics, _ = said(packed)
    same(metrics, said(make(FullFineTuning(), device, "causal_lm"))[0])


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "16-mixed"])
def test_half_precision__stays_near_single(precision: str, device: str, make: Make) -> None:
    half = make(FullFineTuning(lr=1e-4), device, precision=precision)
    if device == "cpu" and precision == "16-mixed":
        with pytest.raises(InputError, match="needs a GPU"):
            said(half)
        return
    metrics, _ = said(half)  # the guards hold its gradients, scaled or not, to be there and finite
    same(metrics, said(make(FullFineTuning(lr=1e-4), "cpu", plain=True))[0], 5e-2)


def test_compiled_blocks__give_what_they_give_without(device: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_blocks, "REPAID", 1)
    metrics, texts = said(make(FullFineTuning(), device, compile="auto"))
    why = "modules are compiled" if device == "cuda" else "only on a GPU is it repaid"
    assert any(why in text for text in texts)
    same(metrics, said(make(FullFineTuning(), device, plain=True))[0])


@pytest.mark.filterwarnings("ignore:It is recommended to use `self.log")  # one rank has all to log
def test_ddp__with_one_rank_gives_what_one_process_gives(
    device: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = "nccl" if device == "cuda" else "gloo"
    if not getattr(torch.distributed, f"is_{backend}_available")():
        pytest.skip(f"torch was built without {backend}")
    monkeypatch.setattr("ftlab.training.make_trainer._strategy",
                        lambda run: DDPStrategy(process_group_backend=backend))
    begun: list[str] = []
    begin = torch.distributed.init_process_group
    monkeypatch.setattr(torch.distributed, "init_process_group",
                        lambda given, *rest, **more: (begun.append(given), begin(given, *rest, **more)))
    metrics, _ = said(make(FullFineTuning(), device))
    monkeypatch.undo()
    assert begun == [backend]
    same(metrics, said(make(FullFineTuning(), device))[0])


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_quantised_model__gives_what_it_gives_on_the_cpu(name: str, device: str, make: Make) -> None:
    pytest.importorskip("torchao", reason="integers are torchao's")
    there = said(make(LoRA(), device, quantized=(name,)))[0]
    here = said(make(LoRA(), "cpu", plain=True, quantized=(name,)))[0]
    assert there[f"test.{name}/loss"] == pytest.approx(here[f"test.{name}/loss"], rel=1e-2)
    assert there[f"cost/disk_{name}_bytes"] == here[f"cost/disk_{name}_bytes"]


def test_quantised_base__trains_as_on_the_cpu(device: str, make: Make) -> None:
    pytest.importorskip("bitsandbytes", reason="quantised bases are bitsandbytes'")

    def losses(where: str) -> dict[str, float]:
        run = make(LoRA(), where, plain=where == "cpu")
        assert isinstance(run.backbone, HuggingFace)
        run.backbone.quantize = Quantization("nf4", double_quant=True, embeddings="int8")
        return said(run)[0]

    same(losses(device), losses("cpu"), 1e-2)


def test_memory_forecast__is_what_the_allocator_says(
    device: str, make: Make, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Of a network whose tensors are many times what libraries take beside."""
    folder = shutil.copytree(request.getfixturevalue("tiny_bert"), tmp_path / "larger")
    config = hf.BertConfig.from_pretrained(folder)
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = 512, 2048, 6
    hf.BertModel(config).save_pretrained(folder)

    def fresh() -> Run:
        run = make(FullFineTuning(), device)
        run.backbone = HuggingFace(str(folder), pooling="mean", dropout=0.0)
        run.data.load()
        run.data.connect(run.backbone, 0)
        return run

    measure(fresh())  # CUDA's libraries take their workspaces
    gc.collect()
    before = torch.cuda.memory_allocated() if device == "cuda" else 0
    share = forecast(fresh()).peak / (measure(fresh()) - before)
    assert 0.9 < share < 1.1 if device == "cuda" else 0.55 < share < 1.1, share  # a CPU's heap keeps what was freed


def test_energy__is_the_devices_own(device: str, make: Make) -> None:
    metrics, _ = said(make(FullFineTuning(), device))
    if costs.joules(torch.device(device)) is None:
        assert "cost/energy_joules" not in metrics
        pytest.skip("the device reports no energy, or nvidia-ml-py is not installed")
    assert 0 <= metrics["cost/energy_joules"] < 1000 * max(1.0, metrics["cost/train_seconds"])  # watts


def test_out_of_memory__fails_one_run_and_leaves_the_next_whole(device: str, make: Make) -> None:
    if device == "cpu":
        pytest.skip("Linux ends a process that takes too much of a CPU's memory; there is nothing to recover")
    free = make(FullFineTuning(), device)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    hold = torch.empty(1, device=device)
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**20) / total)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            said(make(FullFineTuning(), device, "image_classification"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        del hold
        gc.collect()
        torch.cuda.empty_cache()
    assert said(free)[0]["test/loss"] > 0


def test_memory__is_the_devices_own(device: str) -> None:
    meter = costs.MemoryMeter(torch.device(device))
    meter.start()
    held = torch.ones(2**26, device=device)  # 256 MiB
    assert meter.peak() >= 0.9 * held.numel() * 4
    del held
    meter.start()
    assert meter.peak() < 2**26
