"""Wrappers that add to the loss or change where it is computed, held to outside formulas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from steps import Bench, assert_equal, state
from torch import nn
from toy import Squares, batch, gradients, shift, toy
from transformers.pytorch_utils import Conv1D

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.sampling import PKSampling
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible, InputError
from ftlab.techniques.base import Optimization, Technique
from ftlab.techniques.bitfit import BitFit
from ftlab.techniques.bss import BSS, smallest
from ftlab.techniques.delta import DELTA, distance
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.l2sp import L2SP
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.techniques.mixout import Mixout, _unit_axis
from ftlab.techniques.r3f import R3F
from ftlab.techniques.sam import SAM
from ftlab.training import batches
from ftlab.training.costs import flops
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
BODY, HEAD = "network.0.weight", "network.2.weight"
DECAYED = FullFineTuning(lr=1e-2, optim=Optimization(weight_decay=0.1))
AT_REST: list[Callable[[], Technique]] = [
    lambda: L2SP(DECAYED, alpha=0, beta=0), lambda: Mixout(DECAYED, p=0),
    lambda: SAM(DECAYED, rho=0), lambda: R3F(DECAYED, strength=0),
    lambda: BSS(DECAYED, strength=0), lambda: DELTA(DECAYED, strength=0)]


@pytest.fixture(scope="module")
def texts(request: pytest.FixtureRequest) -> Bench:
    """With dropout, so that another draw would tell."""
    folder: Path = request.getfixturevalue("tiny_bert")
    table: Path = request.getfixturevalue("reviews")
    return Bench(lambda: (HuggingFace(str(folder), pooling="mean", dropout=0.2),
                          TextClassification(str(table), max_length=20, batch_size=8)))


@pytest.fixture(scope="module")
def plain(texts: Bench) -> dict[str, torch.Tensor]:
    return state(texts.fit(texts.bound(DECAYED)))


@pytest.mark.parametrize("make", AT_REST)
def test_strength_0__is_plain_training_bit_for_bit(make: Any, texts: Bench, plain: Any) -> None:
    assert_equal(state(texts.fit(texts.bound(make()))), plain)


def begun(technique: Technique) -> Any:
    """Attached to the toy, at the start of a fit."""
    technique.bind(toy(), Squares())
    technique.begin_fit(technique.model, None, 5)
    return technique


def test_l2sp__gradient() -> None:
    one = begun(L2SP(FullFineTuning(), alpha=0.3, beta=0.7))
    model, start = one.model, state(one.model)
    shift(model)
    with_it = gradients(model, one.objective(model, one.task, batch()))
    without = gradients(model, one.task.loss(model(batch()), batch()))
    for name, weight in model.named_parameters():
        pull = 0.7 * weight if name.startswith("network.2") else 0.3 * (weight - start[name])
        torch.testing.assert_close(with_it[name] - without[name], pull, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("alpha", "beta", "decayed"), [
    (0.1, 0.1, set()), (0.1, 0, {HEAD}), (0, 0.1, {BODY}), (0, 0, {BODY, HEAD})])
def test_l2sp__takes_the_place_of_weight_decay(alpha: float, beta: float, decayed: set) -> None:
    one = begun(L2SP(DECAYED, alpha, beta))
    names = {id(p): name for name, p in one.model.named_parameters()}
    groups = one.param_groups(one.model)
    assert {names[id(p)] for g in groups if g["weight_decay"] for p in g["params"]} == decayed
    assert sorted(names[id(p)] for g in groups for p in g["params"]) == sorted(names.values())


def test_mixout__loss_and_gradient() -> None:
    p = 0.6
    one = begun(Mixout(FullFineTuning(), p=p))
    model, start = one.model, state(one.model)
    shift(model)
    torch.manual_seed(5)
    loss = one.objective(model, one.task, batch())
    found = gradients(model, loss)
    torch.manual_seed(5)
    kept = torch.empty(1, 5, dtype=torch.float64).bernoulli_(1 - p)  # of each input unit
    assert 0 < kept.sum() < kept.numel()
    now = {name: value.detach().clone().requires_grad_() for name, value in state(model).items()}
    mixed = (start[BODY] + kept * (now[BODY] - start[BODY]) / (1 - p)).detach().requires_grad_()
    hidden = nn.functional.linear(batch()["inputs"]["input"], mixed, now["network.0.bias"]).tanh()
    outputs = nn.functional.linear(hidden, now[HEAD], now["network.2.bias"])
    expected = one.task.loss(outputs, {})
    expected.backward()
    assert torch.equal(loss.detach(), expected.detach())
    assert torch.equal(found[BODY], mixed.grad * kept / (1 - p))
    assert torch.equal(found[HEAD], now[HEAD].grad)
    # the model keeps its own weights, and validation computes with them
    assert_equal(state(model), {name: value.detach() for name, value in now.items()})


def test_mixout__draws_by_the_input_units_of_each_kind_of_layer() -> None:
    layers = {"linear": nn.Linear(4, 6), "conv": nn.Conv2d(4, 6, 3), "depthwise": nn.Conv2d(4, 4, 3, groups=4),
              "grouped": nn.Conv2d(4, 6, 3, groups=2), "transposed": nn.ConvTranspose2d(4, 6, 3),
              "embedding": nn.Embedding(9, 4), "conv1d": Conv1D(6, 4)}
    axes = {name: _unit_axis(nn.ModuleDict(layers), f"{name}.weight") for name in layers}  # type: ignore[arg-type]  # has submodules
    assert axes == {"linear": 1, "conv": 1, "depthwise": 0, "grouped": None, "transposed": 0,
                    "embedding": 0, "conv1d": 0}
    technique = Mixout(FullFineTuning(), p=0.5)
    for axis, count in ((0, 5), (1, 7), (None, 35)):
        torch.manual_seed(0)
        kept = technique._mixed(torch.ones(5, 7), torch.zeros(5, 7), axis)
        rows = {0: kept, 1: kept.T, None: kept.reshape(-1, 1)}[axis]
        assert len(rows) == count and all(len({*row.tolist()}) == 1 for row in rows)
        assert set(kept.flatten().tolist()) == {0.0, 2.0}


def test_bss__is_the_smallest_singular_values() -> None:
    one = begun(BSS(FullFineTuning(), strength=0.5, k=2))
    model, given = one.model, batch(6)
    features = model.watched(given).features.detach().numpy()
    values = np.linalg.svd(features, compute_uv=False)
    added = one.objective(model, one.task, given) - one.task.loss(model(given), given)
    assert float(added.detach()) == pytest.approx(0.5 * (values[-2:] ** 2).sum(), rel=1e-10)
    few = batch(2)
    assert one.objective(model, one.task, few) == one.task.loss(model(few), few)


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (1, 5)])
def test_bss__gradient(shape: tuple[int, int]) -> None:
    features = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    smallest(features, 1).backward()
    u, s, vt = np.linalg.svd(features.detach().numpy(), full_matrices=False)
    np.testing.assert_allclose(features.grad, 2 * s[-1] * np.outer(u[:, -1], vt[-1]), atol=1e-10)


def test_delta__is_the_distance_from_the_start() -> None:
    one = begun(DELTA(FullFineTuning(), strength=0.4))
    assert one.watched == ["0"]
    model, given = one.model, batch()
    before = model.network[0](given["inputs"]["input"]).detach()
    assert torch.equal(one.objective(model, one.task, given).detach(),
                       one.task.loss(model(given), given).detach())
    shift(model)
    kept = state(model)
    after = model.network[0](given["inputs"]["input"])
    expected = one.task.loss(model(given), given) + 0.2 * ((after - before) ** 2).sum() / 6
    loss = one.objective(model, one.task, given)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    found, wanted = gradients(model, loss), gradients(model, expected)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-12, atol=1e-12)
    assert_equal(state(model), kept)


def test_delta__distance_of_images_and_texts() -> None:
    some, others = torch.randn(2, 4, 3, 5, 6).double()
    by_hand = sum(float(((some[b, c] - others[b, c]) ** 2).sum()) for b in range(4)
                  for c in range(3)) / (5 * 6) / 4
    assert float(distance(some, others)) == pytest.approx(by_hand, rel=1e-5)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    some, others = torch.randn(2, 2, 3, 4).double()
    squares = ((some - others) ** 2).sum(dim=2)
    by_hand = (float(squares[0, :2].mean()) + float(squares[1, 0])) / 2
    assert float(distance(some, others, mask)) == pytest.approx(by_hand, rel=1e-5)
    assert float(distance(some, others)) == pytest.approx(float(squares.mean()), rel=1e-5)


def test_r3f__is_the_divergence_under_noise(texts: Bench) -> None:
    one = texts.bound(R3F(FullFineTuning(), strength=2.0, eps=0.3)).eval()
    model, given = one.model, texts.batches[0]
    torch.manual_seed(6)
    added = one.objective(model, one.task, given) - one.task.loss(model(given), given)
    torch.manual_seed(6)
    table = model.trunk.get_input_embeddings()
    noise = torch.empty_like(table(given["inputs"]["input_ids"])).uniform_(-0.3, 0.3)
    hook = table.register_forward_hook(lambda module, inputs, output: output + noise)
    noised = model(given)
    hook.remove()
    p, q = (softmax(x.detach().double().numpy(), axis=1) for x in (model(given), noised))
    expected = 2.0 * (entropy(p, q, axis=1) + entropy(q, p, axis=1)).mean()
    assert expected > 1e-4
    assert float(added.detach()) == pytest.approx(expected, rel=1e-3)

    still = texts.bound(R3F(FullFineTuning(), eps=0)).eval()
    assert still.objective(still.model, one.task, given) == one.task.loss(
        still.model(given), given)


def test_r3f__refuses_half_precision(texts: Bench) -> None:
    technique = R3F(FullFineTuning())
    with pytest.raises(Incompatible, match="swallows noise"):
        texts.bound(technique, texts.model(technique).to(torch.bfloat16))
    technique = texts.bound(R3F(FullFineTuning()))
    with pytest.raises(Incompatible, match="swallows"), torch.autocast("cpu", torch.bfloat16):
        technique.objective(technique.model, technique.task, texts.batches[0])


def test_sam__is_its_closed_form() -> None:
    """Gradient descent on w'Aw / 2: the gradient at w + rho Aw / |Aw| is A times that."""
    rho, rate = 0.2, 0.1
    one = SAM(FullFineTuning(), rho=rho)
    one.bind(toy(), Squares())
    model, given = one.model, batch()
    network = model.network
    network[1] = nn.Identity()
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(4, 5))
        network[0].bias.zero_()
    network[0].requires_grad_(False)
    inputs = given["inputs"]["input"][:, :4].numpy()
    inputs = np.hstack([inputs, np.ones((6, 1))])
    matrix = inputs.T @ inputs / 6
    w = np.hstack([network[2].weight.detach(), network[2].bias.detach()[:, None]]).T  # (5, 3)
    optimizer = torch.optim.SGD(network[2].parameters(), lr=rate)
    for _ in range(20):
        loss = one.objective(model, one.task, given)
        assert float(loss.detach()) == pytest.approx(np.trace(w.T @ matrix @ w) / 2, rel=1e-10)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        g = matrix @ w
        w = w - rate * matrix @ (w + rho * g / np.linalg.norm(g))
        np.testing.assert_allclose(network[2].weight.detach().T, w[:4], rtol=1e-9)
        np.testing.assert_allclose(network[2].bias.detach(), w[4], rtol=1e-9)


