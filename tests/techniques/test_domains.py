"""Wrappers that align two domains, held to closed formulas, loops and whole passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matrix import TECHNIQUES, along, make_world
from safetensors.torch import load_file
from torch.nn.modules.batchnorm import _BatchNorm

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.batches import pick
from ftlab.data.examples import Stream
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible
from ftlab.techniques.ada_bn import AdaBN
from ftlab.techniques.base import Technique
from ftlab.techniques.cdan import CDAN, certainty, outer
from ftlab.techniques.dan import DAN, discrepancy
from ftlab.techniques.dann import DANN
from ftlab.techniques.deep_coral import DeepCORAL
from ftlab.techniques.discriminative_lr import DiscriminativeLR
from ftlab.techniques.domain_adversary import DomainAdversary, reversal, reversed_gradient
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.l2sp import L2SP
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.techniques.mcc import MCC, confusion
from ftlab.techniques.model_soup import ModelSoup
from ftlab.techniques.wrapper import Wrapper
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
ADVERSARIES = [DANN, CDAN]
OF_TARGET = [cls for cls in TECHNIQUES.values() if issubclass(cls, Wrapper)
             and "target" in cls(technique=FullFineTuning()).streams]


def test_reversal__goes_from_nothing_to_all() -> None:
    assert reversal(0, 10) == 0
    assert reversal(1, 10) == pytest.approx(0.9999092, abs=5e-8)
    for p in (0.1, 0.37, 0.8):
        assert reversal(p, 10) == pytest.approx(2 / (1 + np.exp(-10 * p)) - 1, rel=1e-12)
    assert reversal(1, 0) == 0


def test_reversed_gradient__is_minus_the_factor_times_what_arrives() -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    arriving = torch.randn(3, 4, dtype=torch.float64)
    given = reversed_gradient(x, 0.3)
    assert torch.equal(given, x)
    given.backward(arriving)
    torch.testing.assert_close(x.grad, -0.3 * arriving, rtol=0, atol=0)


def test_outer__is_of_probabilities_and_features() -> None:
    features, p = torch.randn(5, 7), torch.rand(5, 3)
    made = outer(features, p)
    assert made.shape == (5, 3 * 7)
    for row in range(5):
        torch.testing.assert_close(made[row], torch.kron(p[row], features[row]))


def test_certainty__has_mean_one_and_counts_sure_examples_more() -> None:
    p = np.array([[1.0, 0.0], [0.5, 0.5], [0.9, 0.1]])
    entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=1)
    expected = 1 + np.exp(-entropy)
    weights = certainty(torch.tensor(p))
    assert float(weights.mean()) == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-12)
    assert weights[0] > weights[2] > weights[1]


def mk_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """A loop over pairs."""
    both = np.concatenate([x, y])
    scale = np.mean([[np.square(a - b).sum() for a in both] for b in both])

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([np.exp(-np.square(a - b).sum() / (2 * times * scale))
                              for times in (0.5, 1, 2)]))

    def within(rows: np.ndarray) -> float:
        return float(np.mean([kernel(a, b) for i, a in enumerate(rows)
                              for j, b in enumerate(rows) if i != j]))

    return within(x) + within(y) - 2 * float(np.mean([kernel(a, b) for a in x for b in y]))


def test_discrepancy__of_a_loop_over_pairs() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(9, 4)), generator.normal(size=(6, 4)) + 0.7
    found = float(discrepancy(torch.tensor(x), torch.tensor(y), (0.5, 1.0, 2.0)))
    assert found == pytest.approx(mk_mmd(x, y), rel=1e-10)
    alike = [float(discrepancy(torch.tensor(generator.normal(size=(8, 4))),
                               torch.tensor(generator.normal(size=(8, 4))), (0.5, 1.0, 2.0)))
             for _ in range(200)]
    assert min(alike) < 0  # unbiased
    assert abs(np.mean(alike)) < 3 * np.std(alike) / 200**0.5
    same = torch.zeros(4, 3, requires_grad=True)
    discrepancy(same, torch.zeros(4, 3), (1.0,)).backward()
    assert same.grad is not None
    assert same.grad.isfinite().all()


def run(technique: Technique, bert: Path, table: Path, folder: Path, stream: Stream | None = None,
        **settings: Any) -> tuple[Run, Mapping[str, float]]:
    folder.mkdir()
    data = TextClassification(str(table), max_length=16, batch_size=8,
                              beside={"target": stream or str(table)})
    made = Run(HuggingFace(str(bert), pooling="mean"), data, technique,
               TrainerSettings(max_epochs=2, **settings), 0, "val/loss", folder)
    return made, execute(made, lambda event: None)


@pytest.mark.parametrize("wrapper", [*ADVERSARIES, DAN])
def test_strength_0__is_plain_training_bit_for_bit(
    wrapper: Any, tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    plain, one = run(FullFineTuning(lr=1e-3), tiny_bert, reviews, tmp_path / "plain")
    around, two = run(wrapper(FullFineTuning(lr=1e-3), strength=0.0), tiny_bert, reviews,
                      tmp_path / "around")
    assert one["test/loss"] == two["test/loss"]
    weights, others = (each.technique.model.state_dict() for each in (plain, around))
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_discriminator__is_a_part_of_the_technique_alone(
    tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    """It trains, at its own rate, and neither the model, nor a checkpoint, nor a count has it."""
    plain, alone = run(FullFineTuning(lr=1e-3), tiny_bert, reviews, tmp_path / "plain")
    technique = DANN(FullFineTuning(lr=1e-3), hidden=12)
    made, metrics = run(technique, tiny_bert, reviews, tmp_path / "dann")
    assert technique.discriminator is not None
    own = {id(p) for p in technique.discriminator.parameters()}
    groups = technique.param_groups(technique.model)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert {rates[each] for each in own} == {1e-2}
    assert {rate for each, rate in rates.items() if each not in own} == {1e-3}
    moved = [not torch.equal(now, technique.start[name])
             for name, now in technique.discriminator.state_dict().items()]
    assert all(moved)
    assert technique.step == technique.steps
    width = 32
    assert metrics["cost/discriminator_parameters"] == (
        12 * (width + 1) + 12 * 13 + 4 * 12 + 12 + 1)
    assert metrics["cost/discriminator_parameters"] == sum(
        p.numel() for p in technique.discriminator.parameters())
    assert metrics["cost/trainable_parameters"] == alone["cost/trainable_parameters"]
    assert "cost/discriminator_parameters" not in alone
    kept = [load_file(each.directory / "checkpoint" / "delta.safetensors").keys()
            for each in (plain, made)]
    assert kept[0] == kept[1]
    assert technique.state_dict().keys() == plain.technique.state_dict().keys()


def bound(technique: Technique, request: pytest.FixtureRequest, world: str = "image_classification",
          size: int | None = None) -> tuple[Technique, Mapping[str, Any], Any]:
    backbone, data = make_world(world, request.getfixturevalue)()
    along(data, ["target"])
    if size:
        data.beside["target"] = Stream(data.sources["train"], batch_size=size)
    data.load()
    data.connect(backbone, seed=0)
    data = data.with_streams(["target"])
    technique.prepare(data)
    torch.manual_seed(0)
    technique.bind(backbone.build(data.task), data.task).train()
    return technique, next(iter(data.train_dataloader())), data


@pytest.mark.parametrize("wrapper", [*ADVERSARIES, DAN, DeepCORAL])
def test_objective__passes_domains_apart_and_takes_equal_halves(
    wrapper: Any, request: pytest.FixtureRequest
) -> None:
    technique, batch, data = bound(wrapper(FullFineTuning()), request, size=5)
    passed: list[int] = []
    technique.model.register_forward_pre_hook(
        lambda _, arguments: passed.append(len(arguments[0]["index"])))
    read: list[int] = []
    if isinstance(technique, DomainAdversary):
        assert technique.discriminator is not None
        technique.discriminator.register_forward_pre_hook(
            lambda _, arguments: read.append(len(arguments[0])))
    technique.objective(technique.model, data.task, batch).backward()
    assert passed == [8, 5]
    assert read == ([10] if isinstance(technique, DomainAdversary) else [])


def test_dann__turns_the_features_against_the_discriminator(request: pytest.FixtureRequest) -> None:
    """Half-way the backbone's gradient is that of the task minus the factor times the domain's."""
    def gradients(strength: float, step: int) -> torch.Tensor:
        technique, batch, data = bound(DANN(FullFineTuning(), strength=strength), request)
        technique.eval()
        technique.step, technique.steps = step, 100
        technique.objective(technique.model, data.task, batch).backward()
        names = [n for n, _ in technique.model.named_parameters()
                 if not technique.model.head.holds(n)]
        found = dict(technique.model.named_parameters())
        return torch.cat([found[n].grad.flatten() for n in names if found[n].grad is not None])

    task, start, end = gradients(0.0, 0), gradients(1.0, 0), gradients(1.0, 100)
    torch.testing.assert_close(task, start)
    half = gradients(1.0, 10)
    whole = (task - end) / reversal(1, 10)
    torch.testing.assert_close(task - half, reversal(0.1, 10) * whole, rtol=1e-3, atol=1e-6)
    assert whole.norm() > 1e-6


def scrambled(table: Path, path: Path) -> Path:
    """A source with the same texts and other labels."""
    rows = pd.read_csv(table, sep="\t" if table.suffix == ".tsv" else ",")
    label = rows.columns[-1] if "label" not in rows else "label"
    turned = list(reversed(rows[label].tolist()))
    assert turned != rows[label].tolist()
    rows[label] = turned
    rows.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("wrapper", [cls for cls in OF_TARGET if cls is not AdaBN])  # of images
def test_target_labels__change_nothing(wrapper: Any, labelled: bool, tiny_bert: Path, reviews: Path,
                                       tmp_path: Path) -> None:
    other = scrambled(reviews, tmp_path / "scrambled.csv")
    found = [run(wrapper(FullFineTuning(lr=1e-3)), tiny_bert, reviews, tmp_path / source.stem,
                 Stream(str(source), labelled=labelled)) for source in (reviews, other)]
    weights, others = (made.technique.model.state_dict() for made, _ in found)
    assert found[0][1]["test/loss"] == found[1][1]["test/loss"]
    assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("wrapper", OF_TARGET)
def test_target_labels__are_not_there(wrapper: Any, request: pytest.FixtureRequest) -> None:
    """No pass of a stream's examples has a target, and a task that wants it fails."""
    technique, batch, data = bound(wrapper(FullFineTuning()), request)
    passed: list[Any] = []
    technique.model.register_forward_pre_hook(lambda _, arguments: passed.append(arguments[0]))
    technique.objective(technique.model, data.task, batch)
    with torch.no_grad():
        technique.eval().settle(technique.model, data, lambda: 0.0)
    others = [each for each in passed if "target" not in each]
    assert len(passed) - len(others) == 1  # the batch itself
    assert others
    with pytest.raises(KeyError, match="target"):
        data.task.loss(technique.model(others[0]), others[0])


