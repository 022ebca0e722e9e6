"""The head moves at its own rate, all else at the technique's, through whatever lies around."""

from pathlib import Path

import pytest
import torch
from matrix import make_world
from torch import Tensor

from ftlab.errors import Incompatible
from ftlab.techniques.base import Optimization, Technique
from ftlab.techniques.bitfit import BitFit
from ftlab.techniques.discriminative_lr import DiscriminativeLR
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.head_lr import HeadLR
from ftlab.techniques.lora_plus import LoRAPlus
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
SGD = Optimization("sgd", weight_decay=0.0)


@pytest.mark.parametrize("kind", ["text_classification", "image_classification"])
def test_first_step__is_the_gradient_times_two_rates(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Two runs that differ in the head's rate alone: the backbone's first step is the same."""
    def fitted(name: str, technique: Technique) -> dict[str, Tensor]:
        backbone, data = make_world(kind, request.getfixturevalue)()
        data.batch_size = 1000  # one step
        (tmp_path / name).mkdir()
        run = Run(backbone, data, technique, TrainerSettings(max_epochs=1), 7, "val/loss", tmp_path / name)
        execute(run, lambda event: None)
        model = run.technique.model
        head = {id(parameter) for parameter in model.head.parameters()}
        return {("head " if id(p) in head else "") + key: p.detach().clone()
                for key, p in model.named_parameters() if p.requires_grad}

    start = fitted("start", HeadLR(BitFit(1e-9, SGD), 1e-9))
    slow = fitted("slow", HeadLR(BitFit(1e-2, SGD), 1e-2))
    fast = fitted("fast", HeadLR(BitFit(1e-2, SGD), 1e-1))
    assert 0 < sum(key.startswith("head ") for key in start) < len(start)
    for key in start:
        times = 10 if key.startswith("head ") else 1
        torch.testing.assert_close(fast[key] - start[key], (slow[key] - start[key]) * times,
                                   rtol=1e-2, atol=1e-6)


def test_groups__keep_their_own_ratios(request: pytest.FixtureRequest) -> None:
    backbone, data = make_world("text_classification", request.getfixturevalue)()
    data.load()
    model = backbone.build(data.task)
    head = {id(p) for p in model.head.parameters()}
    technique = DiscriminativeLR(HeadLR(LoRAPlus(lr=1e-3), 5e-2), 0.5)
    technique.adapt(model)
    groups = technique.param_groups(model)
    assert {g["lr"] for g in groups if any(id(p) in head for p in g["params"])} == {5e-2}
    plain = DiscriminativeLR(LoRAPlus(lr=1e-3), 0.5).param_groups(model)
    rates = {id(p): g["lr"] for g in plain for p in g["params"]}
    assert {id(p): g["lr"] for g in groups for p in g["params"] if id(p) not in head} == {
        key: rate for key, rate in rates.items() if key not in head}


def test_head__that_does_not_train_is_refused(request: pytest.FixtureRequest) -> None:
    backbone, data = make_world("causal_lm", request.getfixturevalue)()
    data.load()
    with pytest.raises(Incompatible, match="no head trains here"):
        HeadLR(FullFineTuning()).adapt(backbone.build(data.task))
