"""Stages: fits before the measured one, on the same network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matrix import make_world

from ftlab.backbones import cache_folder
from ftlab.data.image import ImageClassification
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible
from ftlab.techniques.base import Technique
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.techniques.lora import LoRA
from ftlab.techniques.prompt_tuning import PromptTuning
from ftlab.techniques.wise_ft import WiSEFT
from ftlab.training import checkpoint, stages
from ftlab.training.adapt import adapt, load
from ftlab.training.carried import places
from ftlab.training.execute import execute
from ftlab.training.run import Run, Stage
from ftlab.training.trainer_settings import TrainerSettings
from ftlab.training.trial import search

UNRENDERED = True
Make = Callable[..., Run]
SETTINGS = TrainerSettings(max_epochs=2)


def silent(event: Any) -> None:
    """Drops an event."""


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))

    def run(technique: Technique, *before: Stage, world: str = "text_classification",
            folder: str = "run", known: bool = True, plain: bool = False) -> Run:
        backbone, data = make_world(world, request.getfixturevalue)()
        (tmp_path / folder).mkdir()
        record = {"backbone": {"class_path": world, "init_args": {}},
                  "data": {"class_path": world, "init_args": {}},
                  "technique": type(technique).__name__, "trainer": {}} if known else {}
        return Run(backbone, data, technique, SETTINGS, 5, "val/loss", tmp_path / folder,
                   record, plain, before)

    return run


def stage(technique: Technique, data: Any = None, **settings: Any) -> Stage:
    return Stage(technique, SETTINGS, data,
                 record={"technique": type(technique).__name__, "data": None, "trainer": {}},
                 **settings)


def begun(run: Run) -> dict[str, torch.Tensor]:
    """The tensors that a run starts with, by place."""
    stages.learn(run, silent)
    load(run, silent)
    started: dict[str, torch.Tensor] = {}

    def keep(model: Any) -> None:
        state = model.state_dict()
        started.update({place: state[name].clone() for place, name in places(model).items()})

    run.begun = keep
    adapt(run, silent)
    return started


@pytest.mark.parametrize("technique", [LinearProbe, FullFineTuning])
def test_stage__ends_where_the_same_run_ends(make: Make, technique: type) -> None:
    alone = make(technique(lr=1e-2), folder="alone", plain=True)
    execute(alone, silent)
    state = alone.technique.model.state_dict()
    ended = {place: state[name] for place, name in places(alone.technique.model).items()}

    started = begun(make(FullFineTuning(), stage(technique(lr=1e-2), carry="all"), plain=True))
    assert started.keys() == ended.keys()
    assert all(torch.equal(started[place], ended[place]) for place in started)


def test_stage__leaves_its_head_behind_unless_told(make: Make) -> None:
    plain = begun(make(FullFineTuning(), folder="plain"))
    started = begun(make(FullFineTuning(), stage(FullFineTuning(lr=1e-2))))
    moved = {place for place in started if not torch.equal(started[place], plain[place])}
    assert moved
    assert not any(place.startswith("head/") for place in moved)


@pytest.mark.parametrize("world", ["masked_lm", "masked_images"])
def test_masked_head__goes_from_a_probe_to_the_next_fit(make: Make, world: str) -> None:
    """BERT's output layer has a bias of two names, and a mask token lies in a block of ViT."""
    run = make(LoRA(lr=1e-2), stage(LinearProbe(lr=1e-2), carry="all"), world=world)
    execute(run, silent)
    names = {name for name, _ in run.technique.model.head.named_parameters()}
    assert len(run.carried) == len(names)


def test_head__goes_to_the_next_fit_alone(make: Make) -> None:
    plain = begun(make(FullFineTuning(), folder="plain"))
    probe, full = stage(LinearProbe(lr=1e-2), carry="all"), stage(FullFineTuning(lr=1e-2))
    once = begun(make(FullFineTuning(), copy.deepcopy(probe), folder="once"))
    twice = begun(make(FullFineTuning(), copy.deepcopy(probe), full, folder="twice"))
    heads = [place for place in plain if place.startswith("head/")]
    assert any(not torch.equal(once[place], plain[place]) for place in heads)
    assert all(torch.equal(twice[place], plain[place]) for place in heads)


