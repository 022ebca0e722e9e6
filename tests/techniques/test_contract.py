"""What every technique keeps, on a tiny model of every task.

A file dropped into `ftlab/techniques` or into `tests/worlds` is held to this without an edit here.
"""

import inspect
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from matrix import (
    TECHNIQUES,
    WHOLE,
    WORLDS,
    World,
    along,
    build,
    make_technique,
    make_world,
    page_says,
    refusal,
    render,
    shown,
    tried,
    tried_always,
    write,
)

from ftlab.errors import Incompatible
from ftlab.techniques.base import Optimization
from ftlab.training import checkpoint
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
EPOCHS = 4


@pytest.fixture
def world(request: pytest.FixtureRequest) -> World:
    return make_world(request.param, request.getfixturevalue)


def cases(names: Iterable[str], always: Callable[[str], list[str]]) -> pytest.MarkDecorator:
    pairs = [pytest.param(name, place, marks=() if place in always(name) else pytest.mark.slow)
             for name in names for place in tried(name)]
    return pytest.mark.parametrize(("name", "world"), pairs, indirect=["world"])


def run_in(world: World, name: str, directory: Path) -> Run:
    backbone, data = world()
    technique = make_technique(name)
    along(data, technique.streams, technique.columns)
    settings = TrainerSettings(max_epochs=EPOCHS, gradient_clip=None)
    return Run(backbone, data, technique, settings, 7, "val/loss", directory)


def losses(events: list[dict]) -> list[float]:
    return [
        event["metrics"]["train/epoch_loss"]
        for event in events
        if event["event"] == "metrics" and "train/epoch_loss" in event["metrics"]
    ]


@cases(TECHNIQUES, tried_always)
def test_contract(name: str, world: World, tmp_path: Path) -> None:
    run = run_in(world, name, tmp_path)
    technique = run.technique
    if refusal(name, world) is not None:
        with pytest.raises(Incompatible):
            execute(run, lambda event: None)
        assert not any(tmp_path.iterdir())
        return
    events: list[dict] = []
    torch.manual_seed(7)
    metrics = execute(run, events.append)
    if not technique.trains:
        assert metrics["cost/trainable_parameters"] == metrics["cost/train_seconds"] == 0
        assert metrics["cost/total_parameters"] > 0
        return

    # The loss falls, where there are epochs.
    course = losses(events)
    assert len(course) == (EPOCHS if run.solver is None else 1)
    assert run.solver is not None or min(course[1:]) < course[0]

    # What was frozen is bit-identical to a fresh build, what trained has moved. The guards in
    # `execute` said so of the last epoch; this looks at the restored one, from outside.
    torch.manual_seed(7)
    again = run_in(world, name, tmp_path)
    again.data.load()
    again.data.connect(again.backbone, 7)
    again.technique.prepare(again.data)
    fresh = again.technique.bind(again.backbone.build(again.data.task), again.data.task).model
    trained_now = dict(technique.model.named_parameters())
    before = dict(fresh.named_parameters())
    frozen = [n for n in before if n in trained_now and n not in technique.trained]
    if name not in WHOLE:
        assert frozen, "a cheaper technique keeps something"
    # Measuring merged the run's model, which folds PEFT's weights into frozen ones.
    for n in frozen if "cost/latency_merged_seconds" not in metrics else ():
        assert torch.equal(before[n], trained_now[n]), n
    assert technique.trained
    assert metrics["cost/trainable_parameters"] == sum(
        before[n].numel() for n in technique.trained  # merging may take them out of the run's model
    )

    # The checkpoint on a fresh build gives the outputs of the run's own model, merged or not,
    # and the same predictions, generated or not.
    manifest = checkpoint.load(tmp_path / "checkpoint", fresh)
    assert manifest["epoch"] == metrics["best_epoch"]
    batch = next(iter(run.data.test_dataloader()))
    ours, fresh, task = technique.model.eval(), fresh.eval(), run.data.task
    with torch.no_grad():
        torch.testing.assert_close(
            ours.comparable(ours(batch)), fresh.comparable(fresh(batch)), rtol=1e-3, atol=1e-3
        )
        one, other = (task.records(task.predict(m, batch, m(batch)), batch["target"])
                      for m in (ours, fresh))
    assert_same(one["prediction"], other["prediction"])


