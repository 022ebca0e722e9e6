"""The cache of frozen prefixes: exact, shared, built once, checked, bounded."""

import multiprocessing
import os
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from matrix import TECHNIQUES, WORLDS, World, in_turn, make_world, refusal
from safetensors.torch import load_file
from torch import Tensor

from ftlab.backbones.digest import Damaged
from ftlab.backbones.prefix_replay import FrozenPrefix
from ftlab.backbones.quantization import Quantization
from ftlab.data.image_augment import ImageAugment
from ftlab.data.image_dataset import ImageDataset
from ftlab.data.text_augment import TextAugment
from ftlab.training.checkpoint import WEIGHTS
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.shortcuts.prefix_cache import activation_files, prefix_source
from ftlab.training.shortcuts.prefix_cache.activation_files import Activations, obtain
from ftlab.training.shortcuts.prefix_cache.cache_estimate import Forecast
from ftlab.training.trainer_settings import TrainerSettings
from ftlab.training.trial import search

UNRENDERED = True


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FTLAB_CACHE_BYTES", raising=False)
    return tmp_path / "cache" / "prefix"


@pytest.fixture(autouse=True)
def cheap_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny networks compute about as fast as a file is read: make the planner's answer certain."""
    monkeypatch.setattr(prefix_source, "foresee", foresaw(saved=1.0))


def foresaw(saved: float, size: int = 1000) -> Callable[..., Forecast]:
    return lambda *_: Forecast(1, 2.0, 1.0, 1.0 - saved, size)


# A run with the cache against one without

LATE = {"probe": ("LinearProbe", {"lr": 3e-2, "solver": None}), "last1": ("PartialFineTuning", {"last": 1, "lr": 1e-2})}
FRAMES = "wav2vec2.feature_extractor does not give the same shape"
UNCACHED = {  # world and technique -> why
    ("audio_classification", "probe"): "wav2vec2 does not give the same shape",
    ("audio_classification", "last1"): FRAMES,
    ("speech_recognition_ctc", "last1"): FRAMES,
    **{(world, name): "augmentation changes the examples" for name in LATE
       for world in ("masked_images", "masked_lm")},
    ("seq2seq", "last1"): "hands on something that is no row an example",  # position biases
}


def run_in(world: World, technique: str, directory: Path, plain: bool) -> Run:
    """In float64, where a sum's order is of no account: Adam makes steps of float32's rounding."""
    backbone, data = world()
    if data.task.output_type != "masked":  # whose masks are ever new
        data.augment = None
    name, arguments = LATE[technique]
    record = {"backbone": {"source": repr(vars(backbone))}, "data": {"init_args": {}}}
    directory.mkdir()
    trainer = TrainerSettings(max_epochs=2, gradient_clip=None, precision="64-true")
    return Run(backbone, data, TECHNIQUES[name](**arguments), trainer, 7, "val/loss", directory,
               record, plain)


@pytest.mark.parametrize(("name", "technique"), in_turn(WORLDS, LATE))
def test_run__gives_what_a_plain_one_gives(
    name: str, technique: str, tmp_path: Path, cache: Path, request: pytest.FixtureRequest
) -> None:
    world = make_world(name, request.getfixturevalue)
    if refusal(LATE[technique][0], world):
        return  # the contract tests hold that it says why
    found, notes = [], []
    for folder, plain in (("plain", True), ("built", False), ("read", False)):
        events: list[dict[str, Any]] = []
        found.append(execute(run_in(world, technique, tmp_path / folder, plain), events.append))
        notes.append(note_of(events))
    if (name, technique) in UNCACHED:
        assert all(UNCACHED[name, technique] in note for note in notes[1:]), notes
        return
    assert "was computed" in notes[1] and "was read" in notes[2], notes
    assert len(list(cache.glob("*.safetensors"))) == 3
    for metrics in found[1:]:
        for metric, value in found[0].items():
            if not metric.startswith("cost/") or "flops" in metric:
                assert metrics[metric] == pytest.approx(value, rel=1e-6, abs=1e-7), metric
    plain, *cached = (load_file(tmp_path / folder / "checkpoint" / WEIGHTS)
                      for folder in ("plain", "built", "read"))
    for weights in cached:
        assert weights.keys() == plain.keys()
        for tensor in weights:
            torch.testing.assert_close(weights[tensor], plain[tensor], rtol=0, atol=1e-7)


