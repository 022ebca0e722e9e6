"""Blocks that are computed again in the backward pass give the same losses and gradients."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from matrix import TECHNIQUES, WORLDS, make_technique, make_world, page_says
from steps import Bench
from torch import Tensor, nn

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import GuardFailed, InputError
from ftlab.techniques.base import Technique
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.peft_technique import PeftTechnique
from ftlab.tracking.cell_hash import cell_hash
from ftlab.training import activation_checkpointing
from ftlab.training.live_bytes import LiveBytes
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings
from ftlab.training.trial import search

TRAINING = sorted(name for name in TECHNIQUES if make_technique(name).trains)


def cases(names: Iterable[str]) -> list[Any]:
    """Each technique with each world that it goes with; a plain session has one of these, in turn.

    PEFT's layers are alike to a block: a plain session has one of them in six.
    """
    chosen = []
    for number, name in enumerate(names):
        worlds, rare = page_says().get(name, WORLDS), issubclass(TECHNIQUES[name], PeftTechnique)
        plain = [] if rare and number % 6 else [worlds[number % len(worlds)]]
        chosen += [pytest.param(name, world, marks=() if world in plain else pytest.mark.slow)
                   for world in worlds]
    return chosen


_benches: dict[str, Bench] = {}


def a_step(technique: Technique, batch: Any, steps: int = 2) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of some steps, and what they leave of gradients (of the last), weights and buffers."""
    torch.manual_seed(5)
    losses = []
    for _ in range(steps):
        technique.zero_grad(set_to_none=True)
        loss = technique.training_step(batch, 0)["loss"]
        loss.backward()
        losses.append(float(loss.detach()))
        with torch.no_grad():
            for parameter in technique.model.parameters():
                if parameter.grad is not None:
                    parameter -= 1e-3 * parameter.grad
    found = {f"gradient of {name}": p.grad for name, p in technique.model.named_parameters()
             if p.grad is not None}
    return losses, found | dict(technique.model.named_buffers())


@pytest.mark.parametrize(("name", "world"), cases(TRAINING))
def test_step__is_the_same(name: str, world: str, request: pytest.FixtureRequest) -> None:
    """With every technique, dropout, batch norms and sound of several lengths included."""
    if world not in _benches:
        _benches[world] = Bench(make_world(world, request.getfixturevalue))
    bench = _benches[world]
    found = []
    for recomputing in (False, True):
        technique = bench.bound(make_technique(name))
        if "begin_fit" in technique.hooks:
            torch.manual_seed(4)
            technique.begin_fit(technique.model, bench.data, 10)
        technique.eval()
        if recomputing:
            try:
                with activation_checkpointing.checked(technique.model), torch.no_grad():
                    technique.model(bench.batches[0])
            except InputError as error:
                assert "checkpoint_activations" in str(error)
                pytest.skip(str(error))
            activation_checkpointing.install(technique.model)
        technique.train()
        found.append(a_step(technique, bench.batches[0]))
    (plain, gradients), (losses, others) = found
    assert losses == pytest.approx(plain, rel=1e-6)
    assert gradients.keys() == others.keys()
    for tensor, value in gradients.items():
        torch.testing.assert_close(others[tensor], value, rtol=1e-4, atol=1e-6, msg=lambda text, t=tensor: f"{t}: {text}")


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 64), nn.Linear(64, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).tanh())


class Layers(nn.Module):
    """Layers called in an order; `order` names one twice, or as they do not stand."""

    def __init__(self, count: int, order: Sequence[int] | None = None) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.layers = nn.ModuleList(Layer() for _ in range(count))
        self.head = nn.Linear(8, 2)
        self.order = range(count) if order is None else order

    def forward(self, input: Tensor) -> Tensor:
        x = self.embed(input)
        for index in self.order:
            x = self.layers[index](x)
        return self.head(x)


def layered(count: int = 3, order: Sequence[int] | None = None) -> TaskModel:
    blocks = [(f"layers.{i}", [f"layers.{i}"]) for i in range(count)]
    return TaskModel(Layers(count, order), [("stem", ["embed"]), *blocks], head=["head"])


def examples(count: int = 4) -> dict[str, Any]:
    return {"inputs": {"input": torch.randn(count, 5)}, "index": torch.arange(count)}


@pytest.mark.parametrize(("order", "what"), [
    ([0, 1, 1, 2], r"layers\.1 is called 2 times in a pass"),
    ([0, 2, 1], r"not called in their order, network\.layers\.2 comes where network\.layers\.1")])