def test_adapters__of_a_stage_are_merged(make: Make) -> None:
    plain = begun(make(FullFineTuning(), folder="plain"))
    started = begun(make(FullFineTuning(), stage(LoRA(lr=3e-2))))
    moved = {place for place in started if not torch.equal(started[place], plain[place])}
    assert moved
    assert all("weight" in place for place in moved)


def test_masked_language__is_a_stage_of_a_classifier(make: Make, reviews: Path) -> None:
    alone = make(FullFineTuning(lr=1e-2), folder="alone", plain=True, world="masked_lm")
    execute(alone, silent)
    state = alone.technique.model.state_dict()
    ended = {place: state[name] for place, name in places(alone.technique.model).items()}

    after = make(LinearProbe(), folder="after", plain=True, world="masked_lm")
    corpus, after.data = after.data, TextClassification(str(reviews), max_length=16, batch_size=8)
    after.before = [stage(FullFineTuning(lr=1e-2), corpus)]
    started = begun(after)
    shared = {place for place in started if not place.startswith("head/")}
    assert shared == {place for place in ended if not place.startswith("head/")}
    assert all(torch.equal(started[place], ended[place]) for place in shared)


def test_masked_images__are_a_stage_of_a_classifier(make: Make, shapes: Path) -> None:
    """What it leaves behind is the decoder and the mask token, which lies among the embeddings."""
    plain, after = (make(LinearProbe(), folder=folder, plain=True, world="masked_images")
                    for folder in ("plain", "after"))
    corpus = after.data
    plain.data, after.data = (ImageClassification(str(shapes), batch_size=8) for _ in range(2))
    after.before = [stage(FullFineTuning(lr=1e-2), corpus)]
    untouched, started = begun(plain), begun(after)
    assert after.learned is not None
    shared = {place for place in untouched if not place.startswith("head/")}
    assert set(after.learned.tensors) == shared
    assert all(torch.equal(started[place], after.learned.tensors[place]) for place in shared)
    assert not any(torch.equal(started[place], untouched[place]) for place in shared)
    assert all(torch.equal(started[place], untouched[place]) for place in untouched.keys() - shared)


def test_stages__follow_each_other(make: Make) -> None:
    first, second = stage(FullFineTuning(lr=1e-2)), stage(LoRA(lr=3e-2))
    one = begun(make(LinearProbe(), first, folder="one"))
    both = make(LinearProbe(), copy.deepcopy(first), second, folder="both")
    started = begun(both)
    assert both.learned is not None
    moved = {p for p in started if not torch.equal(started[p], one[p])}
    assert moved
    assert all("weight" in place for place in moved)


def test_stage__is_trained_once_and_read_after_that(make: Make) -> None:
    def run(folder: str, plain: bool = False) -> tuple[dict[str, float], list[str]]:
        notes: list[str] = []
        metrics = execute(
            make(LoRA(lr=1e-2), stage(FullFineTuning(lr=1e-2)), folder=folder, plain=plain),
            lambda event: notes.append(event["text"]) if event["event"] == "note" else None)
        return metrics, [note for note in notes if note.startswith("stage 1")]

    made, first = run("first")
    read, again = run("again")
    plain, alone = run("plain", plain=True)
    assert "was trained" in first[-1]
    assert "was read" in again[-1]
    assert "was trained" in alone[-1]
    scores = [name for name in made if name.startswith(("val/", "test/"))]
    assert {n: made[n] for n in scores} == {n: read[n] for n in scores}
    assert {n: made[n] for n in scores} == pytest.approx({n: plain[n] for n in scores}, rel=1e-4)
    assert made["cost/before_seconds"] == read["cost/before_seconds"] > 0
    assert len(list(cache_folder.folder("stages").glob("*.safetensors"))) == 1

    (path,) = cache_folder.folder("stages").glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    mended, damaged = run("damaged")
    assert "was trained" in damaged[-1]
    assert {n: mended[n] for n in scores} == {n: read[n] for n in scores}


