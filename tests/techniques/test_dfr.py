"""DFR is its authors' procedure with scikit-learn's solver, and helps the group that a shortcut fails."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matrix import make_world
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from steps import Bench
from torch import Tensor, nn

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.text import TextClassification
from ftlab.errors import GuardFailed, Incompatible
from ftlab.techniques import l1_logistic as solver
from ftlab.techniques.dfr import DFR, _Heads
from ftlab.techniques.features import Features
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.group_draws import balanced, halves, worst_accuracy
from ftlab.techniques.l1_logistic import l1_logistic
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings


def rows_of(classes: int, count: int = 60, width: int = 12) -> tuple[Tensor, Tensor]:
    """Features with a column of ones, of which three tell the classes apart."""
    rng = np.random.default_rng(classes)
    rows = rng.normal(size=(count, width)) + rng.normal(size=(count, 1))
    target = (rows[:, :3] @ rng.normal(size=(3, classes)) + rng.normal(size=(count, classes))).argmax(1)
    return torch.tensor(np.c_[rows, np.ones(count)]), torch.tensor(target)


def objective(rows: Tensor, target: Tensor, weight: Tensor, C: float) -> float:  # noqa: N803
    losses = nn.functional.cross_entropy(rows @ weight.T, target, reduction="sum")
    return float(C * losses + weight.abs().sum())


@pytest.mark.parametrize("C", [1.0, 0.3, 0.1])
def test_solver__is_the_authors_liblinear(C: float) -> None:  # noqa: N803
    rows, target = rows_of(2)
    weight = l1_logistic(rows, target, 2, C)
    theirs = LogisticRegression(l1_ratio=1.0, C=C, solver="liblinear", tol=1e-10, max_iter=10**5,
                                random_state=0).fit(rows[:, :-1], target)
    one = np.append(theirs.coef_[0], theirs.intercept_)
    np.testing.assert_allclose(weight[1] - weight[0], one, atol=2e-4)
    np.testing.assert_allclose(weight[1], -weight[0], atol=1e-12)
    reference = torch.tensor(np.stack([-one / 2, one / 2]))
    assert objective(rows, target, weight, C) <= objective(rows, target, reference, C) * (1 + 1e-6)
    assert bool(np.any(one)) and not np.all(one)


@pytest.mark.parametrize("C", [1.0, 0.1])
def test_solver__is_scikit_learn_s_of_three_classes(C: float) -> None:  # noqa: N803
    rows, target = rows_of(3)
    weight = l1_logistic(rows, target, 3, C)
    theirs = LogisticRegression(l1_ratio=1.0, C=C, solver="saga", tol=1e-9, max_iter=10**5,
                                fit_intercept=False, random_state=0).fit(rows, target)
    np.testing.assert_allclose(weight, theirs.coef_, atol=1e-3)
    reference = objective(rows, target, torch.tensor(theirs.coef_), C)
    assert objective(rows, target, weight, C) == pytest.approx(reference, rel=1e-6)


@pytest.mark.parametrize("start", [None, torch.ones(4, 13, dtype=torch.float64)])
@pytest.mark.parametrize("C", [100.0, 1.0, 0.01])
def test_solver__leaves_no_subgradient(C: float, start: Tensor | None) -> None:  # noqa: N803
    """Also with more features than rows, a class without rows, or classes that are told apart wholly."""
    for count in (8, 60):
        rows, target = rows_of(3, count)
        weight = l1_logistic(rows, target, 4, C, start)
        truth = nn.functional.one_hot(target, 4).double()
        gradient = C * ((rows @ weight.T).softmax(dim=1) - truth).T @ rows
        used = weight != 0
        assert float((gradient[~used].abs() - 1).clamp(min=0).max()) <= 1e-3
        assert not used.any() or float((gradient + weight.sign())[used].abs().max()) <= 1e-3


def test_solver__that_does_not_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "MOST", 3)
    with pytest.raises(GuardFailed, match=r"did not end within 3 steps \(C 10\)"):
        l1_logistic(*rows_of(2), 2, 10.0)


def test_draws__are_balanced_and_apart() -> None:
    codes = torch.tensor([0] * 9 + [2] * 4 + [5] * 6)[torch.randperm(19)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        one, other = halves(codes, generator)
        assert sorted([*one.tolist(), *other.tolist()]) == list(range(19))
        assert torch.bincount(codes[one]).tolist() == [4, 0, 2, 0, 0, 3]
        drawn = balanced(codes, generator)
        assert len(set(drawn.tolist())) == 12
        assert torch.bincount(codes[drawn]).tolist() == [4, 0, 4, 0, 0, 4]
    drawn = balanced(codes, generator)
    assert set(drawn.tolist()) != set(balanced(codes, generator).tolist())
    assert worst_accuracy(codes != 5, codes) == 0
    assert worst_accuracy(torch.arange(19) > 0, torch.arange(19) % 2) == pytest.approx(0.9)


def test_head__without_bias_is_fitted_to_scaled_features() -> None:
    rows, target = rows_of(2)
    features = rows[:, :-1] * torch.logspace(-2, 2, 12) + 3
    features[:, 4] = 0.1  # is not divided by what rounding leaves
    heads = _Heads(features, target, nn.Linear(12, 2, bias=False))
    weight, bias = heads.fit(torch.arange(40), 0.3)
    scale = StandardScaler(with_mean=False).fit(features[:40]).scale_
    theirs = LogisticRegression(l1_ratio=1.0, C=0.3, solver="liblinear", tol=1e-10, max_iter=10**5,
                                fit_intercept=False, random_state=0)
    theirs.fit(features[:40].numpy() / scale, target[:40])
    np.testing.assert_allclose(weight[1] - weight[0], theirs.coef_[0] / scale, rtol=5e-3, atol=1e-5)
    assert not bias.any()


def table(path: Path, count: int, against: float, seed: int, noise: float = 0.1) -> None:
    """A word goes with the label, and in the rare group against it."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        label, rare = int(rng.random() < 0.5), rng.random() < against
        core = ["good", "bad"][label if rng.random() >= noise else 1 - label]
        spurious = "film" if label != rare else "plot"
        rows.append(f"{spurious} {spurious} {core},{label},{'rare' if rare else 'common'}")
    path.write_text("text,label,who\n" + "\n".join(rows) + "\n")


