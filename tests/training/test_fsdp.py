"""DDP gives the same numbers as one device, and FSDP the same as DDP, with the same guards."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import InputError
from ftlab.studies.engine import SPECIFICATION, Event, MachineShare
from ftlab.studies.local_engine import LocalEngine
from ftlab.techniques.lora import LoRA
from ftlab.training import checkpoint, fsdp
from ftlab.training.trainer_settings import TrainerSettings

Component = dict[str, Any]


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        made = LocalEngine([MachineShare(2)], 60.0)
    yield made
    made.close()


def component(path: str, **arguments: object) -> Component:
    return {"class_path": f"ftlab.{path}", "init_args": arguments}


def run(engine: LocalEngine, folder: Path, said: dict[str, Any]) -> list[Event]:
    folder.mkdir()
    (folder / SPECIFICATION).write_text(json.dumps(said))
    engine.start(folder)
    events: list[Event] = []
    while not events or events[-1]["event"] != "exit":
        events += [event for _, event in engine.events(0.2)]
    return events


def specification(backbone: Component, data: Component, technique: Component,
                  **trainer: object) -> dict[str, Any]:
    settings = {"max_epochs": 2, "devices": 2, "accelerator": "cpu", **trainer}
    return {"backbone": backbone, "data": data, "technique": technique, "trainer": settings,
            "seed": 0, "select_by": "val/loss"}


@pytest.fixture
def texts(tiny_bert: Path, reviews: Path) -> tuple[Component, Component]:
    """120 reviews: 12 of validation, so that the ranks have 6 each, in batches of 4: 2 and 2."""
    return (component("backbones.huggingface.HuggingFace", source=str(tiny_bert), pooling="mean",
                      dropout=0.0, head_dropout=0.0),
            component("data.text.TextClassification", train=str(reviews), max_length=20,
                      batch_size=8))


@pytest.mark.parametrize(("name", "dtype"), [
    ("full_fine_tuning.FullFineTuning", "float32"), ("lora.LoRA", "float32"), ("lora.LoRA", "bfloat16")])
def test_fsdp__gives_what_ddp_gives(
    engine: LocalEngine, texts: tuple[Component, Component], tmp_path: Path, name: str, dtype: str
) -> None:
    found = {}
    texts[0]["init_args"]["dtype"] = dtype  # adapters and head are float32 on either
    coarse = 1e-2 if dtype == "bfloat16" else 0.0
    for strategy in ("ddp", "fsdp"):
        technique = component(f"techniques.{name}", lr=1e-3)
        events = run(engine, tmp_path / strategy,
                     specification(*texts, technique, strategy=strategy))
        assert events[-2]["event"] == "done", (events, (tmp_path / strategy / "output.log").read_text())
        found[strategy] = events[-2]["metrics"]
        assert not [e for e in events if e["event"] == "note" and "loads all weights" in e["text"]]
    ddp, fsdp = found["ddp"], found["fsdp"]
    assert ddp.keys() == fsdp.keys()
    for metric in ddp:
        if not metric.startswith("cost/"):
            assert fsdp[metric] == pytest.approx(ddp[metric], rel=max(1e-4, coarse), abs=1e-5), metric
    for metric in ("cost/trainable_parameters", "cost/total_parameters", "cost/inference_flops"):
        assert fsdp[metric] == ddp[metric]
    weights = [tmp_path / strategy / "checkpoint" / checkpoint.WEIGHTS for strategy in found]
    from safetensors.torch import load_file

    one, other = (load_file(path) for path in weights)
    assert one.keys() == other.keys()
    for tensor in one:
        assert one[tensor].dtype == torch.float32
        torch.testing.assert_close(one[tensor], other[tensor], rtol=max(1e-3, coarse), atol=max(1e-5, coarse / 10))


def translations(request: pytest.FixtureRequest, batch_size: int, **subset: object) -> list[Component]:
    """A tiny T5 and pairs of texts with targets of unequal lengths."""
    from matrix import make_world

    backbone, data = make_world("seq2seq", request.getfixturevalue)()
    task = component("tasks.sequence_to_sequence.SequenceToSequence", max_new_tokens=4)
    return [component("backbones.huggingface.HuggingFace", source=backbone.source, dropout=0.0),
            component("data.seq2seq.Seq2Seq", train=data.sources["train"], max_source_length=12,
                      max_target_length=8, batch_size=batch_size, subset=subset, task=task)]


@pytest.mark.parametrize("mean_over", ["examples", "tokens", "weighted classes"])
def test_ddp__gives_what_one_device_gives(
    engine: LocalEngine, texts: tuple[Component, Component], tmp_path: Path,
    request: pytest.FixtureRequest, reviews: Path, mean_over: str,
) -> None:  # fmt: skip
    """Also where the parts of an update count unequally: ranks' shares, and accumulated batches."""
    backbone, data = texts
    if mean_over == "tokens":
        backbone, data = translations(request, 4, limit=16, splits=["train", "validation"])
    if mean_over == "weighted classes":
        weighted = component("tasks.losses.weighted_cross_entropy.WeightedCrossEntropy", power=2.0)
        task = component("tasks.classification.Classification", loss=weighted)
        header, *rows = reviews.read_text().splitlines()
        unequal = tmp_path / "unequal.csv"
        kept = [row for i, row in enumerate(rows) if row.endswith("good") or i % 6 == 0]
        unequal.write_text("\n".join([header, *kept]))
        data = {**data, "init_args": {**data["init_args"], "train": str(unequal), "task": task}}
    found, losses = [], []
    for devices, accumulate in ((1, 1), (2, 2)):
        technique = component("techniques.full_fine_tuning.FullFineTuning", lr=1e-3)
        folder, size = tmp_path / str(devices), data["init_args"]["batch_size"]
        cut = {**data, "init_args": {**data["init_args"], "batch_size": size // accumulate}}
        events = run(engine, folder, specification(
            backbone, cut, technique, devices=devices, accumulate=accumulate, log_every=1))
        assert events[-2]["event"] == "done", (events, (folder / "output.log").read_text())
        found.append({name: value for name, value in events[-2]["metrics"].items()
                      if not name.startswith("cost/")})
        losses.append([value for event in events if event["event"] == "metrics"
                       for name, value in event["metrics"].items()
                       if name in ("train/loss", "train/epoch_loss")])
    assert found[1] == pytest.approx(found[0], rel=1e-4, abs=1e-5)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and len(losses[0]) > 2


def test_fsdp__generates_with_ranks_of_unequal_length(
    engine: LocalEngine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    found = {}
    for strategy in ("ddp", "fsdp"):
        said = specification(
            *translations(request, 2, limit=5, splits=["validation"]),
            component("techniques.full_fine_tuning.FullFineTuning", lr=1e-3),
            strategy=strategy, max_epochs=1)
        events = run(engine, tmp_path / strategy, said)
        assert events[-2]["event"] == "done", (events, (tmp_path / strategy / "output.log").read_text())
        found[strategy] = events[-2]["metrics"]
    for metric in found["ddp"]:
        if not metric.startswith("cost/"):
            assert found["fsdp"][metric] == pytest.approx(found["ddp"][metric], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("technique", "why"), [
    (component("techniques.dora.DoRA", lr=1e-3), "DoRA reads them where it adapts the network"),
    pytest.param(component("techniques.pissa.PiSSA", lr=1e-3), "PiSSA starts what it adds from them", marks=pytest.mark.slow),
])
def test_fsdp__loads_whole_what_starts_from_the_weights(
    engine: LocalEngine, texts: tuple[Component, Component], tmp_path: Path, technique: Component, why: str
) -> None:
    events = run(engine, tmp_path / "whole", specification(*texts, technique, strategy="fsdp", max_epochs=1))
    assert events[-2]["event"] == "done", (events, (tmp_path / "whole" / "output.log").read_text())
    notes = [event["text"] for event in events if event["event"] == "note"]
    assert any(note.startswith(f"each rank loads all weights before they are shared out: {why}")
               for note in notes), notes


def model(*layers: nn.Module) -> TaskModel:
    names = [str(number) for number in range(len(layers))]
    return TaskModel(nn.Sequential(*layers), [(name, [name]) for name in names[:-1]], head=names[-1:])


def test_check__refuses_batch_statistics_and_two_dtypes() -> None:
    with pytest.raises(InputError, match="batch normalisation"):
        fsdp.check(model(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)).train(), LoRA())
    fsdp.check(model(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)).eval(), LoRA())
    mixed = model(nn.Linear(2, 2).bfloat16(), nn.Sequential(nn.Linear(2, 2).bfloat16(), nn.Linear(2, 2)),
                  nn.Linear(2, 2))
    with pytest.raises(InputError, match="bfloat16 and float32 train together"):
        fsdp.check(mixed, LoRA())
    mixed.blocks[1].requires_grad_(False)
    fsdp.check(mixed, LoRA())  # each unit trains one dtype, or none


@pytest.mark.parametrize(("settings", "what"), [
    ({"devices": 1}, "needs at least 2 devices"),
    ({"devices": 2, "precision": "16-mixed"}, "does not go with precision 16-mixed"),
])
def test_settings__refuse_what_fsdp_cannot(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        TrainerSettings(strategy="fsdp", **settings)