def test_checked__refuses_blocks_out_of_turn(order: list[int], what: str) -> None:
    model = layered(3, order)
    with pytest.raises(InputError, match=what), activation_checkpointing.checked(model):
        model(examples())
    with pytest.raises(InputError, match=what):
        activation_checkpointing.check_shape(model.to("meta"), examples())


def test_modules__networks_of_single_layers_are_refused() -> None:
    model = TaskModel(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), [("0", ["0"])], ["2"])
    with pytest.raises(InputError, match="no blocks of several layers"):
        activation_checkpointing.install(model)


def test_guard__a_block_that_gives_something_else_the_second_time() -> None:
    model = layered()
    forward = Layer.forward
    calls = []

    class Forgetful(Layer):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(1)
            return forward(self, x) * (1 if len(calls) < 2 else 1.1)

    model.network.layers[1] = Forgetful()
    activation_checkpointing.install(model)
    loss = model(examples()).sum()
    with pytest.raises(GuardFailed, match="gives something else"):
        loss.backward()


def test_blocks__keep_their_inputs_alone() -> None:
    """Half of the activations and more, and of a frozen embedding too."""
    kept = []
    for recomputing in (False, True):
        model = layered(12)
        model.network.embed.requires_grad_(False)
        if recomputing:
            activation_checkpointing.install(model)
        batch = examples(1024)
        with LiveBytes() as live:
            weights = live.add(model.parameters())
            loss = model(batch).sum()
            kept.append(live.now - weights)
            loss.backward()
    inputs = 13 * 1024 * 8 * 4  # of each layer and of the head; beside them random states
    assert inputs <= kept[1] < 1.2 * inputs
    assert kept[1] < 0.2 * kept[0]


def test_live_bytes__counts_storages_once_and_until_they_are_freed() -> None:
    with LiveBytes() as live:
        a = torch.ones(100)
        b = a.view(10, 10)[2:]
        assert live.now == 400
        c = a + 1
        assert live.now == live.peak == 800
        del c
        assert (live.now, live.peak) == (400, 800)
        del a, b
        assert live.now == 0


def test_run__is_the_same_with_windows_and_clipping(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Eight examples at once, and recomputed in windows of two, with gradients clipped."""
    world = make_world("text_classification", request.getfixturevalue)
    curves = []
    for size, settings in ((8, {}), (2, {"accumulate": 4, "checkpoint_activations": True})):
        backbone, data = world()
        backbone.dropout, backbone.head_dropout, data.batch_size = 0.0, 0.0, size
        trainer = TrainerSettings(max_epochs=1, precision="64-true", log_every=1, gradient_clip=0.1, **settings)
        run = Run(backbone, data, FullFineTuning(1e-2), trainer, 3, "val/loss", tmp_path, plain=True)
        events: list[dict[str, Any]] = []
        search(run, events.append)
        assert ("forward" in vars(activation_checkpointing.modules_of(run.technique.model).popitem()[1])
                ) == bool(settings)
        curves.append([(event["step"], event["metrics"]["train/loss"], event["metrics"]["train/grad_norm"])
                       for event in events if "train/grad_norm" in event.get("metrics", {})])
    assert len(curves[0]) > 3
    assert min(norm for _, _, norm in curves[0]) > 0.1, "clipping acts"
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-8)


def test_plan__refuses_before_anything_runs(
    save: Callable[[str], Path], reviews: Path, tmp_path: Path, here: Any
) -> None:
    """Prefix tuning of a decoder adds to the keys and values of each layer."""
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump({
        "name": "small", "question": "?", "seeds": [0], "trainer": {"checkpoint_activations": True},
        "backbones": {"gpt2": {"class_path": "HuggingFace", "init_args": {"source": str(save("gpt2"))}}},
        "datasets": {"reviews": {"class_path": "TextClassification",
                                 "init_args": {"train": str(reviews), "max_length": 16}}},
        "techniques": {"prefix": "PrefixTuning"}}))
    code, _, errors = here("run", study, "--dry-run")
    assert code == 2
    assert "adds to the keys and values" in errors


def test_setting__leaves_the_hash_of_other_cells_alone() -> None:
    settings = asdict(TrainerSettings())
    before = {name: value for name, value in settings.items() if name != "checkpoint_activations"}
    assert cell_hash({"trainer": settings}) == cell_hash({"trainer": before})
    assert cell_hash({"trainer": settings | {"checkpoint_activations": True}}) != cell_hash({"trainer": before})
