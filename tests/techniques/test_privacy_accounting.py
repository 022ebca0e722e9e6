"""Epsilon is what Opacus and closed forms say; what it cannot be counted for is refused."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm
from torch import nn

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.image import ImageClassification
from ftlab.data.image_augment import ImageAugment
from ftlab.data.poisson import Poisson, rate
from ftlab.data.sampling import Balanced, Natural, TrainSampler
from ftlab.data.splits import Split, Subset
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible, InputError
from ftlab.tasks.classification import Classification
from ftlab.tasks.losses.logit_adjusted import LogitAdjusted
from ftlab.tasks.losses.weighted_cross_entropy import WeightedCrossEntropy
from ftlab.techniques.base import Technique
from ftlab.techniques.differentially_private import DifferentiallyPrivate
from ftlab.techniques.ema import EMA
from ftlab.techniques.eva import EVA
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.l2sp import L2SP
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.techniques.lora import LoRA
from ftlab.techniques.privacy_accounting import Accountant, Steps, epsilon_of, noise_for
from ftlab.techniques.untuned import Untuned
from ftlab.training import batches
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
MANY, FEW = Steps(0.04, 2250, 1e-5), Steps(32 / 6920, 651, 1e-5)


@pytest.mark.parametrize(("noise", "steps", "accountant", "epsilon"), [
    (1.5, MANY, "rdp", 7.3291111714), (1.5, MANY, "prv", 6.7791),
    (1.0, FEW, "rdp", 1.0662936819), (1.0, FEW, "prv", 0.66289),
    (2.0, Steps(1.0, 1, 1e-5), "rdp", 2.1657), (2.0, Steps(1.0, 1, 1e-5), "prv", 2.0032),
])
def test_epsilon__is_the_known_one(noise: float, steps: Steps, accountant: Accountant,
                                   epsilon: float) -> None:
    assert epsilon_of(noise, steps, accountant) == pytest.approx(epsilon, rel=3e-5)


def test_epsilon__is_never_below_that_of_the_gaussian_mechanism() -> None:
    """Balle and Wang (2018): what one step on all examples reveals, exactly."""
    def delta(epsilon: float, noise: float) -> float:
        half, much = 1 / (2 * noise), epsilon * noise
        return float(norm.cdf(half - much) - math.exp(epsilon) * norm.cdf(-half - much))

    for noise in (1.0, 2.0, 4.0):
        exact = brentq(lambda epsilon, noise=noise: delta(epsilon, noise) - 1e-5, 0, 50)
        counted = [epsilon_of(noise, Steps(1.0, 1, 1e-5), accountant) for accountant in ("prv", "rdp")]
        assert exact < counted[0] < counted[1] < 1.15 * exact
        if noise == 2.0:
            assert exact == pytest.approx(1.9930914, rel=1e-6)


@pytest.mark.parametrize(("epsilon", "accountant", "noise"), [
    (1, "rdp", 1.030), (3, "rdp", 0.688), (8, "rdp", 0.502),
    (1, "prv", 0.864), (3, "prv", 0.634), (8, "prv", 0.473)])
def test_noise__is_the_known_one(epsilon: float, accountant: Accountant, noise: float) -> None:
    found = noise_for(epsilon, FEW, accountant)
    assert found == pytest.approx(noise, abs=5e-3)  # theirs are to 0.01 of epsilon
    assert 0.99 * epsilon < epsilon_of(found, FEW, accountant) <= epsilon


def test_epsilon__of_no_steps_is_zero() -> None:
    assert epsilon_of(1.0, Steps(0.1, 0, 1e-5), "rdp") == 0


def test_poisson__draws_each_example_by_itself() -> None:
    examples, size, epochs = 60, 4, 400
    plans = [Poisson().plan([None] * examples, size, 3, epoch) for epoch in range(epochs)]
    assert {len(plan) for plan in plans} == {15}
    drawn = [batch for plan in plans for batch in plan]
    counts = np.array([len(batch) for batch in drawn])
    q, steps = rate(examples, size), len(drawn)
    assert q == 4 / 60
    assert counts.mean() == pytest.approx(4, abs=4 * math.sqrt(4 * (1 - q) / steps))
    assert counts.var() == pytest.approx(examples * q * (1 - q), rel=4 * math.sqrt(2 / steps))
    assert (counts == 0).mean() == pytest.approx((1 - q) ** examples, rel=0.35)
    often = np.bincount([i for batch in drawn for i in batch], minlength=examples)
    assert np.abs(often / steps - q).max() < 4.5 * math.sqrt(q * (1 - q) / steps)
    # pairs meet as independent ones do
    both = sum(1 for batch in drawn if 0 in batch and 1 in batch)
    assert both == pytest.approx(steps * q * q, abs=4 * math.sqrt(steps * q * q))
    assert all(len(set(batch)) == len(batch) for batch in drawn)
    assert plans[0] == Poisson().plan([None] * examples, size, 3, 0) != plans[1]
    assert Poisson().plan([None] * 3, 5, 0, 0) == [[0, 1, 2]]


def test_poisson__has_as_many_steps_as_plain_training() -> None:
    for examples, size in ((60, 8), (64, 8), (5, 8)):
        plain = TrainSampler(Natural(), [None] * examples, 0)
        assert Poisson().batches(examples, size) == -(-len(plain) // size)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"epsilon": 1.0, "noise": 1.0}, "give epsilon or noise, not both"),
    ({"epsilon": 0.0}, "epsilon must be above 0 and at most 100, got 0"),
    ({"epsilon": 101.0}, "epsilon must be above 0 and at most 100, got 101"),
    ({"noise": -1.0}, "noise must be 0 or more, got -1"),
    ({"delta": 1.0}, "delta must be above 0 and below 1, got 1"),
    ({"clip": 0.0}, "clip must be above 0, got 0"),
    ({"accountant": "moments"}, "accountant is rdp or prv, got 'moments'"),
])
def test_arguments__are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DifferentiallyPrivate(LoRA(), **arguments)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: DifferentiallyPrivate(Untuned()), "trains nothing"),
    (lambda: DifferentiallyPrivate(DifferentiallyPrivate(LoRA())), "stands twice"),
    (lambda: L2SP(DifferentiallyPrivate(LoRA())), "makes no sense around Differentially"),
    (lambda: L2SP(DifferentiallyPrivate(LoRA())), "put DifferentiallyPrivate around L2SP"),
])
def test_order__is_checked(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
    assert EMA(DifferentiallyPrivate(L2SP(LoRA()))).sampling.varies
    assert EMA(DifferentiallyPrivate(LoRA())).own_clipping
    assert EMA(LoRA()).sampling is None and not EMA(LoRA()).own_clipping


@pytest.fixture
def planned(tiny_bert: Path, reviews: Path) -> Any:
    """What `ftlab check` does with a technique, data and settings."""
    def make(technique: Technique, settings: Any = None, **arguments: Any) -> Any:
        data: Any = TextClassification(str(reviews), max_length=16,
                                       **({"batch_size": 8} | arguments))
        backbone = HuggingFace(str(tiny_bert), pooling="mean")
        data.load()
        data.connect(backbone, 0)
        settings = TrainerSettings(**(settings or {}))
        data = batches.with_streams(data, technique, settings)
        technique.prepare(data)
        technique.bind(backbone.build(data.task, meta=True), data.task)
        batches.check_update(technique, data, settings)
        return data

    return make


@pytest.mark.parametrize(("technique", "arguments", "settings", "what", "how"), [
    ({"epsilon": 0.05, "delta": 1e-5}, {}, {}, "no noise gives epsilon 0.05 with batches of 8 of",
     "or take accountant: prv"),
    ({"epsilon": 1e-4, "accountant": "prv"}, {}, {}, "no noise gives epsilon 0.0001", "set epsilon above"),
    ({"delta": 0.1}, {}, {}, "delta 0.1 allows that one of the", "set delta below"),
    ({}, {"sampling": Balanced()}, {}, "draws training examples by Poisson, and the data set by Balanced",
     "leave the data set's sampling out"),
    ({}, {"task": Classification(loss=WeightedCrossEntropy()), "split": Split(validation=0.3, test=0.1),
          "subset": Subset(limit=31)}, {}, "reads how many examples each class has", "reads no counts"),
    ({}, {"task": Classification(loss=LogitAdjusted())}, {}, "reads how many examples each class has",
     "reads no counts"),
    ({}, {}, {"precision": "16-mixed"}, "takes gradients of each example", "bf16-mixed"),
    ({}, {}, {"accumulate": 2}, "takes all examples of an update in one batch, and accumulate: 2",
     "set trainer: {accumulate: 1}"),
    ({}, {}, {"devices": 2}, "devices: 2 would split them", "set trainer: {devices: 1}"),
])
def test_plan__is_refused(technique: dict[str, Any], arguments: dict[str, Any],
                          settings: dict[str, Any], what: str, how: str, planned: Any) -> None:
    with pytest.raises(InputError) as error:
        planned(DifferentiallyPrivate(LoRA(), **technique), settings, **arguments)
    assert what in error.value.what and how in error.value.mend
    assert "\n" not in error.value.what + error.value.mend


def test_plan__of_others_has_no_empty_batches(planned: Any) -> None:
    with pytest.raises(InputError, match="Poisson may give a batch without examples"):
        planned(LoRA(), sampling=Poisson())
    assert type(planned(LoRA()).sampling) is Natural
    private = DifferentiallyPrivate(LoRA(), epsilon=2.0)
    data = planned(EMA(private), {"max_epochs": 3})
    assert type(data.sampling) is Poisson
    count = len(data.splits["train"])
    steps = Steps(8 / count, 3 * -(-count // 8), count**-1.1)
    assert private.sigma == noise_for(2.0, steps, "rdp")


def test_training_examples__are_seen_by_noisy_steps_alone(planned: Any, tiny_bert: Path) -> None:
    private = DifferentiallyPrivate(EVA())
    data = planned(private)
    model = HuggingFace(str(tiny_bert), pooling="mean").build(data.task)
    made = DifferentiallyPrivate(EVA())
    made.prepare(data)
    made.bind(model, data.task)
    with pytest.raises(Incompatible, match="reads training examples by itself"):
        made.begin_fit(model, data, 5)
    assert len(data.splits["train"]) > 0, "the run's own data are as they were"
    hidden = data.without_training("so it is")
    assert hidden.splits["validation"] and "train" in hidden.splits
    with pytest.raises(Incompatible, match="so it is"):
        next(iter(hidden.train_dataloader()))


def test_batch_norms__that_train_are_refused(shapes: Path) -> None:
    data = ImageClassification(str(shapes), batch_size=4)

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

    class Whole(FullFineTuning):
        def adapt(self, model: Any) -> None:
            model.requires_grad_(True)

    class Frozen(FullFineTuning):
        def adapt(self, model: Any) -> None:
            model.requires_grad_(False)

    with pytest.raises(Incompatible, match=r"norm \(BatchNorm2d\) mixes the examples"):
        DifferentiallyPrivate(Whole()).adapt(Normed())  # type: ignore[arg-type]  # all that is read
    DifferentiallyPrivate(Frozen()).adapt(Normed())  # type: ignore[arg-type]  # all that is read
    mixed = ImageClassification(str(shapes), batch_size=4, augment=ImageAugment(mix="mixup"))
    assert mixed.mixes and not data.mixes
    mixed.load()
    with pytest.raises(Incompatible, match="mixes several examples in one") as error:
        DifferentiallyPrivate(LinearProbe()).prepare(mixed)
    assert error.value.mend == "set augment: {mix: none}"


def test_opacus__that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("opacus")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(InputError, match="which is not installed") as error:
        epsilon_of(1.2345, FEW, "rdp")
    assert error.value.mend == "pip install 'ftlab[privacy]'"


def test_wrappers_around__read_no_training_examples(planned: Any, tiny_bert: Path) -> None:
    """Or the model would show examples that no noise has covered."""
    from matrix import TECHNIQUES

    from ftlab.techniques.wrapper import Wrapper

    tried = 0
    for name, cls in TECHNIQUES.items():
        if not issubclass(cls, Wrapper) or cls is DifferentiallyPrivate:
            continue
        private = DifferentiallyPrivate(LoRA(), noise=1.0)
        try:
            technique = cls(technique=private)
        except ValueError:
            continue
        data = TextClassification(planned(LoRA()).sources["train"], max_length=16, batch_size=8)
        backbone = HuggingFace(str(tiny_bert), pooling="mean")
        data.load()
        data.connect(backbone, 0)
        private.prepare = private.begin_fit = lambda *given: None  # type: ignore[method-assign]
        private.examples = len(data.splits["train"])
        hidden = data.without_training(name)
        try:
            technique.prepare(hidden)
            model = technique.bind(backbone.build(data.task), data.task).model
            technique.begin_fit(model, hidden, 4)
            with torch.no_grad():
                technique.settle(model.eval(), hidden, lambda: 0.0)
        except Incompatible as error:
            assert "by itself" not in error.what, f"{name} reads training examples besides"
            continue
        tried += 1
    assert tried > 3
