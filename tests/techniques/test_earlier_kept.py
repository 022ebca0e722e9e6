"""EWC and LwF, held to closed formulas; a sequence that forgets by construction, and does less with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from steps import Bench, assert_equal, state
from torch import Tensor, nn
from toy import Squares, batch, gradients, shift, toy

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.task_model import TaskModel
from ftlab.data.examples import Stream
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible
from ftlab.tasks.classification import Classification
from ftlab.techniques.base import Technique
from ftlab.techniques.ewc import EWC
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.techniques.lwf import LwF, divergence
from ftlab.techniques.replay import Replay

UNRENDERED = True


class Memory:
    """A stream of examples, as a data module would give it."""

    def __init__(self, inputs: Tensor, target: Tensor, size: int = 7) -> None:
        self.inputs, self.target, self.size, self.seed = inputs, target, size, 0
        self.task = SimpleNamespace(output_type="vector", one_class=True)
        self.beside = {"memory": Stream("", labelled=True)}
        self.splits = {"beside.memory": range(len(inputs))}

    def eval_loader(self, split: str) -> Iterator[dict[str, Any]]:
        assert split == "beside.memory"
        for positions in torch.arange(len(self.inputs)).flip(0).split(self.size):
            yield {"inputs": {"input": self.inputs[positions]}, "target": self.target[positions],
                   "index": positions}


def softmax_regression(width: int = 3, classes: int = 3) -> TaskModel:
    """A linear layer, which a stage has trained, and nothing before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Identity(), nn.Linear(width, classes)).double()
    model = TaskModel(network, [("0", ["0"])], head=["1"])
    model.head_trained = True
    return model


def begun(technique: Any, model: TaskModel, memory: Any = None) -> Any:
    if memory is not None:
        technique.prepare(memory)
    technique.bind(model, Squares())
    technique.begin_fit(technique.model, memory, 5)
    return technique