@pytest.mark.parametrize("technique", [LoRA, LinearProbe, FullFineTuning])
def test_checkpoint__holds_what_the_stages_changed(make: Make, technique: type) -> None:
    run = make(technique(lr=1e-2), stage(FullFineTuning(lr=1e-2)))
    metrics = execute(run, silent)
    fresh = make(technique(lr=1e-2), folder="fresh", known=False)
    load(fresh, silent)
    model, _ = adapt(fresh, silent)
    checkpoint.load(run.directory / "checkpoint", model)
    batch = next(iter(fresh.data.test_dataloader()))
    ours = run.technique.model.eval()
    with torch.no_grad():  # the run's own was merged to be measured
        torch.testing.assert_close(model.eval()(batch), ours(batch), rtol=1e-4, atol=1e-5)
    assert metrics["cost/trainable_parameters"] == sum(
        p.numel() for n, p in ours.named_parameters() if n in run.technique.trained)


def test_trial__starts_where_a_run_does(make: Make) -> None:
    def run(folder: str) -> Run:
        return make(LoRA(lr=1e-2), stage(FullFineTuning(lr=1e-2)), folder=folder)

    assert search(run("trial"), silent)["val/loss"] == pytest.approx(
        execute(run("whole"), silent)["val/loss"])


def test_stage__of_another_task_trains_the_same_network(
    make: Make, request: pytest.FixtureRequest
) -> None:
    backbone, corpus = make_world("causal_lm", request.getfixturevalue)()

    def run(folder: str, *before: Stage) -> Run:
        one = make(FullFineTuning(), *before, folder=folder)
        one.backbone = backbone
        return one

    plain, started = begun(run("plain")), begun(run("run", stage(FullFineTuning(lr=1e-2), corpus)))
    moved = {place for place in started if not torch.equal(started[place], plain[place])}
    assert {place.partition("/")[0] for place in moved} >= {"0", "1", "2", "3"}
    assert not any(place.startswith("head/") for place in moved)


def test_key__follows_what_a_stage_starts_from(
    make: Make, request: pytest.FixtureRequest, reviews: Path, tmp_path: Path
) -> None:
    """The second stage has data of its own; the first, and so where the second starts, differ."""
    _, corpus = make_world("text_classification", request.getfixturevalue)()
    lines = reviews.read_text().splitlines(keepends=True)
    other = tmp_path / "other.csv"
    other.write_text("".join([lines[0], *lines[20:]]))

    def learned(folder: str, source: Path, select_by: str) -> dict[str, torch.Tensor]:
        first, second = stage(FullFineTuning(lr=1e-2), select_by=select_by), stage(
            FullFineTuning(lr=1e-2), copy.deepcopy(corpus))
        run = make(LinearProbe(), first, second, folder=folder)
        run.data = TextClassification(str(source), max_length=20, batch_size=8)
        stages.learn(run, silent)
        assert run.learned is not None
        return dict(run.learned.tensors)

    kept = cache_folder.folder("stages")
    one = learned("one", reviews, "val/loss")
    two = learned("two", other, "val/loss")
    assert len(list(kept.glob("*.safetensors"))) == 4
    assert any(not torch.equal(one[place], two[place]) for place in one)
    learned("same", reviews, "val/loss")
    assert len(list(kept.glob("*.safetensors"))) == 4
    learned("judged", reviews, "val/accuracy")
    assert len(list(kept.glob("*.safetensors"))) >= 5


def test_head__of_a_stage_is_no_random_one(make: Make) -> None:
    with pytest.raises(Incompatible, match="the new head is random"):
        execute(make(WiSEFT(FullFineTuning()), stage(LinearProbe()), folder="left"), silent)
    learned = stage(LinearProbe(), carry="all")
    run = make(WiSEFT(FullFineTuning(lr=1e-2), alpha=0.0), learned, folder="kept")
    execute(run, silent)
    started = begun(make(FullFineTuning(), copy.deepcopy(learned), folder="again"))
    state = run.technique.model.state_dict()
    for place, name in places(run.technique.model).items():  # alpha 0 is where the run began
        torch.testing.assert_close(state[name], started[place], rtol=0, atol=0)


def test_stage__that_leaves_something_behind_is_refused(make: Make) -> None:
    with pytest.raises(Incompatible, match="does not merge into the network"):
        stages.learn(make(FullFineTuning(), stage(PromptTuning())), silent)
