"""Wrappers that read a stream, held to closed formulas and to plain training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matrix import along
from scipy.special import softmax

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.examples import Stream
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible
from ftlab.techniques.base import Technique
from ftlab.techniques.deep_coral import DeepCORAL, distance
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.techniques.lora import LoRA
from ftlab.techniques.mcc import MCC, confusion
from ftlab.techniques.replay import Replay
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings


def test_confusion__of_a_loop_over_classes() -> None:
    logits = np.random.default_rng(0).normal(size=(9, 4))
    p = softmax(logits, axis=1)
    weight = 1 + np.exp((p * np.log(p)).sum(axis=1))
    weight *= len(p) / weight.sum()
    between = np.array([[sum(w * row[a] * row[b] for w, row in zip(weight, p, strict=True))
                         for b in range(4)] for a in range(4)])
    between /= between.sum(axis=1, keepdims=True)
    expected = sum(between[a, b] for a in range(4) for b in range(4) if a != b) / 4
    assert float(confusion(torch.tensor(logits))) == pytest.approx(expected, rel=1e-12)


def test_confusion__of_sure_and_of_even_predictions() -> None:
    sure = 1e3 * torch.eye(4)[[0, 1, 2, 3, 3, 1]]
    assert float(confusion(sure)) == pytest.approx(0, abs=1e-6)
    assert float(confusion(torch.zeros(6, 4))) == pytest.approx(3 / 4)


def test_distance__is_of_covariances() -> None:
    generator = np.random.default_rng(0)
    one, two = generator.normal(size=(12, 5)), 3 * generator.normal(size=(7, 5))
    expected = np.square(np.cov(one.T) - np.cov(two.T)).sum() / 100
    a, b = torch.tensor(one), torch.tensor(two)
    assert float(distance(a, b)) == pytest.approx(expected, rel=1e-12)
    assert float(distance(a, a)) == 0
    assert float(distance(a, a + 5)) == pytest.approx(0, abs=1e-20)


def run(technique: Technique, bert: Path, table: Path, folder: Path, **settings: Any
        ) -> tuple[Mapping[str, float], dict[str, torch.Tensor]]:
    folder.mkdir()
    data = TextClassification(str(table), max_length=16, batch_size=8)
    along(data, ["target", "memory"])
    made = Run(HuggingFace(str(bert), pooling="mean"), data, technique,
               TrainerSettings(max_epochs=2, **settings), 0, "val/loss", folder)
    metrics = execute(made, lambda event: None)
    return metrics, {n: t.clone() for n, t in made.technique.model.state_dict().items()}


@pytest.mark.parametrize("wrapper, arguments", [
    (MCC, {"strength": 0.0}), (DeepCORAL, {"strength": 0.0}), (Replay, {"part": 0.0})])
def test_nothing_added__is_plain_training_bit_for_bit(
    wrapper: Any, arguments: dict[str, float], tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    plain, weights = run(FullFineTuning(lr=1e-3), tiny_bert, reviews, tmp_path / "plain")
    around, others = run(wrapper(FullFineTuning(lr=1e-3), **arguments), tiny_bert, reviews,
                         tmp_path / "around")
    assert plain["test/loss"] == around["test/loss"]
    assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("wrapper", [MCC, DeepCORAL, Replay])
def test_run__takes_the_prefix_cache_and_gives_the_same_without(
    wrapper: Any, tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    """LoRA on the last block: streams come through the cached blocks before it, too."""
    results = []
    for plain in (False, True):
        folder = tmp_path / f"{plain}"
        folder.mkdir()
        data = TextClassification(str(reviews), max_length=16, batch_size=8)
        along(data, ["target", "memory"])
        made = Run(HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0), data,
                   wrapper(LoRA(lr=1e-2, last=1)), TrainerSettings(max_epochs=2), 0, "val/loss",
                   folder, plain=plain)
        events: list[Any] = []
        results.append(execute(made, events.append)["test/loss"])
        taken = [event for event in events if event["event"] == "shortcut"
                 and "prefix" in json.dumps(event)]
        assert plain or taken
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_replay__is_the_mean_of_both_losses_by_their_part(tiny_bert: Path, reviews: Path) -> None:
    data = TextClassification(str(reviews), max_length=16, batch_size=8)
    along(data, ["memory"])
    data.beside["memory"] = Stream(str(reviews), labelled=True, batch_size=4)
    backbone = HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0)
    data.load()
    data.connect(backbone, seed=0)
    data = data.with_streams(["memory"])
    technique = Replay(FullFineTuning(), part=0.25)
    technique.prepare(data)
    technique.bind(backbone.build(data.task), data.task)
    batch = next(iter(data.train_dataloader()))
    model, memory = technique.model.eval(), batch["beside"]["memory"]
    assert len(memory["index"]) == 4
    new, old = (data.task.losses(model(part), part).mean().detach() for part in (batch, memory))
    assert float(technique.objective(model, data.task, batch).detach()) == pytest.approx(
        float(0.75 * new + 0.25 * old), rel=1e-6)


def test_accumulated_batches_bring_streams_too(tiny_bert: Path, reviews: Path,
                                               tmp_path: Path) -> None:
    metrics, _ = run(Replay(FullFineTuning(lr=1e-3)), tiny_bert, reviews, tmp_path / "a", accumulate=2)
    assert np.isfinite(metrics["test/loss"])


def test_stream_that_is_not_there_is_named(tiny_bert: Path, reviews: Path, tmp_path: Path) -> None:
    data = TextClassification(str(reviews), max_length=16)
    made = Run(HuggingFace(str(tiny_bert), pooling="mean"), data, MCC(LinearProbe(solver=None)),
               TrainerSettings(max_epochs=1), 0, "val/loss", tmp_path)
    with pytest.raises(Incompatible, match=r"MCC reads the stream 'target', .* it has none"):
        execute(made, lambda event: None)
    data.beside["memory"] = Stream(str(reviews))
    with pytest.raises(Incompatible, match="which are not read"):
        Replay(FullFineTuning()).prepare(data)