@pytest.fixture
def memory() -> Memory:
    inputs = torch.randn(11, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return Memory(inputs, torch.arange(11) % 3)


def test_ewc__fisher_of_softmax_regression_with_the_data_s_labels(memory: Memory) -> None:
    """(p - y)^2 x^2, the mean over examples: not the square of the mean gradient."""
    one = begun(EWC(FullFineTuning(), labels="data"), softmax_regression(), memory)
    layer, x = one.model.network[1], memory.inputs.numpy()
    p = softmax(x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy(), axis=1)
    off = np.square(p - np.eye(3)[memory.target.numpy()])
    np.testing.assert_allclose(one.fisher["network.1.weight"],
                               (off[:, :, None] * np.square(x)[:, None]).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(one.fisher["network.1.bias"], off.mean(axis=0), rtol=1e-12)


def test_ewc__fisher_of_softmax_regression_with_the_model_s_labels(memory: Memory) -> None:
    """Of many draws p (1 - p) x^2."""
    repeated = Memory(memory.inputs.repeat(900, 1), memory.target.repeat(900), 9000)
    one = begun(EWC(FullFineTuning(), labels="model", examples=100_000), softmax_regression(), repeated)
    layer, x = one.model.network[1], memory.inputs.numpy()
    p = softmax(x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy(), axis=1)
    expected = ((p * (1 - p))[:, :, None] * np.square(x)[:, None]).mean(axis=0)
    np.testing.assert_allclose(one.fisher["network.1.weight"], expected, rtol=0.06)


def test_ewc__fisher_of_features(memory: Memory) -> None:
    """Of tanh(W x + b) with normal noise: (1 - f^2)^2 x^2, whatever the head."""
    inputs = batch(11)["inputs"]["input"]
    repeated = Memory(inputs.repeat(400, 1), torch.zeros(4400, dtype=torch.long), 4400)
    one = begun(EWC(FullFineTuning(), examples=100_000), toy(), repeated)
    assert one.read == "features" and one.fisher.keys() == {"network.0.weight", "network.0.bias"}
    f = one.model.network[:2](inputs).detach().numpy()
    expected = (np.square(1 - f**2)[:, :, None] * np.square(inputs.numpy())[:, None]).mean(axis=0)
    np.testing.assert_allclose(one.fisher["network.0.weight"], expected, rtol=0.25)
    assert np.mean(one.fisher["network.0.weight"].numpy()) == pytest.approx(expected.mean(), rel=0.05)


def test_ewc__reads_some_examples_in_eval_mode_and_leaves_the_model(memory: Memory) -> None:
    model = softmax_regression()
    model.network[0] = nn.Dropout(0.5)
    before = state(model)
    ends = [begun(EWC(FullFineTuning(), labels="data", examples=4), model, memory).fisher
            for _ in range(2)]
    assert_equal(*ends)
    assert model.network[0].training and all(p.grad is None for p in model.parameters())
    assert_equal(state(model), before)
    whole = begun(EWC(FullFineTuning(), labels="data"), model, memory).fisher
    assert not torch.equal(whole["network.1.bias"], ends[0]["network.1.bias"])


def test_ewc__objective_and_gradient(memory: Memory) -> None:
    one = begun(EWC(FullFineTuning(), strength=3.0, labels="data"), softmax_regression(), memory)
    model, start = one.model, state(one.model)
    given = {"inputs": {"input": memory.inputs}, "index": torch.arange(11)}
    assert torch.equal(one.objective(model, one.task, given), one.task.loss(model(given), given))
    shift(model)
    loss = one.objective(model, one.task, given)
    without = one.task.loss(model(given), given)
    moved = {name: p.detach() - start[name] for name, p in model.named_parameters()}
    added = sum(1.5 * float((one.fisher[name] * moved[name] ** 2).sum()) for name in moved)
    assert float((loss - without).detach()) == pytest.approx(added, rel=1e-12)
    pulls, plain = gradients(model, loss), gradients(model, without)
    for name, distance in moved.items():
        torch.testing.assert_close(pulls[name] - plain[name], 3.0 * one.fisher[name] * distance,
                                   rtol=1e-10, atol=1e-12)


def distance_at_minimum(strength: float, memory: Memory) -> float:
    """How far the weights are from their start where the objective is least."""
    one = begun(EWC(FullFineTuning(), strength=strength, labels="data"), softmax_regression(), memory)
    model, start = one.model, state(one.model)
    given = {"inputs": {"input": memory.inputs}, "index": torch.arange(11)}
    solver = torch.optim.LBFGS(model.parameters(), max_iter=200, tolerance_grad=1e-13,
                               tolerance_change=0, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss: Tensor = one.objective(model, one.task, given)
        loss.backward()
        return loss

    solver.step(closure)
    return sum(float((p.detach() - start[n]).square().sum()) for n, p in model.named_parameters()) ** 0.5


def test_ewc__more_strength_keeps_the_weights(memory: Memory) -> None:
    """The distance falls as one over the strength."""
    some, less, least = (distance_at_minimum(strength, memory) for strength in (1e2, 1e4, 1e6))
    assert less < some / 50 and least < less / 90


@pytest.mark.parametrize("temperature", [1.0, 2.0, 7.0])
def test_lwf__divergence_is_scipy_s(temperature: float) -> None:
    old, new = np.random.default_rng(0).normal(size=(2, 9, 4))
    p, q = (softmax(x / temperature, axis=1) for x in (old, new))
    expected = temperature**2 * entropy(p, q, axis=1).mean()
    found = divergence(torch.tensor(old), torch.tensor(new), temperature)
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_lwf__divergence_of_equals_and_of_a_high_temperature() -> None:
    old, new = torch.randn(2, 9, 4, dtype=torch.float64)
    assert float(divergence(old, old, 2.0)) == 0
    centred = (old - new) - (old - new).mean(dim=1, keepdim=True)
    expected = float(centred.square().sum(dim=1).mean()) / (2 * 4)
    assert float(divergence(old, new, 1e4)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("trained", [True, False])
def test_lwf__compares_with_the_network_before_the_fit(trained: bool) -> None:
    """Outputs of a trained head; of a new one the features."""
    model, given = toy(), batch()
    model.head_trained = trained
    one = LwF(FullFineTuning(), strength=0.7)
    one.prepare(SimpleNamespace(task=SimpleNamespace(output_type="vector", one_class=True)))
    one = begun(one, model)

    def said() -> np.ndarray:
        return (model(given) if trained else model.watched(given).features).detach().numpy()

    then = said()
    assert torch.equal(one.objective(model, one.task, given), one.task.loss(model(given), given))
    shift(model)
    kept = state(model)
    p, q = softmax(then / 2, axis=1), softmax(said() / 2, axis=1)
    added = one.objective(model, one.task, given) - one.task.loss(model(given), given)
    assert float(added.detach()) == pytest.approx(0.7 * 4 * entropy(p, q, axis=1).mean(), rel=1e-10)
    assert_equal(state(model), kept)


@pytest.fixture(scope="module")
def texts(request: pytest.FixtureRequest) -> Bench:
    """With dropout, so that another draw would tell."""
    folder: Path = request.getfixturevalue("tiny_bert")
    table: Path = request.getfixturevalue("reviews")
    return Bench(lambda: (HuggingFace(str(folder), pooling="mean", dropout=0.2),
                          TextClassification(str(table), max_length=20, batch_size=8)))


@pytest.mark.parametrize("make", [lambda t: EWC(t, strength=0), lambda t: LwF(t, strength=0)])
def test_strength_0__is_plain_training_bit_for_bit(
    make: Callable[[Technique], Technique], texts: Bench
) -> None:
    plain, around = (state(texts.fit(texts.bound(one))) for one in
                     (FullFineTuning(lr=1e-2), make(FullFineTuning(lr=1e-2))))
    assert_equal(around, plain)


def domain(seed: int, second: bool, examples: int = 400) -> tuple[Tensor, Tensor]:
    """Classes shown by the first two inputs; in the second domain by the last two, and the first lie."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(examples) % 2
    sign = (2.0 * target - 1)[:, None].double()
    inputs = torch.randn(examples, 4, dtype=torch.float64, generator=generator)
    signals = torch.tensor([-1.0, -1, 2, 2] if second else [1.5, 1.5, 0, 0]).double()
    scale = torch.tensor([1.0, 1, 1, 1] if second else [1.0, 1, 0.1, 0.1]).double()
    return inputs * scale + sign * signals, target


def kept_of_first(wrap: Callable[[Technique], Technique], seed: int) -> float:
    """Accuracy on a first domain after a fit on it and one on a second."""
    task = Classification()
    task.fit(["a", "b"])
    model = softmax_regression(4, 2)
    first, second, unseen = domain(seed, False), domain(seed + 1, True), domain(seed + 2, False)
    memory = Memory(*first)
    for technique, (inputs, target) in ((FullFineTuning(lr=0.05), first), (wrap(FullFineTuning(lr=0.05)), second)):
        technique.prepare(memory)  # type: ignore[arg-type]  # all that is asked of a data module
        technique.bind(model, task).train()
        technique.begin_fit(model, memory, 100)  # type: ignore[arg-type]  # likewise
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        whole = {"inputs": {"input": inputs}, "target": target, "index": torch.arange(len(target)),
                 "beside": {"memory": next(memory.eval_loader("beside.memory"))}}
        for step in range(100):
            optimizer.zero_grad()
            technique.objective(model, task, whole).backward()
            optimizer.step()
            technique.after_step(model, step + 1)
    return float((model.network(unseen[0]).argmax(dim=1) == unseen[1]).double().mean())


def test_sequence_that_forgets_by_construction_does_so_less_with_each() -> None:
    """The first domain is lost to full fine-tuning, and each of the three keeps more, on every seed."""
    seeds = range(3)
    plain = [kept_of_first(lambda t: t, 10 * seed) for seed in seeds]
    assert max(plain) < 0.5
    for wrap in (lambda t: EWC(t, strength=100.0), lambda t: LwF(t), lambda t: Replay(t)):
        kept = [kept_of_first(wrap, 10 * seed) for seed in seeds]
        assert min(now - then for now, then in zip(kept, plain, strict=True)) > 0.05, (kept, plain)


def one_class(labelled: bool = True) -> Any:
    return SimpleNamespace(task=SimpleNamespace(output_type="vector", one_class=True),
                           beside={"memory": Stream("", labelled=labelled)})


@pytest.mark.parametrize(("technique", "data", "trained", "message"), [
    (EWC(FullFineTuning(), labels="data"), one_class(), False, "the head that would make them is new"),
    (EWC(FullFineTuning(), labels="data"), one_class(False), True, "which are not read"),
    (EWC(LinearProbe()), one_class(), False, "the head alone does"),
    (LwF(LinearProbe()), one_class(), False, "the head alone does")])
def test_makes_no_sense(technique: Any, data: Any, trained: bool, message: str) -> None:
    technique.prepare(data)
    model = toy()
    model.head_trained = trained
    with pytest.raises(Incompatible, match=message):
        technique.bind(model, Squares())


def test_makes_no_sense_for_the_task() -> None:
    numbers: Any = SimpleNamespace(task=SimpleNamespace(output_type="vector", one_class=False), beside={})
    with pytest.raises(Incompatible, match="EWC draws one class an example"):
        EWC(FullFineTuning(), labels="model").prepare(numbers)
    technique, model = LwF(FullFineTuning()), toy()
    technique.prepare(numbers)
    model.head_trained = True
    with pytest.raises(Incompatible, match="LwF compares probabilities"):
        technique.bind(model, Squares())


@pytest.mark.parametrize(("make", "message"), [
    (lambda t: EWC(t, strength=-1), "strength must be 0 or more, got -1"),
    (lambda t: EWC(t, examples=0), "examples must be at least 1, got 0"),
    (lambda t: EWC(t, labels="mine"), "labels must be data, model, features or null, got 'mine'"),
    (lambda t: LwF(t, strength=-1), "strength must be 0 or more, got -1"),
    (lambda t: LwF(t, temperature=0), "temperature must be above 0, got 0"),
])
def test_bad_values(make: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        make(FullFineTuning())
    assert str(caught.value) == message
