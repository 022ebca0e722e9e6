"""The learning-rate range test: against a plain loop, and through the command line."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible
from ftlab.techniques.base import Optimization
from ftlab.techniques.discriminative_lr import DiscriminativeLR
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.linear_probe_then_fine_tune import LinearProbeThenFineTune
from ftlab.techniques.zero_shot import ZeroShot
from ftlab.training.adapt import adapt, load
from ftlab.training.rate_test import range_test, suggested
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings


@pytest.fixture
def make(tiny_bert: Path, reviews: Path, tmp_path: Path) -> Callable[..., Run]:
    def run(technique: object) -> Run:
        return Run(HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0, head_dropout=0.0),
                   TextClassification(str(reviews), max_length=16, batch_size=8), technique,
                   TrainerSettings(), 3, "val/loss", tmp_path)

    return run


def test_range__is_a_plain_loop_with_a_growing_rate(make: Callable[..., Run]) -> None:
    test = range_test(make(FullFineTuning(1e-3, Optimization("sgd", 0.0))), print, 1e-4, 1e-1, 24)

    run = make(FullFineTuning())
    load(run, print)
    model, _ = adapt(run, print)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    loader = run.data.train_dataloader()
    mean, losses, rates = 0.0, [], np.geomspace(1e-4, 1e-1, 24)
    batches = [batch for epoch in range(3)
               for batch in (loader.sampler.set_epoch(epoch), list(loader))[1]]
    for step, batch in enumerate(batches[:24]):
        optimizer.param_groups[0]["lr"] = rates[step]
        loss = torch.nn.functional.cross_entropy(model(batch), batch["target"])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean = 0.98 * mean + 0.02 * float(loss.detach())
        losses.append(mean / (1 - 0.98 ** (step + 1)))
    np.testing.assert_allclose(test.rates, rates)
    np.testing.assert_allclose(test.losses, losses, rtol=1e-4)


def test_range__ends_where_the_loss_explodes(make: Callable[..., Run]) -> None:
    test = range_test(make(FullFineTuning(1e-3, Optimization("sgd", 0.0))), print, 1e-2, 1e6, 100)
    assert len(test.rates) < 100
    assert np.isfinite(test.losses).all()


def test_range__keeps_the_proportions_of_blocks(make: Callable[..., Run]) -> None:
    plain = range_test(make(FullFineTuning()), print, 1e-4, 1e-2, 12)
    wrapped = range_test(make(DiscriminativeLR(FullFineTuning(), 1.0)), print, 1e-4, 1e-2, 12)
    slower = range_test(make(DiscriminativeLR(FullFineTuning(), 0.1)), print, 1e-4, 1e-2, 12)
    np.testing.assert_allclose(plain.losses, wrapped.losses, rtol=1e-5)
    assert slower.losses[-1] != plain.losses[-1]


def test_range__tests_what_the_first_epoch_trains(make: Callable[..., Run]) -> None:
    run = make(LinearProbeThenFineTune())
    range_test(run, print, 1e-4, 1e-2, 12)
    model = run.technique.model
    assert all(p.grad is None or not p.grad.any() for block in model.blocks
               for p in block.parameters())


def test_range__adds_up_batches_as_the_run_does(make: Callable[..., Run]) -> None:
    halves, whole = make(FullFineTuning()), make(FullFineTuning())
    halves.settings = TrainerSettings(accumulate=2)
    halves.data.batch_size, whole.data.batch_size = 4, 8
    one, other = (range_test(run, print, 1e-4, 1e-2, 8) for run in (halves, whole))
    np.testing.assert_allclose(one.losses[:5], other.losses[:5], rtol=1e-3)


def test_range__needs_something_that_trains(make: Callable[..., Run]) -> None:
    with pytest.raises(Incompatible, match="ZeroShot trains nothing"):
        range_test(make(ZeroShot()), print, 1e-4, 1e-2, 12)


def test_suggestion__is_where_the_loss_falls_fastest() -> None:
    rates = np.geomspace(1e-5, 1e1, 61)
    at = np.log10(rates)
    losses = 1 / (1 + np.exp(6 * (at + 2))) + np.where(at > 0, 5 * at, 0)  # falls fastest at 1e-2
    losses = losses + 0.01 * np.cos(40 * at)
    assert suggested(list(rates), list(losses)) == pytest.approx(1e-2, rel=0.3)
    assert suggested([1e-3], [1.0]) == 1e-3


def test_command__writes_table_and_figure(
    here: Callable[..., tuple[int, str, str]], tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(
        f"name: rates\nbackbones: {{b: {{class_path: HuggingFace, init_args: {{source: '{tiny_bert}'}}}}}}\n"
        f"datasets: {{d: {{class_path: TextClassification, init_args: {{train: '{reviews}', max_length: 16}}}}}}\n"
        "techniques: {full: FullFineTuning, zero: ZeroShot}\n")
    code, output, errors = here("lr", tmp_path / "study.yaml", "--steps", "12",
                                "--results", tmp_path / "results")
    assert code == 0, errors
    assert "full on d from b: " in output
    assert "zero" not in output
    folder = tmp_path / "results" / "rates" / "lr"
    assert sorted(path.name for path in folder.iterdir()) == ["rates.csv", "rates.pdf", "rates.png"]
    rows = list(csv.DictReader((folder / "rates.csv").read_text().splitlines()))
    assert [float(row["rate"]) for row in rows] == sorted(float(row["rate"]) for row in rows)
    assert "nan" not in output