@pytest.fixture
def texts(request: pytest.FixtureRequest) -> World:
    return make_world("text_classification", request.getfixturevalue)


def note_of(events: list[dict[str, Any]]) -> str:
    (note,) = (event["text"] for event in events
               if event["event"] == "shortcut" and "prefix" in event["text"])
    return note


def test_cache__is_shared_by_seeds_rates_and_trials(
    texts: World, tmp_path: Path, cache: Path
) -> None:
    execute(run_in(texts, "last1", tmp_path / "one", plain=False), lambda event: None)
    files = set(cache.glob("*.safetensors"))
    assert len(files) == 3
    other = run_in(texts, "last1", tmp_path / "two", plain=False)
    other.seed, other.technique = 8, TECHNIQUES["PartialFineTuning"](last=1, lr=1e-3)
    events: list[dict[str, Any]] = []
    search(other, events.append)
    assert "was read" in note_of(events)
    assert set(cache.glob("*.safetensors")) == files


def test_quantised_base__is_cached__and_each_quantisation_by_itself(
    texts: World, tmp_path: Path, cache: Path
) -> None:
    pytest.importorskip("bitsandbytes", reason="quantised bases are bitsandbytes'")

    def run(folder: str, double_quant: bool, plain: bool = False) -> tuple[dict[str, float], str]:
        made = run_in(texts, "probe", tmp_path / folder, plain)
        made.technique = TECHNIQUES["LoRA"](last=1, lr=1e-2)
        made.backbone.quantize = Quantization("nf4", double_quant)
        made.record["backbone"] = {"source": repr(vars(made.backbone))}
        made.settings = TrainerSettings(max_epochs=2, gradient_clip=None)
        events: list[dict[str, Any]] = []
        return execute(made, events.append), note_of(events)

    plain, _ = run("plain", False, plain=True)
    built, note = run("built", False)
    assert "was computed" in note and "was read" in run("read", False)[1]
    assert "was computed" in run("other", True)[1] and len(list(cache.glob("*.safetensors"))) == 6
    for metric, value in plain.items():
        if not metric.startswith("cost/"):
            assert built[metric] == pytest.approx(value, rel=1e-4, abs=1e-5), metric


def test_rows__travel_between_processes_as_their_path(tmp_path: Path) -> None:
    index = torch.arange(4)
    whole, _ = obtain("key", 4, lambda: iter([(index, [None], [index])]), lambda: None)
    sent = pickle.dumps(whole)
    assert len(sent) < 1000
    assert pickle.loads(sent) is whole, "and are not checked twice"
    del whole
    assert torch.equal(pickle.loads(sent).rows(index, [None])[0], index)


def change(run: Run, what: str) -> None:
    if what == "precision":
        run.settings = TrainerSettings(max_epochs=2, gradient_clip=None)
    if what == "data":
        run.record["data"]["init_args"] = {"max_length": 12}
    if what == "backbone":
        run.record["backbone"] = {"pooling": "first"}
    if what == "boundary":
        run.technique = TECHNIQUES["PartialFineTuning"](last=2, lr=1e-3)
    if what == "weights":
        build = run.backbone.build

        def changed(*arguments: Any, **named: Any) -> Any:
            model = build(*arguments, **named)
            torch.nn.init.zeros_(next(model.blocks[0].parameters()).data[3])
            return model

        run.backbone.build = changed  # type: ignore[method-assign]


@pytest.mark.parametrize("what", ["precision", "data", "backbone", "boundary", "weights"])
def test_cache__another_prefix_is_another_file(
    texts: World, tmp_path: Path, cache: Path, what: str
) -> None:
    execute(run_in(texts, "last1", tmp_path / "one", plain=False), lambda event: None)
    run = run_in(texts, "last1", tmp_path / "two", plain=False)
    change(run, what)
    events: list[dict[str, Any]] = []
    execute(run, events.append)
    assert "was computed" in note_of(events)
    assert len(list(cache.glob("*.safetensors"))) == 6


def test_cache__says_why_there_is_none(texts: World, tmp_path: Path, cache: Path) -> None:
    augmented = run_in(texts, "last1", tmp_path / "one", plain=False)
    augmented.data.augment = TextAugment(dropout=0.1)  # type: ignore[attr-defined]
    full = run_in(texts, "last1", tmp_path / "two", plain=False)
    full.technique = TECHNIQUES["FullFineTuning"](lr=1e-3)
    lora = run_in(texts, "last1", tmp_path / "three", plain=False)
    lora.technique = TECHNIQUES["LoRA"](rank=2)
    said = []
    for run in (augmented, full, lora):
        events: list[dict[str, Any]] = []
        execute(run, events.append)
        said.append(note_of(events))
    assert "augmentation changes the examples" in said[0]
    assert "views" in said[0]
    assert "the first block trains" in said[1]
    assert "only embeddings are frozen" in said[2]
    assert not cache.exists()


