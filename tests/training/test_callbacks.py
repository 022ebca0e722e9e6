import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import GuardFailed
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.training.callbacks import BestEpoch
from ftlab.training.costs import flops, latency
from ftlab.training.rank_consistency import RankConsistency


def trainer(epoch: int = 0, **metrics: float) -> Any:
    return SimpleNamespace(
        callback_metrics={name.replace("_", "/"): torch.tensor(v) for name, v in metrics.items()},
        current_epoch=epoch, fit_loop=SimpleNamespace(batch_idx=4), num_training_batches=5,
        is_global_zero=True, max_epochs=3, should_stop=False, world_size=1,
        strategy=SimpleNamespace(broadcast=lambda decision: decision))


def model() -> TaskModel:
    return TaskModel(nn.Sequential(nn.Linear(2, 2)), [], head=["0"])


def module() -> Any:
    return SimpleNamespace(model=model(), shard=None, selectable=lambda epoch, epochs: True)


@pytest.fixture
def best(tmp_path: Path) -> BestEpoch:
    return BestEpoch("val/loss", False, tmp_path, {"network.0.bias"}, {})


def test_best_epoch__names_the_metrics_there_are(best: BestEpoch) -> None:
    with pytest.raises(GuardFailed, match=r"no val/loss .*: validation gives val/f1, val/recall"):
        best.on_validation_end(trainer(val_f1=1.0, val_recall=1.0), module())


def test_best_epoch__is_the_first_of_equal_ones(best: BestEpoch) -> None:
    scores = [2.0, 1.0, 1.0]
    assert [best.judge({"val/loss": score}, epoch) for epoch, score in enumerate(scores, 1)] == [
        True, True, False]
    assert best.epoch == 2


def test_best_epoch__is_there_where_all_are_infinitely_bad(best: BestEpoch) -> None:
    """A perplexity beyond float32: exp(89)."""
    scores = [math.inf, math.inf, 5.0]
    assert [best.judge({"val/loss": score}, epoch) for epoch, score in enumerate(scores, 1)] == [
        True, False, True]


def test_best_epoch__counts_epochs_from_one(best: BestEpoch) -> None:
    with pytest.raises(GuardFailed, match="not a number after epoch 2"):
        best.on_validation_end(trainer(epoch=1, val_loss=float("nan")), module())
    best.on_validation_end(trainer(epoch=1, val_loss=1.0), module())
    assert best.epoch == 2


def test_validation_loss__is_weighted_and_keeps_a_nan() -> None:
    class Task:
        def collection(self) -> nn.Module:
            return nn.Identity()

    technique = FullFineTuning().bind(model(), Task())
    loss = technique.validation_scores.loss
    loss.update(torch.tensor(1.0), weight=8)
    loss.update(torch.tensor(4.0), weight=4)
    assert loss.compute() == (24, 12)
    loss.update(torch.tensor(float("nan")), weight=8)
    assert torch.isnan(loss.compute()[0])


def test_pruning__never_after_the_last_epoch() -> None:
    pruning = BestEpoch("val/loss", False, None, set(), {}, stop=lambda: True)
    last, first = trainer(epoch=2, val_loss=1.0), trainer(epoch=0, val_loss=1.0)
    pruning.on_validation_end(last, module())
    assert not pruning.pruned
    assert not last.should_stop
    pruning.on_validation_end(first, module())
    assert pruning.pruned
    assert first.should_stop


def test_agreement__of_one_process_asks_nobody() -> None:
    RankConsistency({"model": {}}).on_train_start(trainer(), module())


def test_costs__are_measured_in_the_precision_of_the_run() -> None:
    entered = []

    class Context:
        def __enter__(self) -> None:
            entered.append(True)

        def __exit__(self, *args: object) -> None:
            pass

    class Task:
        def collection(self) -> nn.Module:
            return nn.Identity()

        def predict(self, model: TaskModel, batch: dict) -> torch.Tensor:
            assert entered
            return model(batch)

        def loss(self, outputs: torch.Tensor, batch: dict) -> torch.Tensor:
            return outputs.sum()

    batch = {"inputs": {"input": torch.ones(2, 2)}, "index": torch.arange(2)}
    latency(Task(), model(), batch, Context, repeats=1)
    assert len(entered) == 3
    flops(FullFineTuning().bind(model(), Task()), batch, Context)
    assert len(entered) == 5