@pytest.fixture
def texts(tmp_path: Path) -> Any:
    """Few of the rare group in train, more of them in validation, half in test."""
    for seed, (name, count, against) in enumerate([("train", 400, 0.05), ("validation", 200, 0.2),
                                                   ("test", 200, 0.5)]):
        table(tmp_path / f"{name}.csv", count, against, seed)

    def make(**more: Any) -> TextClassification:
        return TextClassification(*(str(tmp_path / f"{name}.csv") for name in ("train", "validation",
                                                                              "test")),
                                  max_length=8, batch_size=32, columns={"group": "who"}, **more)

    return make


@pytest.fixture
def settled(texts: Any, tiny_bert: Path) -> Any:
    """A random network with DFR's head."""
    def make(seed: int = 3, **arguments: Any) -> tuple[DFR, Any]:
        backbone, data = HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0), texts()
        data.load()
        data.connect(backbone, seed)
        technique = DFR(FullFineTuning(), **arguments)
        technique.prepare(data)
        torch.manual_seed(0)
        technique.bind(backbone.build(data.task), data.task).eval()
        with torch.no_grad():
            technique.settle(technique.model, data, lambda: 0.0)
        return technique, data

    return make


def test_settle__is_the_authors_procedure(settled: Any) -> None:
    """`dfr_on_validation_tune` and `dfr_on_validation_eval` of their code, with the same draws.

    Halves are drawn within groups, and each fit's own rows standardise, as theirs do in tuning.
    """
    technique, data = settled(C=(3.0, 1.0, 0.3, 0.03), fits=4)
    seen = Features(technique.model, data).validation
    x = torch.cat([each.features for each in seen]).double().numpy()
    y = torch.cat([each.batch["target"] for each in seen]).numpy()
    assert torch.cat([each.batch["index"] for each in seen]).tolist() == list(range(200))
    codes = technique.codes
    generator = torch.Generator().manual_seed(3)

    def fit(rows: Any, C: float) -> tuple[Any, Any]:  # noqa: N803
        scaler = StandardScaler().fit(x[rows])
        found = LogisticRegression(l1_ratio=1.0, C=C, solver="liblinear", tol=1e-10, max_iter=10**5,
                                   random_state=0).fit(scaler.transform(x[rows]), y[rows])
        weight = found.coef_[0] / scaler.scale_
        return weight, found.intercept_[0] - weight @ scaler.mean_

    chosen, rest = halves(codes, generator)
    rest = rest[balanced(codes[rest], generator)]
    worst = {}
    for C in technique.C:  # noqa: N806
        weight, bias = fit(rest, C)
        right = ((x @ weight + bias > 0) == y)[chosen]
        worst[C] = min(right[codes[chosen] == code].mean() for code in (0, 1))
    best = max(technique.C, key=worst.__getitem__)
    assert len(set(worst.values())) > 1
    drawn = [balanced(codes, generator) for _ in range(4)]
    weight, bias = (np.mean(parts, axis=0) for parts in zip(*(fit(rows, best) for rows in drawn),
                                                            strict=True))
    batch: Any = next(iter(data.test_dataloader()))
    with torch.no_grad():
        outputs = technique.model(batch)
        features = technique.model.features(batch).numpy()
    np.testing.assert_allclose(outputs[:, 1] - outputs[:, 0], features @ weight + bias, atol=5e-3)
    assert float((outputs[:, 1] - outputs[:, 0]).std()) > 0.2
    said = f"C {best:g}, with which the worst group's accuracy on a held-out half of them was "
    assert f"{said}{worst[best]:.3g}; 4 fits of {2 * int((codes == 1).sum())} examples" in technique.notes[-1]


