"""Heads that train as one matrix product: the same as one run after another with the Trainer."""

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Trainer
from matrix import World, make_world
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

from ftlab.data.image import ImageClassification
from ftlab.data.image_augment import ImageAugment
from ftlab.data.sampling import Balanced
from ftlab.data.text_augment import TextAugment
from ftlab.data.train_batches import Update
from ftlab.errors import GuardFailed
from ftlab.tasks.base import Task
from ftlab.tasks.classification import Classification
from ftlab.tasks.losses.base import Loss
from ftlab.tasks.losses.class_balanced import ClassBalanced
from ftlab.tasks.losses.cross_entropy import CrossEntropy
from ftlab.tasks.losses.focal import Focal
from ftlab.tasks.losses.logit_adjusted import LogitAdjusted
from ftlab.tasks.losses.weighted_cross_entropy import WeightedCrossEntropy
from ftlab.tasks.multi_label import MultiLabel
from ftlab.tasks.regression import Regression
from ftlab.techniques.base import Optimization
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.training.callbacks import BestEpoch
from ftlab.training.checkpoint import WEIGHTS
from ftlab.training.event_log import EventLog, Report
from ftlab.training.execute import execute
from ftlab.training.guards import TensorGuard
from ftlab.training.run import Run
from ftlab.training.shared_fit import execute_together
from ftlab.training.shortcuts.linear_heads.cached_head import CachedHead
from ftlab.training.shortcuts.linear_heads.head_members import SeedGroup, StackedRun
from ftlab.training.shortcuts.linear_heads.stacked_heads import StackedFit
from ftlab.training.shortcuts.linear_heads.stacked_linear import StackedLinear
from ftlab.training.shortcuts.prefix_cache import prefix_source
from ftlab.training.shortcuts.prefix_cache.activation_files import Recorded
from ftlab.training.shortcuts.prefix_cache.cache_estimate import Forecast
from ftlab.training.trainer_settings import TrainerSettings
from ftlab.training.trial import search

UNRENDERED = True


@pytest.fixture(autouse=True)
def worth_caching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny networks compute as fast as a cache is read."""
    monkeypatch.setattr(prefix_source, "foresee", lambda *_: Forecast(1, 2.0, 1.0, 0.0, 1000))


@pytest.fixture
def texts(request: pytest.FixtureRequest) -> World:
    return make_world("text_classification", request.getfixturevalue)


Settings = tuple[int, float, Optimization]
MEMBERS: list[Settings] = [
    (7, 3e-2, Optimization(weight_decay=0.0)),
    (7, 1e-2, Optimization(weight_decay=0.3, schedule="cosine")),
    (8, 3e-2, Optimization(weight_decay=0.1, warmup=0.0)),
    (9, 3e-2, Optimization("adam", weight_decay=0.1, schedule="one-cycle")),
    (8, 1e-1, Optimization("sgd", weight_decay=0.1, schedule="constant")),
]


def a_run(world: World, directory: Path, settings: Settings, plain: bool, **trainer: Any) -> Run:
    backbone, data = world()
    seed, lr, optim = settings
    directory.mkdir(parents=True)
    told = {"max_epochs": 3, "precision": "64-true", "log_every": 4} | trainer
    record = {"backbone": {"source": repr(vars(backbone))}, "data": {"init_args": {}}}
    return Run(backbone, data, LinearProbe(lr, optim, None), TrainerSettings(**told), seed, "val/loss",
               directory, record, plain)


def agree(found: dict[str, float], expected: dict[str, float]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if not name.startswith("cost/") or "flops" in name or "parameters" in name:
            # validation is kept in float32
            exact = {"rel": 1e-6, "abs": 1e-7} if name.startswith("val/") else {"rel": 1e-9}
            assert found[name] == pytest.approx(value, **exact, nan_ok=True), name


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "checkpoint" / WEIGHTS)


def curves(events: list[dict[str, Any]]) -> list[tuple[int, dict[str, float]]]:
    return [(event["step"], {name: value for name, value in event["metrics"].items()
                             if "seconds" not in name})
            for event in events if event["event"] == "metrics"]


def result_of(found: dict[str, float] | Exception) -> dict[str, float]:
    assert not isinstance(found, Exception), found
    return found


def said_by(events: list[dict[str, Any]]) -> list[str]:
    return [event["text"] for event in events if event["event"] == "shortcut"]


def same_curves(events: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Validation is kept in float32, and what each step measured in float64."""
    for (step, values), (at, known) in zip(curves(events), curves(expected), strict=True):
        assert step == at
        exact = 1e-6 if "epoch" in known else 1e-10
        assert values == pytest.approx(known, rel=exact, abs=exact / 10, nan_ok=True)