def norms_of(model: torch.nn.Module) -> dict[str, _BatchNorm]:
    return {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm)}


def whole(data: Any) -> dict[str, Any]:
    """All the stream's examples as one batch."""
    batches = list(data.eval_loader("beside.target"))
    return {"inputs": {name: torch.cat([batch["inputs"][name] for batch in batches])
                       for name in batches[0]["inputs"]}}


def test_ada_bn__has_the_moments_of_all_activations(request: pytest.FixtureRequest) -> None:
    technique, _, data = bound(AdaBN(FullFineTuning()), request)
    model = technique.eval().model
    before = {name: norm.running_mean.clone() for name, norm in norms_of(model).items()}
    with torch.no_grad():
        technique.settle(model, data, lambda: 0.0)
    read: dict[str, torch.Tensor] = {}
    for name, norm in norms_of(model).items():
        norm.register_forward_pre_hook(
            lambda _, arguments, name=name: read.__setitem__(name, arguments[0]))
    with torch.no_grad():
        model(whole(data))
    assert len(read) > 3
    assert read.keys() == before.keys()
    for name, norm in norms_of(model).items():
        values = read[name].transpose(0, 1).flatten(1).double()
        torch.testing.assert_close(norm.running_mean.double(), values.mean(1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var.double(), values.var(1, correction=0),
                                   rtol=1e-4, atol=1e-6)
        assert not torch.equal(norm.running_mean, before[name])


def test_ada_bn__is_torch_s_own_statistics_of_one_whole_batch(request: pytest.FixtureRequest) -> None:
    technique, _, data = bound(AdaBN(FullFineTuning()), request)
    model, batch = technique.eval().model, whole(data)
    again, _, _ = bound(FullFineTuning(), request)
    reference, sizes = again.eval().model, {}
    for name, norm in norms_of(reference).items():
        norm.momentum = 1.0
        norm.train()
        norm.register_forward_pre_hook(lambda _, arguments, name=name: sizes.__setitem__(
            name, arguments[0].numel() // arguments[0].shape[1]))
    with torch.no_grad():
        technique.settle(model, data, lambda: 0.0)
        reference(batch)
    for name, norm in norms_of(reference).items():
        ours = norms_of(model)[name]
        torch.testing.assert_close(ours.running_mean, norm.running_mean, rtol=1e-3, atol=1e-5)
        unbiased = sizes[name] / (sizes[name] - 1)
        torch.testing.assert_close(ours.running_var * unbiased, norm.running_var, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("part", [0.0, 0.25])
def test_ada_bn__mixes_by_its_part(part: float, request: pytest.FixtureRequest) -> None:
    technique, _, data = bound(AdaBN(FullFineTuning(), part=part), request)
    model = technique.eval().model
    first = next(iter(norms_of(model).values()))
    own = first.running_mean.clone(), first.running_var.clone()
    other, _, _ = bound(AdaBN(FullFineTuning()), request)
    with torch.no_grad():
        technique.settle(model, data, lambda: 0.0)
        other.eval().settle(other.model, data, lambda: 0.0)
    target = next(iter(norms_of(other.model).values()))
    for now, before, there in zip((first.running_mean, first.running_var), own,
                                  (target.running_mean, target.running_var), strict=True):
        torch.testing.assert_close(now, (1 - part) * before + part * there)
        assert part or torch.equal(now, before)


def test_ada_bn__of_a_network_without_batch_norms(request: pytest.FixtureRequest) -> None:
    with pytest.raises(Incompatible, match="statistics of batch norms, and this network has none"):
        bound(AdaBN(FullFineTuning()), request, "text_classification")


@pytest.mark.parametrize("around", [lambda t: DiscriminativeLR(t, decay=0.5), lambda t: L2SP(t)])
def test_what_trains_beside_the_model__keeps_its_rate_and_decay(
    around: Callable[[Technique], Technique], request: pytest.FixtureRequest
) -> None:
    inner = DANN(FullFineTuning(lr=1e-3))
    technique, _, _ = bound(around(inner), request)
    assert inner.discriminator is not None
    own = {id(p): p for p in inner.discriminator.parameters()}
    groups = [(group, p) for group in technique.param_groups(technique.model)
              for p in group["params"] if id(p) in own]
    assert len(groups) == len(own)
    for group, parameter in groups:
        assert group["lr"] == pytest.approx(1e-2)
        assert (group["weight_decay"] > 0) == (parameter.ndim > 1)


def test_adversary__begins_anew_with_a_fit_within_the_fit(
    tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    technique = DANN(FullFineTuning(lr=1e-3), hidden=8)
    begun: list[tuple[int, bool]] = []
    objective = technique.objective

    def look(model: Any, task: Any, batch: Any) -> torch.Tensor:
        state = technique.discriminator.state_dict()
        begun.append((technique.step, all(torch.equal(state[n], v)
                                          for n, v in technique.start.items())))
        return objective(model, task, batch)

    object.__setattr__(technique, "objective", look)
    run(ModelSoup(technique, members=2), tiny_bert, reviews, tmp_path / "soup")
    assert [step for step, fresh in begun if fresh] == [0, 0]
    assert max(step for step, _ in begun) <= technique.steps


@pytest.mark.parametrize(("make", "message"), [
    (lambda: DANN(FullFineTuning(), strength=-1), "strength must be 0 or more, got -1"),
    (lambda: CDAN(FullFineTuning(), gamma=-1), "gamma must be 0 or more, got -1"),
    (lambda: DANN(FullFineTuning(), hidden=0), "hidden must be at least 1, got 0"),
    (lambda: DANN(FullFineTuning(), ratio=0), "ratio must be above 0, got 0"),
    (lambda: DAN(FullFineTuning(), bandwidths=()), r"numbers above 0, one at least, got \[\]"),
    (lambda: DAN(FullFineTuning(), strength=-1), "strength must be 0 or more, got -1"),
    (lambda: AdaBN(FullFineTuning(), part=1.5), r"part must be from 0 to 1, got 1\.5"),
])
def test_bad_values(make: Callable[[], Technique], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("wrapper", [*ADVERSARIES, DAN])
def test_head_alone__is_refused(wrapper: Any, request: pytest.FixtureRequest) -> None:
    with pytest.raises(Incompatible, match="here the head alone does"):
        bound(wrapper(LinearProbe(solver=None)), request)


@pytest.mark.parametrize("wrapper", [CDAN, MCC])
def test_no_classes__is_refused(wrapper: Any, request: pytest.FixtureRequest) -> None:
    with pytest.raises(Incompatible, match="wants one class of several for each example"):
        bound(wrapper(FullFineTuning()), request, "regression")


@pytest.mark.parametrize("wrapper", [*ADVERSARIES, DAN, DeepCORAL, MCC])
def test_batches_of_one_example__are_refused(wrapper: Any, reviews: Path) -> None:
    def prepared(size: int, of_stream: int | None = None) -> Technique:
        data = TextClassification(str(reviews), max_length=16, batch_size=size,
                                  beside={"target": Stream(str(reviews), batch_size=of_stream)})
        data.load()
        technique = wrapper(FullFineTuning())
        technique.prepare(data)
        return technique

    own = "a training batch has 1" if wrapper is not MCC else "the stream 'target' gives a batch 1"
    with pytest.raises(Incompatible, match=f"{wrapper.__name__} compares the examples .* {own}"):
        prepared(1)
    with pytest.raises(Incompatible, match="the stream 'target' gives a batch 1") as caught:
        prepared(8, of_stream=1)
    assert caught.value.mend == "set beside: {target: {batch_size: 8}}"
    prepared(2)
    if wrapper is MCC:  # which compares the stream's examples alone
        prepared(1, of_stream=2)


def test_class_confusion__of_one_example_says_nothing() -> None:
    for logits in torch.randn(5, 1, 4, dtype=torch.float64):
        assert float(confusion(logits)) == pytest.approx(3 / 4, rel=1e-12)


@pytest.mark.parametrize("wrapper", [*ADVERSARIES, DAN, DeepCORAL, MCC])
def test_last_batch_of_one_example__trains(wrapper: Any, request: pytest.FixtureRequest) -> None:
    technique, batch, data = bound(wrapper(FullFineTuning()), request, "text_classification")
    lone = {**pick(batch, [0]), "beside": batch["beside"]}
    technique.eval()  # without dropout, so that a second pass gives the same
    loss = technique.objective(technique.model, data.task, lone)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in technique.model.parameters() if p.grad is not None)
    plain = data.task.loss(technique.model(lone), lone)
    # of one example there is no covariance and no pair: nothing is added
    assert torch.equal(loss, plain) == (wrapper in (DAN, DeepCORAL))