def test_settle__draws_by_the_run_s_seed(settled: Any) -> None:
    one, again, other = (settled(seed=seed, fits=2)[0].model.head for seed in (3, 3, 4))
    weights = [dict(head.named_parameters()) for head in (one, again, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_run__has_a_better_worst_group_and_says_at_what_price(
    texts: Any, tiny_bert: Path, tmp_path: Path
) -> None:
    worst, notes = {}, {}
    plain = FullFineTuning(lr=1e-3)
    for name, technique in {"plain": plain, "dfr": DFR(copy.deepcopy(plain))}.items():
        folder = tmp_path / name
        folder.mkdir()
        events: list[Any] = []
        run = Run(HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0), texts(), technique,
                  TrainerSettings(max_epochs=2), 0, "val/worst_accuracy", folder)
        worst[name] = execute(run, events.append)["test/worst_accuracy"]
        notes[name] = [event["text"] for event in events if event["event"] == "note"]
    assert worst["dfr"] > worst["plain"] + 0.2, worst
    assert not any("DFR" in text for text in notes["plain"])
    assert sum("the head was trained on validation labels, so that this run's scores on validation "
               "are not of held-out examples" in text for text in notes["dfr"]) == 1


def test_dfr__refuses_what_it_cannot_balance(texts: Any, tmp_path: Path) -> None:
    def refused(change: Any, match: str) -> None:
        data = texts()
        data.load()
        change(data)
        with pytest.raises(Incompatible, match=match) as caught:
            DFR(FullFineTuning()).prepare(data)
        assert caught.value.mend

    def of_rare(kept: int) -> Any:
        def change(data: Any) -> None:
            split = data.splits["validation"]
            rare = [n for n, who in enumerate(split.columns["group"]) if who == "rare"]
            data.splits["validation"] = split.take(sorted({*range(len(split))} - {*rare[kept:]}))
        return change

    def one_class(data: Any) -> None:
        split = data.splits["validation"]
        data.splits["validation"] = split.take([n for n, y in enumerate(split.targets) if y])

    refused(of_rare(1), "DFR halves each group's validation examples, and group 'rare' has 1")
    refused(of_rare(0), "group 'rare' has 0")
    refused(one_class, "which has no example of class '0'")
    data = texts()
    data.load()
    data.splits["test"].columns["group"][0] = "new"  # of test alone
    of_rare(2)(data)
    DFR(FullFineTuning()).prepare(data)


@pytest.mark.parametrize("world", ["regression", "multi_label", "token_classification"])
def test_dfr__refuses_other_tasks(world: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(Incompatible, match="DFR does not go with the task"):
        Bench(make_world(world, request.getfixturevalue)).bound(DFR(FullFineTuning()))


@pytest.mark.parametrize(("arguments", "what"), [
    ({"C": ()}, "C must be numbers above 0, one at least"),
    ({"C": (1.0, 0.0)}, r"C must be numbers above 0, one at least, got \[1.0, 0.0\]"),
    ({"fits": 0}, "fits must be at least 1, got 0")])
def test_arguments_out_of_range_are_refused(arguments: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        DFR(FullFineTuning(), **arguments)
