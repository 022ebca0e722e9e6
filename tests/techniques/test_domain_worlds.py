"""Two domains whose shift is known: each method moves its own number, and the target's accuracy.

`noise`: a channel that tells the class best in the source is strong noise in the target.
`moved`: the target is the source, moved along the direction that tells the class.
`device`: moved further, and stretched, as by another device's offset and gain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ftlab.backbones.task_model import TaskModel
from ftlab.data.examples import Stream
from ftlab.statistics.two_samples import a_distance, coral, discrepancy
from ftlab.tasks.classification import Classification
from ftlab.techniques.ada_bn import AdaBN
from ftlab.techniques.base import Technique
from ftlab.techniques.cdan import CDAN
from ftlab.techniques.dan import DAN
from ftlab.techniques.dann import DANN
from ftlab.techniques.deep_coral import DeepCORAL
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.mcc import MCC, confusion

WIDTH, STEPS, BATCH, TEST = 4, 200, 64, 500


class World:
    """Examples of two domains, drawn without end; what a technique asks of a data module."""

    def __init__(self, kind: str, seed: int) -> None:
        self.kind, self.random = kind, np.random.default_rng(seed)
        self.task = Classification()
        self.task.fit(["a", "b"])
        self.beside, self.batch_size = {"target": Stream("drawn")}, BATCH
        self.splits = {"train": range(STEPS * BATCH)}
        self.held = {name: self.draw(TEST, name == "target") for name in ("source", "target")}

    def draw(self, rows: int, target: bool) -> dict[str, Any]:
        code = self.random.integers(0, 2, rows)
        sign = 2.0 * code - 1
        x = 0.5 * self.random.normal(size=(rows, WIDTH))
        x[:, 0] += sign
        if self.kind == "noise":
            x[:, 1] = 4 * self.random.normal(size=rows) if target else \
                1.5 * sign + 0.5 * self.random.normal(size=rows)
        elif target:
            gain, offset = {"moved": (1.0, 0.7), "device": (1.5, 1.5)}[self.kind]
            x = gain * x
            x[:, 0] += offset
        return {"inputs": {"x": torch.tensor(x, dtype=torch.float32)},
                "target": torch.tensor(code), "index": torch.arange(rows)}

    def batch(self) -> dict[str, Any]:
        stream = self.draw(BATCH, target=True)
        del stream["target"]
        return {**self.draw(BATCH, target=False), "beside": {"target": stream}}

    def eval_loader(self, split: str) -> Iterator[dict[str, Any]]:
        assert split == "beside.target"
        return iter([self.held["target"]])


class Network(nn.Module):
    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm1d(WIDTH) if norm else nn.Identity(),
                                  nn.Linear(WIDTH, 32), nn.ReLU(), nn.Linear(32, 8), nn.ReLU())
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


def trained(technique: Technique, kind: str, seed: int, norm: bool) -> tuple[TaskModel, World]:
    torch.manual_seed(seed)
    world: Any = World(kind, seed)
    model = TaskModel(Network(norm), [("body", ["body"])], ["head"])
    technique.prepare(world)
    technique.bind(model, world.task).train()
    optimizer = technique.optimizer(technique.param_groups(model))
    technique.begin_fit(model, world, STEPS)
    technique.begin_epoch(model, 0, 1)
    for step in range(STEPS):
        loss = technique.objective(model, world.task, world.batch())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        technique.after_step(model, step + 1)
    technique.eval()
    with torch.no_grad():
        technique.settle(model, world, lambda: 0.0)
    return model, world


def accuracy(model: TaskModel, world: World, domain: str) -> float:
    batch = world.held[domain]
    with torch.no_grad():
        return float((model(batch).argmax(dim=1) == batch["target"]).double().mean())


def of_features(measure: Callable[[Any, Any], float]) -> Callable[[TaskModel, World], float]:
    """A distance of the two domains' features, whose scale is that of the source's."""
    def measured(model: TaskModel, world: World) -> float:
        with torch.no_grad():
            source, target = (model.features(world.held[name]).double().numpy()
                              for name in ("source", "target"))
        scale = source.std()
        return measure(source / scale, target / scale)

    return measured


def told_apart(one: Any, other: Any) -> float:
    return a_distance(one, other, np.random.default_rng(0))[0]


def mmd(one: Any, other: Any) -> float:
    return discrepancy(one, other, np.random.default_rng(0))[0]


def confused(model: TaskModel, world: World) -> float:
    with torch.no_grad():
        return float(confusion(model(world.held["target"]) / 2.5))


def off_centre(model: TaskModel, world: World) -> float:
    """How far from 0 and 1 the target's moments are behind the batch norm."""
    with torch.no_grad():
        given = model.network.body[0](world.held["target"]["inputs"]["x"])
    norm = model.network.body[0]
    given = (given - norm.bias.detach()) / norm.weight.detach()
    return float(given.mean(dim=0).abs().max() + (given.std(dim=0) - 1).abs().max())


@pytest.mark.parametrize(("around", "kind", "norm", "number"), [
    (lambda t: DANN(t, hidden=32), "noise", False, of_features(told_apart)),
    (lambda t: CDAN(t, hidden=32), "noise", False, of_features(told_apart)),
    (lambda t: DeepCORAL(t, strength=1000.0), "noise", False, of_features(coral)),
    (DAN, "moved", False, of_features(mmd)),
    (lambda t: MCC(t, strength=10.0), "moved", False, confused),
    (AdaBN, "device", True, off_centre),
], ids=["DANN", "CDAN", "DeepCORAL", "DAN", "MCC", "AdaBN"])
def test_method__moves_its_number_and_the_target_s_accuracy(
    around: Any, kind: str, norm: bool, number: Callable[[TaskModel, World], float]
) -> None:
    gained, moved = [], []
    for seed in range(3):
        plain, world = trained(FullFineTuning(lr=1e-2), kind, seed, norm)
        adapted, _ = trained(around(FullFineTuning(lr=1e-2)), kind, seed, norm)
        assert accuracy(plain, world, "source") > 0.95
        gained.append(accuracy(adapted, world, "target") - accuracy(plain, world, "target"))
        moved.append((number(plain, world), number(adapted, world)))
    assert np.mean(gained) > 0.02
    assert min(gained) > 0
    assert all(after < before for before, after in moved)