def trials_together(
    world: World, tmp_path: Path, members: list[Settings], change: Callable[[Run], None],
    stops: list[Callable[[], bool]], **trainer: Any,
) -> tuple[list[dict[str, float] | Exception], list[list[dict[str, Any]]]]:
    runs = [a_run(world, tmp_path / f"stacked{i}", each, False, **trainer)
            for i, each in enumerate(members)]
    for run in runs:
        change(run)
    events: list[list[dict[str, Any]]] = [[] for _ in members]
    return execute_together(runs, [each.append for each in events], stops), events


def unchanged(run: Run) -> None:
    pass


def viewed(run: Run) -> None:
    """Views that differ much."""
    run.data.augment = (ImageAugment(views=3) if isinstance(run.data, ImageClassification)  # type: ignore[attr-defined]
                        else TextAugment(dropout=0.5, swap=0.5, views=2))


@pytest.mark.parametrize(("name", "change", "epochs"), [
    ("text_classification", unchanged, 3),
    ("text_classification", viewed, 5),
    ("image_classification_clip", viewed, 5),
])
def test_whole_runs__give_what_each_gives_with_the_trainer(
    name: str, change: Callable[[Run], None], epochs: int, tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    world, members = make_world(name, request.getfixturevalue), [MEMBERS[1], MEMBERS[2]]
    runs = [a_run(world, tmp_path / f"s{i}", each, False, max_epochs=epochs)
            for i, each in enumerate(members)]
    for run in runs:
        change(run)
    events: list[list[dict[str, Any]]] = [[] for _ in members]
    results = execute_together(runs, [each.append for each in events], None)
    for i, settings in enumerate(members):
        said: list[dict[str, Any]] = []
        run = a_run(world, tmp_path / f"p{i}", settings, True, max_epochs=epochs)
        change(run)
        agree(result_of(results[i]), execute(run, said.append))
        ours, plain = weights(tmp_path / f"s{i}"), weights(tmp_path / f"p{i}")
        assert ours.keys() == plain.keys()
        for tensor in plain:
            torch.testing.assert_close(ours[tensor], plain[tensor], rtol=0, atol=1e-9)
        same_curves(events[i], said)
        assert "trained as one of 2 heads by one matrix product" in said_by(events[i])
        files = {path.relative_to(tmp_path / f"p{i}") for path in (tmp_path / f"p{i}").rglob("*")}
        assert files == {p.relative_to(tmp_path / f"s{i}") for p in (tmp_path / f"s{i}").rglob("*")}


def weighted(run: Run) -> None:
    run.data.sampling, run.data.task = Balanced(), Classification(WeightedCrossEntropy())


@pytest.mark.parametrize(("change", "trainer"), [
    (unchanged, {}),
    (viewed, {"patience": 1, "max_epochs": 7}),
    (weighted, {"accumulate": 3, "patience": 1, "gradient_clip": 0.05, "max_epochs": 5}),
])
def test_trials__give_what_each_gives_with_the_trainer(
    texts: World, tmp_path: Path, change: Callable[[Run], None], trainer: dict[str, Any]
) -> None:
    """Seeds, rates, weight decays, schedules, optimizers; sampling, clipping, early stopping."""
    results, events = trials_together(
        texts, tmp_path, MEMBERS, change, [lambda: False] * len(MEMBERS), **trainer)
    for i, settings in enumerate(MEMBERS):
        run, said = a_run(texts, tmp_path / f"plain{i}", settings, True, **trainer), []
        change(run)
        agree(result_of(results[i]), search(run, said.append))
        same_curves(events[i], said)


def test_one_run__trains_without_the_trainer(
    texts: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[dict[str, Any]] = []
    expected = search(a_run(texts, tmp_path / "plain", MEMBERS[0], True), said.append)
    monkeypatch.setattr(Trainer, "fit", lambda *a, **k: pytest.fail("the Trainer was asked"))
    events: list[dict[str, Any]] = []
    agree(search(a_run(texts, tmp_path / "ours", MEMBERS[0], False), events.append), expected)
    same_curves(events, said)
    assert "the head is trained on cached features alone" in said_by(events)


def test_lone_example__joins_the_same_batch(
    texts: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a network with batch norms, and with every technique on it."""
    def joined(*_: Any) -> tuple[Update, list[str]]:
        return Update(joins_last=True), []

    monkeypatch.setattr("ftlab.training.batches.settle", joined)
    heard: list[list[dict[str, Any]]] = [[], []]
    for plain, events in zip((True, False), heard, strict=True):
        run = a_run(texts, tmp_path / str(plain), MEMBERS[0], plain, max_epochs=2)
        run.data.load()
        run.data.batch_size = len(run.data.splits["train"]) - 1
        search(run, events.append)
    assert "the head is trained on cached features alone" in said_by(heard[1])
    assert max(step for step, _ in curves(heard[0])) == 2  # a step an epoch
    same_curves(heard[1], heard[0])


def test_views__that_an_interrupted_run_left_undone_are_made(
    texts: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    record = prefix_source.PrefixSource.record

    def interrupted(source: prefix_source.PrefixSource, name: str, report: Report) -> Recorded:
        if name == "train/1":
            raise KeyboardInterrupt
        return record(source, name, report)

    runs = [a_run(texts, tmp_path / folder, MEMBERS[1], folder == "plain")
            for folder in ("cut", "again", "plain")]
    for run in runs:
        viewed(run)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prefix_source.PrefixSource, "record", interrupted)
        search(runs[0], lambda event: None)
    said: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    agree(search(runs[1], events.append), search(runs[2], said.append))
    same_curves(events, said)
    assert "was computed in part" in said_by(events)[0]
    assert "the head is trained on cached features alone" in said_by(events)


def test_members__fail_and_are_pruned_alone(texts: World, tmp_path: Path) -> None:
    members = [MEMBERS[0], (7, 1e300, Optimization()), MEMBERS[2], (9, 1e-2, Optimization())]
    asked = iter([False, True])
    stops = [lambda: False, lambda: False, lambda: False, lambda: next(asked)]
    results, events = trials_together(texts, tmp_path, members, lambda run: None, stops)
    assert isinstance(results[1], GuardFailed)
    assert "non-finite loss at or before step" in str(results[1])
    asked = iter([False, True])
    for i in (0, 2, 3):
        said: list[dict[str, Any]] = []
        plain = a_run(texts, tmp_path / f"plain{i}", members[i], True)
        agree(result_of(results[i]), search(plain, said.append, stops[i]))
        same_curves(events[i], said)
    assert [result_of(results[i])["pruned"] for i in (0, 2, 3)] == [0, 0, 1]


@pytest.mark.parametrize(("scores", "epochs"), [
    ([3.0, 4.0, 2.0, 3.0, 1.0, 2.0, 2.0, 0.5], 7),  # patience is for bad epochs in a row
    ([3.0, math.inf, 2.0], 2),
])
def test_run__ends_where_lightning_ends_it(
    scores: list[float], epochs: int, texts: World, tmp_path: Path
) -> None:
    heard = []
    for plain in (True, False):
        run = a_run(texts, tmp_path / f"plain {plain}", MEMBERS[0], plain, max_epochs=8, patience=2)
        told, task = iter(scores), run.data.task
        task.scalars = lambda values, told=told: {"loss": next(told)}  # type: ignore[method-assign]
        events: list[dict[str, Any]] = []
        search(run, events.append)
        heard.append([values["val/loss"] for _, values in curves(events) if "epoch" in values])
    assert heard == [scores[:epochs]] * 2


def test_stop__after_the_last_epoch_prunes_nothing(texts: World, tmp_path: Path) -> None:
    for plain in (True, False):
        run = a_run(texts, tmp_path / f"plain {plain}", MEMBERS[0], plain, max_epochs=1)
        assert search(run, lambda event: None, lambda: True)["pruned"] == 0


def test_member__that_never_moves_fails(texts: World, tmp_path: Path) -> None:
    members = [MEMBERS[0], (7, 1e-300, Optimization("sgd"))]
    results, _ = trials_together(texts, tmp_path, members, lambda run: None, [lambda: False] * 2)
    assert "never moved" in str(results[1])
    assert result_of(results[0])["val/accuracy"] > 0


def test_autocast__rounds_as_the_trainer_does(texts: World, tmp_path: Path) -> None:
    trainer = {"precision": "bf16-mixed", "max_epochs": 1}
    results, events = trials_together(
        texts, tmp_path, MEMBERS[:1], lambda run: None, [lambda: False], **trainer)
    said: list[dict[str, Any]] = []
    search(a_run(texts, tmp_path / "plain", MEMBERS[0], True, **trainer), said.append)
    result_of(results[0])
    for (_, values), (_, known) in zip(curves(events[0]), curves(said), strict=True):
        assert values.get("train/lr") == known.get("train/lr")
        shared = [name for name in ("train/loss", "train/epoch_loss", "val/loss") if name in known]
        assert [values[name] for name in shared] == pytest.approx(
            [known[name] for name in shared], rel=2e-3)


def focal(run: Run) -> None:
    run.data.task = Classification(Focal())


def augmented(run: Run) -> None:
    run.data.augment = TextAugment(dropout=0.1)  # type: ignore[attr-defined]


class Hooked(LinearProbe):
    """Has Lightning's Trainer call it."""

    def on_train_start(self) -> None:
        pass


def hooked(run: Run) -> None:
    run.technique = Hooked(lr=run.technique.lr, optim=run.technique.optim, solver=None)


@pytest.mark.parametrize(("change", "why"), [
    (hooked, "Hooked has its own on_train_start"),
    (focal, "its loss states no gradient in closed form"),
    (augmented, "its features are not cached"),
])
def test_stack__declines_and_says_why(
    texts: World, tmp_path: Path, change: Callable[[Run], None], why: str
) -> None:
    results, events = trials_together(
        texts, tmp_path, MEMBERS[:2], change, [lambda: False] * 2, max_epochs=1)
    for result, each in zip(results, events, strict=True):
        assert result_of(result)["val/loss"] > 0
        assert any(f"trained by itself: {why}" in text for text in said_by(each))


def test_outputs__of_autocast_are_rounded_as_torch_rounds_them() -> None:
    draw = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(2, 3, 16, generator=draw), torch.randn(2, 3, generator=draw)
    features = torch.randn(5, 16, generator=draw)
    heads = StackedLinear(list(weight), list(bias), [0, 0], [0.1, 0.1], [0.0, 0.0], "sgd", torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        expected = torch.stack([nn.functional.linear(features, *each)
                                for each in zip(weight, bias, strict=True)])
    assert expected.dtype == torch.bfloat16
    torch.testing.assert_close(heads.outputs(features[None])[0], expected)
    torch.testing.assert_close(torch.stack(list(heads.outputs_of(features))), expected)


def test_seeds__whose_batches_differ_in_length_train_as_each_alone() -> None:
    """Against a plain loop."""
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(11, 6, dtype=torch.float64, generator=draw)
    target, linear, task = torch.arange(11) % 3, nn.Linear(6, 3, dtype=torch.float64), Classification()
    task.fit(["a", "b", "c"])
    head = CachedHead(linear, ["weight", "bias"], [], dict.fromkeys(("train", "validation"), features),
                      {"train": target, "validation": target}, torch.float64)
    optim = Optimization(schedule="constant", warmup=0.0, weight_decay=0.1)
    settings = TrainerSettings(max_epochs=2, gradient_clip=None)
    orders: list[list[list[int]]] = [[[*range(8)], [8, 9, 10]], [[2, 1, 0], [*range(3, 11)]]]
    members: list[Any] = []
    for order in orders:
        data: Any = SimpleNamespace(
            task=task, train_dataloader=lambda order=order: DataLoader(range(11), batch_sampler=order))
        run: Any = SimpleNamespace(data=data, settings=settings, technique=SimpleNamespace(
            lr=1e-2, optim=optim, model=linear, validation_groups=None))
        seed = SeedGroup(data, TensorGuard(linear), head.parameters(), torch.get_rng_state())
        best = BestEpoch("val/loss", False, None, set(), {})
        members.append(StackedRun(run, seed, best, lambda event: None))
    StackedFit(head, members).train()
    for order, member in zip(orders, members, strict=True):
        alone = copy.deepcopy(linear)
        optimizer = torch.optim.AdamW([{"params": [alone.weight], "weight_decay": 0.1},
                                       {"params": [alone.bias], "weight_decay": 0.0}], lr=1e-2)
        for batch in order * 2:
            nn.functional.cross_entropy(alone(features[batch]), target[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()
        torch.testing.assert_close(member.final, [p.detach() for p in alone.parameters()])


LOSSES = [CrossEntropy(), CrossEntropy(0.1), WeightedCrossEntropy(), LogitAdjusted(),
          ClassBalanced()]


def classification(loss: Loss) -> tuple[Task, torch.Tensor, int]:
    task = Classification(loss)
    task.fit(["a", "a", "b", "c", "c", "c"])
    return task, torch.tensor([0, 2, 1, 2, 0]), 3


def regression() -> tuple[Task, torch.Tensor, int]:
    task = Regression()
    task.fit([1.0, 2.0, 5.0])
    return task, torch.tensor([1.0, 3.0, 2.0, 5.0, 4.0]), 1


def multi_label() -> tuple[Task, torch.Tensor, int]:
    task = MultiLabel()
    task.fit(["a|b", "c", "b"])
    return task, torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1]]), 3


@pytest.mark.parametrize("made", [
    *[partial(classification, loss) for loss in LOSSES], regression, multi_label])
def test_slope__is_the_gradient(made: Callable[[], tuple[Task, torch.Tensor, int]]) -> None:
    task, target, width = made()
    outputs = torch.randn(2, 4, 5, width, dtype=torch.float64,
                          generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = task.slope(outputs.detach(), target.expand(2, 1, *target.shape))
    assert found is not None
    losses, slope = found
    for one in range(2):
        for two in range(4):
            batch = {"target": target, "index": torch.arange(5)}
            loss = task.loss(outputs[one, two], batch)
            torch.testing.assert_close(losses[one, two], loss.detach())
            loss.backward()
    torch.testing.assert_close(slope, outputs.grad)


def test_event_log__waits_and_reports_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    heard: list[list[dict[str, Any]]] = [[], []]
    log = EventLog(2, [each.append for each in heard])
    assert [step for step in range(1, 6) if log.wants(step, last=step == 5)] == [2, 4, 5]
    log.add(2, {"train/loss": torch.tensor([1.0, 2.0]), "train/lr": 0.5})
    assert heard == [[], []]
    clock[0] = 2.0
    log.add(4, {"train/loss": torch.tensor([3.0, 4.0]), "train/lr": 0.25})
    assert [event["step"] for event in heard[1]] == [2, 4]
    assert [event["metrics"] for event in heard[1]] == [
        {"train/loss": 2.0, "train/lr": 0.5}, {"train/loss": 4.0, "train/lr": 0.25}]