def test_sam__draws_once_and_keeps_the_first_statistics(texts: Bench) -> None:
    ends = []
    for technique in (FullFineTuning(), SAM(FullFineTuning(), rho=0.5)):
        one = texts.bound(technique)
        torch.manual_seed(7)
        loss = one.objective(one.model, one.task, texts.batches[0])
        ends.append((float(loss.detach()), torch.get_rng_state()))
    assert ends[0][0] == ends[1][0]
    assert torch.equal(ends[0][1], ends[1][1])

    moved = []
    for technique in (FullFineTuning(), SAM(FullFineTuning(), rho=0.5)):
        model = toy()
        model.network[1] = nn.BatchNorm1d(4).double()
        technique.bind(model, Squares()).train()
        technique.objective(model, technique.task, batch()).backward()
        moved.append(state(model))
    assert_equal(*moved)
    assert moved[0]["network.1.running_mean"].any()


@pytest.mark.parametrize("technique", [SAM(FullFineTuning()), L2SP(BSS(FullFineTuning()))])
def test_update_of_one_batch(technique: Technique) -> None:
    data = TextClassification("texts.csv")
    batches.check_update(technique, data, TrainerSettings())
    with pytest.raises(InputError, match="in one batch, and accumulate: 2 would split them"):
        batches.check_update(technique, data, TrainerSettings(accumulate=2))
    with pytest.raises(InputError, match=r"PKSampling takes .* and devices: 2 would split them"):
        batches.check_update(FullFineTuning(), TextClassification("texts.csv", sampling=PKSampling()),
                             TrainerSettings(devices=2))


