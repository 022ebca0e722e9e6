"""What the planner of the prefix cache counts is what a run without one computes."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from matrix import World, make_world

from ftlab.data.text_augment import TextAugment
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.training import execute as execution
from ftlab.training.costs import typical_batch
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.shortcuts.prefix_cache import prefix_source
from ftlab.training.shortcuts.prefix_cache.cache_estimate import BatchTiming, CacheFile, Forecast
from ftlab.training.trainer_settings import TrainerSettings
from ftlab.training.trial import search

UNRENDERED = True
EPOCHS = 3


@pytest.fixture
def texts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    return make_world("text_classification", request.getfixturevalue)


class Asked:
    """Stands where the planner's formula does, and keeps what it was asked."""

    def __call__(self, measured: BatchTiming, parts: Sequence[CacheFile], runs: int) -> Forecast:
        self.measured, self.parts, self.runs = measured, list(parts), runs
        return Forecast(runs, 2.0, 1.0, 0.0, 1000)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    made = Asked()
    monkeypatch.setattr(prefix_source, "foresee", made)
    return made


def a_run(world: World, directory: Path, plain: bool, views: int | None = None) -> Run:
    backbone, data = world()
    data.augment = TextAugment(views=views) if views else None  # type: ignore[attr-defined]
    record = {"backbone": {"source": repr(vars(backbone))}, "data": {"init_args": {}},
              "runs_to_come": 5}
    directory.mkdir()
    trainer = TrainerSettings(max_epochs=EPOCHS)
    return Run(backbone, data, LinearProbe(1e-2, solver=None), trainer, 7, "val/loss", directory, record, plain)


def passes_of(made: Run, whole: bool, patch: pytest.MonkeyPatch) -> tuple[Counter[str], list[int]]:
    """Of a run with the Trainer: examples that pass through the network, by kind of pass, and
    tokens with padding of each training batch."""
    examples: Counter[str] = Counter()
    tokens: list[int] = []
    step, validation, validate = (
        made.technique.training_step, made.technique.validation_step, execution.validate)

    def training_step(batch: Any, *rest: Any) -> Any:
        examples["training"] += len(batch["index"])
        tokens.append(batch["inputs"]["attention_mask"].numel())
        return step(batch, *rest)

    def validation_step(batch: Any, *rest: Any) -> Any:
        examples["validation"] += len(batch["index"])
        return validation(batch, *rest)

    def validated(*arguments: Any) -> Any:
        found = validate(*arguments)
        examples[arguments[3]] += len(found[1]["id"])
        return found

    patch.setattr(made.technique, "training_step", training_step)
    patch.setattr(made.technique, "validation_step", validation_step)
    patch.setattr(execution, "validate", validated)
    if whole:
        patch.setattr(execution, "_inference", lambda *_: {})  # which takes a step more
    (execute if whole else search)(made, lambda event: None)
    return examples, tokens


@pytest.mark.parametrize(("whole", "views"), [(True, None), (False, None), (False, 2)])
def test_planner__counts_the_passes_of_a_run_without_a_cache(
    whole: bool, views: int | None, texts: World, tmp_path: Path, asked: Asked,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = a_run(texts, tmp_path / "plain", True, views)
    with monkeypatch.context() as patch:
        examples, tokens = passes_of(plain, whole, patch)
    made = a_run(texts, tmp_path / "ours", False, views)
    (execute if whole else search)(made, lambda event: None)
    *training, validation = asked.parts[: len(asked.parts) - whole]
    assert len(training) == (views or 1)
    assert sum(part.examples * part.passes.training for part in training) == examples["training"]
    assert validation.examples * validation.passes.evaluation == examples["validation"]
    if whole:
        assert asked.parts[-1].examples * asked.parts[-1].passes.evaluation == examples["test"]
    assert asked.runs == 5
    if not views:  # lengths are of texts as they are
        assert training[0].training == sum(tokens[: len(tokens) // EPOCHS])
    evaluated = [batch["inputs"]["attention_mask"].numel() for batch in plain.data.val_dataloader()]
    assert validation.evaluation == sum(evaluated)


def test_planner__takes_what_one_batch_costs_by_its_tokens(
    texts: World, tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_source, "fastest", lambda act: 6.0)
    made = a_run(texts, tmp_path / "one", False)
    search(made, lambda event: None)
    batch = typical_batch(made.data)
    assert asked.measured.compute * batch["inputs"]["attention_mask"].numel() == pytest.approx(6.0)
    assert asked.measured.read * len(batch["index"]) == pytest.approx(6.0)


def test_planner__knows_what_is_there(texts: World, tmp_path: Path, asked: Asked) -> None:
    search(a_run(texts, tmp_path / "one", False), lambda event: None)
    assert [part.there for part in asked.parts] == [False, False]
    files = (tmp_path / "cache" / "prefix").glob("*.safetensors")
    max(files, key=lambda path: path.stat().st_size).unlink()  # of train
    search(a_run(texts, tmp_path / "two", False), lambda event: None)
    assert [part.there for part in asked.parts] == [False, True]