def test_views__are_cached_one_by_one_and_shared_by_seeds(
    texts: World, tmp_path: Path, cache: Path
) -> None:
    found, notes = [], []
    for folder, plain, seed in (("plain", True, 7), ("built", False, 7), ("other", False, 8)):
        run = run_in(texts, "last1", tmp_path / folder, plain)
        run.data.augment = TextAugment(dropout=0.5, views=2)  # type: ignore[attr-defined]
        run.settings = TrainerSettings(max_epochs=3, gradient_clip=None, precision="64-true")
        run.seed = seed
        events: list[dict[str, Any]] = []
        execute(run, events.append)
        found.append(load_file(tmp_path / folder / "checkpoint" / WEIGHTS))
        notes.append(note_of(events))
    assert "was computed (" in notes[1] and "was read (" in notes[2], notes
    assert len(list(cache.glob("*.safetensors"))) == 4  # two views, validation, test
    for tensor in found[0]:
        torch.testing.assert_close(found[1][tensor], found[0][tensor], rtol=0, atol=1e-7)


def test_views__that_no_epoch_sees_are_not_made(texts: World, tmp_path: Path, cache: Path) -> None:
    run = run_in(texts, "last1", tmp_path / "one", plain=False)
    run.data.augment = TextAugment(dropout=0.5, views=9)  # type: ignore[attr-defined]
    search(run, lambda event: None)
    assert len(list(cache.glob("*.safetensors"))) == 2 + 1  # an epoch's each, validation