def test_flops__are_the_objective_s(texts: Bench) -> None:
    plain = flops(texts.bound(FullFineTuning()), texts.batches[0])
    twice = flops(texts.bound(SAM(FullFineTuning())), texts.batches[0])
    assert twice["cost/train_flops"] == 2 * plain["cost/train_flops"]
    assert twice["cost/inference_flops"] == plain["cost/inference_flops"]


@pytest.mark.parametrize("make", [lambda t: Mixout(t), lambda t: BSS(t), lambda t: DELTA(t)])
def test_head_alone__is_refused(make: Any) -> None:
    with pytest.raises(Incompatible, match="the head alone does"):
        make(LinearProbe()).bind(toy(), Squares())


def test_mixout__of_biases_alone_has_no_matrix() -> None:
    with pytest.raises(Incompatible, match="matrices"):
        Mixout(BitFit()).bind(toy(), Squares())


def test_delta__refuses_a_block_that_is_not_there() -> None:
    with pytest.raises(Incompatible, match="there is no block 7"):
        DELTA(FullFineTuning(), blocks=["7"]).bind(toy(), Squares())


@pytest.mark.parametrize(("make", "message"), [
    (lambda t: L2SP(t, alpha=-1), "alpha must be 0 or more, got -1"),
    (lambda t: L2SP(t, beta=-1), "beta must be 0 or more, got -1"),
    (lambda t: Mixout(t, p=1), "p is a probability from 0 to below 1, got 1"),
    (lambda t: SAM(t, rho=-1), "rho must be 0 or more, got -1"),
    (lambda t: R3F(t, strength=-1), "strength must be 0 or more, got -1"),
    (lambda t: R3F(t, eps=-1), "eps must be 0 or more, got -1"),
    (lambda t: R3F(t, noise="pink"), "noise is uniform or normal, got 'pink'"),
    (lambda t: BSS(t, strength=-1), "strength must be 0 or more, got -1"),
    (lambda t: BSS(t, k=0), "k must be at least 1, got 0"),
    (lambda t: DELTA(t, strength=-1), "strength must be 0 or more, got -1"),
    (lambda t: R3F(SAM(t)), ("R3F makes no sense around SAM, which computes the objective at "
                            "other weights: put SAM around R3F")),
    (lambda t: SAM(L2SP(SAM(t))), "SAM stands twice around the same technique: leave one out"),
])
def test_bad_values(make: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        make(FullFineTuning())
    assert str(caught.value) == message