def assert_same(a: object, b: object) -> None:
    """Equal, numbers up to rounding, however nested."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        a, b = list(a.values()), list(b.values())
    if isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == (pytest.approx(b, rel=1e-2, abs=1e-2) if isinstance(a, float) else b)


@cases((n for n, cls in TECHNIQUES.items() if cls.trains), tried)
def test_start(name: str, world: World) -> None:
    """Identity where it is claimed; frozen blocks run in eval mode."""
    if refusal(name, world) is not None:
        return  # test_contract holds it to its refusal
    data, model = build(world)
    model.eval()
    batch = next(iter(data.test_dataloader()))
    technique = make_technique(name)
    technique.prepare(data)
    torch.manual_seed(7)  # an adapter of random numbers may happen to change next to nothing
    with torch.no_grad():
        before = model.comparable(model(batch))
        after = model.comparable(technique.bind(model, data.task).eval().model(batch))
    same = all(x.shape == y.shape and torch.allclose(x, y, atol=1e-5)
               for x, y in zip(before, after, strict=True))
    assert same == technique.identity_at_start

    technique.begin_epoch(model, 0, 6)
    technique.train()
    for block in model.blocks:
        trains = any(parameter.requires_grad for parameter in block.parameters())
        modes = {module.training for _, module in block.named_modules()}
        assert trains or modes == {False}, block


def test_plain_session__trains_in_every_world() -> None:
    goes = page_says()  # what it says is held to the techniques above
    for place in WORLDS:
        here = [name for name in goes if place in tried_always(name) and place in goes[name]]
        assert len(here) >= 3, (place, here)


def test_matrix__is_the_page_s(request: pytest.FixtureRequest) -> None:
    found = {(name, w): refusal(name, make_world(w, request.getfixturevalue))
             for name in TECHNIQUES for w in WORLDS}
    matrix = render(found)
    if os.environ.get("FTLAB_WRITE_MATRIX"):
        write(matrix)
    assert matrix == shown(), "FTLAB_WRITE_MATRIX=1 pytest -k matrix writes it into docs/tasks.md"


@pytest.mark.parametrize("name", TECHNIQUES)
def test_docstring_names_its_source(name: str) -> None:
    said = inspect.getdoc(TECHNIQUES[name]) or ""
    assert re.search(r"\(\d{4}\)", said), "authors and year"
    assert re.search(r"https://(arxiv\.org/abs/\d{4}\.\d{5}|doi\.org/10\.|openreview\.net/forum|"
                     r"proceedings\.)", said), "a link"


@pytest.mark.parametrize("name", TECHNIQUES)
def test_search_space_names_arguments(name: str) -> None:
    space = TECHNIQUES[name].search_space
    changes = getattr(TECHNIQUES[name], "of_training", True)  # a wrapper may but measure
    assert bool(space) == TECHNIQUES[name].trains or not (space or changes)
    assert space.keys() <= inspect.signature(TECHNIQUES[name]).parameters.keys()


@pytest.mark.parametrize("lr", [0.0, -1.0])
@pytest.mark.parametrize("name", [n for n, cls in TECHNIQUES.items() if "lr" in inspect.signature(cls).parameters])
def test_rate_must_be_positive(name: str, lr: float) -> None:
    with pytest.raises(ValueError, match=f"lr must be above 0, got {lr}"):
        TECHNIQUES[name](lr=lr)


def test_optimization__schedules() -> None:
    total = 100
    linear = Optimization(schedule="linear", warmup=0.1)
    assert linear.factor(0, total) == 0
    assert linear.factor(5, total) == pytest.approx(0.5)
    assert linear.factor(10, total) == 1
    assert linear.factor(55, total) == pytest.approx(0.5)
    assert linear.factor(100, total) == 0
    cosine = Optimization(schedule="cosine", warmup=0.0)
    assert cosine.factor(25, total) == pytest.approx(0.5 + 0.5 * 2**-0.5)
    assert cosine.factor(100, total) == pytest.approx(0)
    cycle = Optimization(schedule="one-cycle", warmup=0.3)
    assert cycle.factor(0, total) == pytest.approx(1 / 25)
    assert max(cycle.factor(s, total) for s in range(total)) == cycle.factor(30, total) == 1
    wide = Optimization(schedule="one-cycle", warmup=0.3, div=5)
    assert (wide.factor(0, total), wide.factor(30, total)) == (pytest.approx(1 / 5), 1)
    assert wide.factor(60, total) == cycle.factor(60, total)
    with pytest.raises(ValueError, match="div is of schedule one-cycle, and schedule is linear"):
        Optimization(div=5)
    with pytest.raises(ValueError, match=r"div must be at least 1, got 0\.5"):
        Optimization(schedule="one-cycle", div=0.5)
    constant = Optimization(schedule="constant", warmup=0.0)
    assert {constant.factor(s, total) for s in range(total)} == {1.0}
