"""Wrappers pass on the whole contract, to any depth; its hooks come at their moments."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.text import TextClassification
from ftlab.errors import GuardFailed, InputError
from ftlab.techniques.base import CONTRACT, Technique
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.techniques.untuned import Untuned
from ftlab.techniques.wrapper import Wrapper
from ftlab.training import fsdp
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings
from ftlab.training.trial import search

UNRENDERED = True


class Around(Wrapper):
    """Changes nothing."""

    def __init__(self, technique: Technique) -> None:
        super().__init__(technique)


def test_contract__is_the_documented_one() -> None:
    assert set(CONTRACT) == {
        "prepare", "foresee", "adapt", "param_groups", "lr_factors", "optimizer", "begin_fit",
        "optimum", "begin_epoch", "selectable", "objective", "after_step", "evaluated", "settle",
        "answers", "variants", "conclude", "merge", "audit", "costs"}


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_wrapper__passes_on_every_method(name: str, depth: int) -> None:
    inner, given, result = FullFineTuning(), [], object()
    setattr(inner, name, lambda *arguments: given.append(arguments) or result)
    outer: Technique = inner
    for _ in range(depth):
        outer = Around(outer)
    arguments = tuple(object() for _ in list(inspect.signature(getattr(outer, name)).parameters))
    returned = getattr(outer, name)(*arguments)
    assert given == [arguments]
    nothing = inspect.signature(getattr(Technique, name)).return_annotation == "None"
    assert nothing or returned is result


def test_wrapper__is_what_it_wraps() -> None:
    class Odd(FullFineTuning):
        identity_at_start, changes_freezing, whole_passes = False, True, True

    inner = Odd(lr=0.3)
    outer = Around(Around(inner))
    inner.notes.append("chosen in adapt")
    assert outer.notes == ["chosen in adapt"]
    assert not outer.identity_at_start
    assert outer.changes_freezing
    assert outer.whole_passes
    assert outer.lr == 0.3
    assert outer.together is None
    assert Around(Untuned()).trains is False
    assert not Around(FullFineTuning()).whole_passes
    assert Around(LinearProbe()).hooks == LinearProbe().hooks == {"adapt", "optimum"}
    assert isinstance(Around(FullFineTuning()).technique, FullFineTuning)
    assert not list(Around(FullFineTuning()).children())


class Told(FullFineTuning):
    """Writes down what it is told, and when."""

    def __init__(self) -> None:
        super().__init__(lr=1e-2)
        self.events: list[tuple[Any, ...]] = []

    def begin_fit(self, model: Any, data: Any, steps: int) -> None:
        torch.rand(3)  # what trains draws as without it
        self.events.append(("begin_fit", steps, len(data.splits["train"]) > 0))
        self.start = model.head_weight().clone()

    def objective(self, model: Any, task: Any, batch: Any) -> Tensor:
        self.events.append(("objective",))
        return super().objective(model, task, batch)

    def after_step(self, model: Any, step: int) -> None:
        assert any(p.grad is not None for p in model.parameters())
        self.events.append(("after_step", step))

    @contextmanager
    def evaluated(self, model: Any) -> Iterator[None]:
        before = model.head_weight().clone()
        with torch.no_grad():
            model.head_weight().fill_(float(len(self.events)))
        self.events.append(("evaluated", float(len(self.events))))
        yield
        with torch.no_grad():
            model.head_weight().copy_(before)
        self.events.append(("put back",))

    def settle(self, model: Any, data: Any, score: Any) -> None:
        assert not model.training
        self.restored = model.head_weight().clone()
        self.scores = [score()]
        model.head_weight().zero_()
        self.scores.append(score())
        self.events.append(("settle",))

    def costs(self) -> dict[str, float]:
        return {"secret": 7.0}


@pytest.fixture
def run(tiny_bert: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from ftlab.backbones.task_model import TaskModel

    monkeypatch.setattr(TaskModel, "head_weight", lambda self: next(
        p for p in self.head.parameters() if p.ndim > 1), raising=False)

    def make(technique: Technique, folder: str = "run", **settings: Any) -> Run:
        (tmp_path / folder).mkdir()
        return Run(HuggingFace(str(tiny_bert), pooling="mean"),
                   TextClassification(str(reviews), max_length=16, batch_size=8), technique,
                   TrainerSettings(max_epochs=2, **settings), 3, "val/loss", tmp_path / folder)

    return make


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_hooks__come_at_their_moments(run: Any, depth: int, accumulate: int) -> None:
    told = technique = Told()
    for _ in range(depth):
        technique = Around(technique)
    one = run(technique, accumulate=accumulate)
    metrics = execute(one, lambda event: None)

    log = told.events
    batches = len(one.data.train_dataloader())
    updates = 2 * -(-batches // accumulate)
    assert log[0] == ("begin_fit", updates, True)
    assert [entry[1] for entry in log if entry[0] == "after_step"] == list(range(1, updates + 1))
    kinds = [entry[0] for entry in log]
    assert kinds.pop() == "objective"  # whose operations are counted
    assert kinds.count("objective") == 2 * batches
    assert kinds.count("evaluated") == kinds.count("put back") == 2
    assert kinds[-1] == "settle"
    assert kinds.count("settle") == 1

    # what was validated and kept are the weights of the context
    shown = [entry[1] for entry in log if entry[0] == "evaluated"]
    assert float(told.restored.flatten()[0]) == shown[int(metrics["best_epoch"]) - 1]
    # and the model that is measured and kept is the settled one
    kept = load_file(one.directory / "checkpoint" / "delta.safetensors")
    head = next(value for name, value in kept.items() if "linear.weight" in name)
    assert not head.any()
    assert metrics["val/loss"] == pytest.approx(-told.scores[1])
    assert metrics["cost/secret"] == 7


def test_hooks__of_a_trial_s_score_are_those_of_a_run(run: Any) -> None:
    metrics = execute(run(Told(), "whole"), lambda event: None)
    trial = search(run(Told(), "trial"), lambda event: None)
    assert trial["val/loss"] == pytest.approx(metrics["val/loss"])


def test_hooks__that_do_nothing_change_nothing(run: Any) -> None:
    class Silent(Told):
        @contextmanager
        def evaluated(self, model: Any) -> Iterator[None]:
            yield

        def settle(self, model: Any, data: Any, score: Any) -> None:
            score()

    plain = execute(run(FullFineTuning(lr=1e-2), "plain"), lambda event: None)
    told = execute(run(Around(Silent()), "told"), lambda event: None)
    same = [name for name in plain if name.startswith(("val/", "test/"))]
    assert {name: told[name] for name in same} == {name: plain[name] for name in same}


def test_settle__may_not_change_what_is_frozen(run: Any) -> None:
    class Breaks(LinearProbe):
        def settle(self, model: Any, data: Any, score: Any) -> None:
            next(iter(model.blocks[0].parameters())).add_(1)

    with pytest.raises(GuardFailed, match="changed though frozen when the technique settled"):
        execute(run(Breaks()), lambda event: None)


def test_begin_fit__of_what_trains_nothing_is_kept(run: Any) -> None:
    class Means(LinearProbe):
        trains = False

        def begin_fit(self, model: Any, data: Any, steps: int) -> None:
            assert steps == 0
            model.head_weight().fill_(2)

    one = run(Means())
    execute(one, lambda event: None)
    kept = load_file(one.directory / "checkpoint" / "delta.safetensors")
    assert len(kept) == 1
    assert all((value == 2).all() for value in kept.values())


def test_variants__are_measured_on_the_test_split(run: Any) -> None:
    class Halved(FullFineTuning):
        def variants(self, model: Any) -> dict[str, Any]:
            @contextmanager
            def scaled(factor: float) -> Iterator[None]:
                model.head_weight().mul_(factor)
                yield
                model.head_weight().div_(factor)

            return {"same": scaled(1.0), "off": scaled(2.0**-40)}

    one = run(Around(Halved(lr=1e-2)))
    metrics = execute(one, lambda event: None)
    assert metrics["test.same/loss"] == metrics["test/loss"] != metrics["test.off/loss"]
    kept = [path.name for path in sorted((one.directory / "predictions").iterdir())]
    assert kept == ["test.off.parquet", "test.parquet", "test.same.parquet", "validation.parquet"]


def test_fsdp__refuses_a_technique_that_keeps_weights() -> None:
    with pytest.raises(InputError, match="works on whole ones"):
        fsdp.check(torch.nn.Linear(1, 1), Around(Told()))  # type: ignore[arg-type]  # asked first