def test_images__are_not_decoded_where_nobody_looks_at_them(
    request: pytest.FixtureRequest, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world("image_classification", request.getfixturevalue)
    execute(run_in(world, "last1", tmp_path / "one", plain=False), lambda event: None)
    looked: list[int] = []
    plain = ImageDataset.input

    def input(self: ImageDataset, index: int) -> Tensor:
        looked.append(index)
        return plain(self, index)

    monkeypatch.setattr(ImageDataset, "input", input)
    run = run_in(world, "last1", tmp_path / "two", plain=False)
    search(run, lambda event: None)
    assert set(looked) <= set(range(8)), "the samples by which the network is tried out"
    assert len(run.data.splits["train"]) > 16


def test_mixtures__are_not_cached(
    request: pytest.FixtureRequest, tmp_path: Path, cache: Path
) -> None:
    run = run_in(make_world("image_classification", request.getfixturevalue), "probe",
                 tmp_path / "one", plain=False)
    run.data.augment = ImageAugment(mix="mixup", views=2)  # type: ignore[attr-defined]
    assert "mixtures" in prefix_source.why_not(run)


def test_loaders_in_processes__bring_names_and_the_run_reads(
    texts: World, tmp_path: Path, cache: Path
) -> None:
    one = execute(run_in(texts, "last1", tmp_path / "one", plain=False), lambda event: None)
    other = run_in(texts, "last1", tmp_path / "two", plain=False)
    other.data.workers = 1
    assert execute(other, lambda event: None)["test/loss"] == pytest.approx(one["test/loss"])


@pytest.mark.parametrize(("forecast", "why"), [
    (foresaw(saved=-1.0), "it would not pay: 2 s without and 3 s with it, in this run"),
    (foresaw(saved=1.0, size=10**15), "it would take 1,000,000,000 MB, and there is room for"),
])
def test_planner__declines_and_says_why(
    texts: World, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch,
    forecast: Callable[..., Forecast], why: str,
) -> None:
    monkeypatch.setattr(prefix_source, "foresee", forecast)
    events: list[dict[str, Any]] = []
    execute(run_in(texts, "last1", tmp_path / "one", plain=False), events.append)
    assert why in note_of(events)
    assert not cache.exists()


def test_run__goes_on_where_its_network_cannot_be_tried_out(
    texts: World, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def narrow(self: FrozenPrefix, batch: Any, examples: int, fewer: int) -> Any:
        raise IndexError("this network takes 32 examples at a time")

    monkeypatch.setattr(FrozenPrefix, "_shaped", narrow)
    events: list[dict[str, Any]] = []
    metrics = execute(run_in(texts, "last1", tmp_path / "one", plain=False), events.append)
    assert "cannot be tried out (IndexError: this network takes 32 examples" in note_of(events)
    assert metrics["test/loss"] > 0


def test_run__goes_on_without_a_cache_that_cannot_be_written(
    texts: World, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(activation_files, "_assemble", full)
    events: list[dict[str, Any]] = []
    metrics = execute(run_in(texts, "last1", tmp_path / "one", plain=False), events.append)
    assert "No space left on device" in note_of(events)
    assert metrics["test/loss"] > 0
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


# The files

def recorded(count: int) -> Iterator[tuple[Tensor, list[Tensor | None], list[Tensor]]]:
    """Batches of 4: a dense float16 tensor and a ragged float32 one, in another order."""
    for index in torch.randperm(count, generator=torch.Generator().manual_seed(0)).split(4):
        mask = torch.arange(6) < 1 + index[:, None] % 6
        yield index, [None, mask], [index[:, None].half().expand(-1, 3),
                                    index[:, None, None] * torch.ones(len(index), 6, 2)]


def ours(key: str = "key") -> tuple[Activations, bool]:
    return obtain(key, 10, lambda: recorded(10), lambda: None)


def test_rows__come_back_in_any_order_with_zeros_for_padding() -> None:
    found, made = ours()
    assert made
    index = torch.tensor([9, 0, 5, 5])
    mask = torch.arange(8).flip(0) < 1 + index[:, None] % 6  # another width, padded on the left
    dense, ragged = found.rows(index, [None, mask])
    assert dense.dtype == torch.float16 and ragged.dtype == torch.float32
    assert torch.equal(dense, index[:, None].half().expand(-1, 3))
    assert torch.equal(ragged, (index[:, None] * mask)[:, :, None].expand(-1, -1, 2).float())
    assert load_file(found.path)["values1"].shape == (sum(1 + i % 6 for i in range(10)), 2)
    with pytest.raises(Damaged, match="another length"):
        found.rows(index, [None, ~mask])
    assert not ours()[1]


@pytest.mark.parametrize("where", [10, -1, -400])
def test_file__is_made_again_where_it_is_damaged(where: int) -> None:
    found, _ = ours()
    content = bytearray(found.path.read_bytes())
    content[where] ^= 1
    found.path.write_bytes(content)
    with pytest.raises(Damaged):
        Activations(found.path).open()
    again, made = ours()
    assert made
    assert torch.equal(again.rows(torch.arange(10), [None])[0][:, 0], torch.arange(10.0).half())
    found.path.write_bytes(found.path.read_bytes()[:-50])  # cut
    assert ours()[1]


def test_file__is_made_once_however_many_want_it(cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    made = context.Queue()

    def slow() -> Iterator[Any]:
        time.sleep(1)
        yield from recorded(10)

    def want() -> None:
        waited: list[int] = []
        _, here = obtain("key", 10, slow, lambda: waited.append(1))
        made.put((here, bool(waited)))

    processes = [context.Process(target=want) for _ in range(4)]
    for process in processes:
        process.start()
    said = sorted(made.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert said == [(False, True)] * 3 + [(True, False)]
    assert sorted(path.suffix for path in cache.iterdir()) == [".lock", ".safetensors"]


def test_file__of_a_killed_process_is_made_by_the_next(cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    begun = context.Event()

    def hangs() -> Iterator[Any]:
        yield next(recorded(10))
        begun.set()
        time.sleep(60)

    process = context.Process(target=lambda: obtain("key", 10, hangs, lambda: None))
    process.start()
    assert begun.wait(60)
    process.kill()
    process.join()
    assert ours()[1]
    assert sorted(path.suffix for path in cache.iterdir()) == [".lock", ".safetensors"]


def test_cache__drops_what_was_read_longest_ago(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = ours("first")[0], ours("second")[0]
    old = time.time() - 1000
    os.utime(first.path, (old, old))
    os.utime(second.path, (old - 1000, old - 1000))
    ours("second")  # read again: now the first is older
    monkeypatch.setenv("FTLAB_CACHE_BYTES", str(2 * first.bytes + 10))
    ours("third")
    assert sorted(path.stem for path in cache.glob("*.safetensors")) == ["second", "third"]
    assert first.rows(torch.arange(2), [None])[0].shape == (2, 3)  # who has it open keeps it
