"""Memory foretold without numbers is what real tensors take, and what arithmetic says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matrix import make_world

from ftlab.techniques.base import Optimization, Technique
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.l2sp import L2SP
from ftlab.techniques.lora import LoRA
from ftlab.training.memory_forecast import MemoryForecast, NotForetold, forecast, measure
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings


def made_run(request: pytest.FixtureRequest, world: str, technique: Technique, **settings: Any) -> Run:
    backbone, data = make_world(world, request.getfixturevalue)()
    data.load()
    data.connect(backbone, 0)
    return Run(backbone, data, technique, TrainerSettings(accelerator="cpu", **settings), 0, "val/loss", Path())


def foretold(request: pytest.FixtureRequest, world: str, technique: Technique, measured: bool = False,
             **settings: Any) -> MemoryForecast:
    return forecast(made_run(request, world, technique, **settings), measured)


MAKES: list[Callable[[], Technique]] = [
    FullFineTuning, LoRA, lambda: L2SP(FullFineTuning()), lambda: FullFineTuning(optim=Optimization("sgd"))]


@pytest.mark.parametrize(("world", "make", "settings"), [
    ("text_classification", MAKES[0], {}), ("text_classification", MAKES[1], {"accumulate": 2}),
    ("text_classification", MAKES[2], {}), ("text_classification", MAKES[3], {"precision": "bf16-mixed"}),
    ("causal_lm", MAKES[1], {"checkpoint_activations": True}), ("causal_lm", MAKES[0], {})])
def test_forecast__is_what_real_tensors_take(
    request: pytest.FixtureRequest, world: str, make: Callable[[], Technique], settings: dict[str, Any]
) -> None:
    fake = foretold(request, world, make(), **settings)
    real = foretold(request, world, make(), measured=True, **settings)
    assert (fake.weights, fake.gradients, fake.frozen) == (real.weights, real.gradients, real.frozen)
    assert fake.optimizer == pytest.approx(real.optimizer, rel=0.1)
    assert fake.peak == pytest.approx(real.peak, rel=0.1)


def test_forecast__of_optimizers_is_their_arithmetic(request: pytest.FixtureRequest) -> None:
    """Two numbers a weight for AdamW, one for SGD with momentum and for Lion; gradients one."""
    for name, numbers in (("adamw", 2), ("lion", 1)):
        known = foretold(request, "text_classification", FullFineTuning(optim=Optimization(name)))
        assert known.optimizer == pytest.approx(numbers * known.gradients, rel=0.01)
        assert known.peak >= known.weights + known.gradients + known.optimizer


def test_forecast__checkpointing_lowers_activations(request: pytest.FixtureRequest) -> None:
    plain = foretold(request, "text_classification", LoRA())
    recomputed = foretold(request, "text_classification", LoRA(), checkpoint_activations=True)
    assert recomputed.weights == plain.weights
    assert recomputed.activations < plain.activations


class Failing(FullFineTuning):
    """Asks for numbers, or fails."""

    def __init__(self, how: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.how = how

    def objective(self, model: Any, task: Any, batch: Any) -> torch.Tensor:
        loss = super().objective(model, task, batch)
        self.how(loss)
        return loss


@pytest.mark.parametrize(("how", "said"), [
    (torch.Tensor.item, r"it needs the weights \(DataDependentOutputException"),
    (lambda loss: loss.detach().numpy(), "it needs the weights"),
    (lambda loss: loss.detach() if loss > 0 else loss, "it needs the weights"),
    (lambda loss: vars(loss)["rank"], "an update of Failing cannot be computed without numbers: KeyError: 'rank'"),
    (lambda loss: loss @ torch.ones(3),
     "an update of Failing cannot be computed without numbers: RuntimeError: both arguments to")])
def test_forecast__says_why_there_is_none(
    request: pytest.FixtureRequest, how: Callable[[torch.Tensor], Any], said: str
) -> None:
    with pytest.raises(NotForetold, match=said) as caught:
        foretold(request, "text_classification", Failing(how))
    assert "\n" not in str(caught.value)


def test_measured__is_what_updates_take__beside_what_the_process_held(request: pytest.FixtureRequest) -> None:
    size = 256 * 2**20
    held = torch.ones(size, dtype=torch.uint8)
    run = made_run(request, "text_classification", Failing(lambda loss: torch.ones(size, dtype=torch.uint8)))
    assert size <= measure(run) < 1.3 * size
    known = foretold(request, "text_classification", FullFineTuning())
    assert known.process > held.nbytes and known.peak < 0.1 * size
