"""The membership score is scikit-learn's area, and falls with epsilon where a network memorises."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.poisson import Poisson
from ftlab.data.splits import Split
from ftlab.data.text import TextClassification
from ftlab.techniques.base import Technique
from ftlab.techniques.differentially_private import DifferentiallyPrivate
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.techniques.membership import auc, losses
from ftlab.techniques.membership_inference import MembershipInference
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True


def test_auc__is_scikit_learn_s_and_its_interval_covers() -> None:
    draw = np.random.default_rng(0)
    covered, wanted = 0, 0.7602  # Phi(1 / sqrt(2))
    for _ in range(400):
        higher, lower = draw.normal(1, 1, 60).round(1), draw.normal(0, 1, 90).round(1)
        area, low, high = auc(higher, lower)
        labels = np.r_[np.ones(60), np.zeros(90)]
        assert area == pytest.approx(roc_auc_score(labels, np.r_[higher, lower]), abs=1e-12)
        covered += low <= wanted <= high
    assert 0.91 <= covered / 400 <= 0.98
    assert auc(np.array([2.0, 3.0]), np.array([1.0])) == (1.0, 1.0, 1.0)
    assert auc(np.array([1.0]), np.array([1.0]))[0] == 0.5


@pytest.fixture
def coined(tmp_path: Path, tiny_bert: Path) -> Any:
    """A run on texts whose labels are tossed dice, so that a network can but memorise."""
    draw = np.random.default_rng(1)
    words = ["good", "bad", "plot", "film", "a", "b", "c", "the", "of", "was"]
    rows = [f"{' '.join(draw.choice(words, 8))},{'xy'[draw.integers(2)]}" for _ in range(120)]
    table = tmp_path / "coins.csv"
    table.write_text("text,label\n" + "\n".join(rows) + "\n")

    def make(technique: Technique, epochs: int = 25) -> Run:
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        data = TextClassification(str(table), max_length=16, batch_size=6,
                                  split=Split(validation=0.1, test=0.6))
        return Run(HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0, head_dropout=0.0), data,
                   technique, TrainerSettings(max_epochs=epochs), 3, "val/loss", folder)

    return make


class Net(nn.Module):
    """A small network that can learn dice by heart."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(20, 48), nn.Tanh(), nn.Linear(48, 10))

    def forward(self, batch: Any) -> Tensor:
        return self.layers(batch["inputs"])


class Dice:
    """Inputs of noise with labels of ten-sided dice, drawn in Poisson batches."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(240, 20, generator=draw), torch.randint(10, (240,), generator=draw)
        self.splits, self.batch_size, self.seed = {"train": range(80)}, 20, 5

    def without_training(self, reason: str) -> Any:
        return self

    def batch(self, rows: Any) -> dict[str, Any]:
        return {"inputs": self.x[rows], "target": self.y[rows], "index": torch.as_tensor(rows)}

    def losses(self, net: Net, rows: Any) -> Any:
        with torch.no_grad():
            return cross_entropy(net(self.batch(rows)), self.y[rows], reduction="none").numpy()


def test_membership__falls_with_epsilon() -> None:
    """In a world where training teaches nothing that is true of other examples."""
    dice: Any = Dice()
    task: Any = SimpleNamespace(loss=lambda outputs, batch: cross_entropy(outputs, batch["target"]))
    found = []
    for epsilon in (None, 30.0, 1.0):
        torch.manual_seed(1)
        net: Any = Net()
        technique = (DifferentiallyPrivate(FullFineTuning(lr=1e-2), noise=0.0, clip=1e9)
                     if epsilon is None else DifferentiallyPrivate(FullFineTuning(lr=1e-2), epsilon))
        technique.foresee(dice, 25)
        technique.begin_fit(net, dice, 100)
        optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
        step = 0
        for epoch in range(25):
            for rows in Poisson().plan(range(80), 20, 5, epoch):
                optimizer.zero_grad()
                technique.objective(net, task, dice.batch(torch.tensor(rows, dtype=torch.long))).backward()
                optimizer.step()
                technique.after_step(net, step := step + 1)
        if epsilon is not None:
            assert 0.97 * epsilon < technique.costs()["epsilon"] <= epsilon
        found.append(auc(dice.losses(net, range(80, 240)), dice.losses(net, range(80))))
    plain, loose, tight = found
    assert plain[1] > 0.95, "by heart"
    assert plain[1] > loose[0] > loose[1] > tight[0]
    assert tight[0] < 1 - math.exp(-1) / 2, "more than any attack can have at epsilon 1, but for delta"


def test_membership__changes_nothing(coined: Any) -> None:
    plain = execute(coined(LinearProbe(lr=1e-2), 3), lambda event: None)
    run = coined(MembershipInference(LinearProbe(lr=1e-2)), 3)
    audited = execute(run, lambda event: None)
    same = [name for name in plain if name.startswith(("val/", "test/", "best_epoch"))]
    assert {n: audited[n] for n in same} == {n: plain[n] for n in same}
    assert {n for n in audited if n.startswith("cost/membership")} == {
        "cost/membership_auc", "cost/membership_auc_low", "cost/membership_auc_high"}
    assert not [n for n in plain if "membership" in n]
    found = losses(run.technique.model, run.data, "test")
    assert found.mean() == pytest.approx(audited["test/loss"], rel=1e-5)
