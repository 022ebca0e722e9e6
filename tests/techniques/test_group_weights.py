"""GroupDRO and reweighting are their papers' formulas, and plain training where nothing differs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.splits import Split
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible
from ftlab.tasks.classification import Classification
from ftlab.tasks.losses.base import Loss
from ftlab.tasks.losses.weighted_cross_entropy import WeightedCrossEntropy
from ftlab.techniques.base import Technique
from ftlab.techniques.dfr import DFR
from ftlab.techniques.example_weights import per_group, weighing
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.group_dro import GroupDRO
from ftlab.techniques.group_reweighting import GroupReweighting
from ftlab.techniques.head_lr import HeadLR
from ftlab.techniques.head_optimum import ByEpochs
from ftlab.techniques.jtt import JTT
from ftlab.techniques.l2sp import L2SP
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.techniques.replay import Replay
from ftlab.techniques.set_fit import SetFit
from ftlab.training.batches import with_streams
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True


def table(path: Path, groups: str) -> Path:
    """Texts of two classes, each of the next of `groups`."""
    rows = [f"{'good' if n % 2 else 'bad'} film {n},{n % 2},{groups[n % len(groups)]}" for n in range(48)]
    path.write_text("text,label,who\n" + "\n".join(rows) + "\n")
    return path


def module(path: Path, groups: str) -> TextClassification:
    return TextClassification(str(table(path, groups)), max_length=16, batch_size=8,
                              columns={"group": "who"}, split=Split(validation=0.25, test=0.25))


def losses_of(technique: Technique, data: TextClassification, model: Any, batch: Any) -> Tensor:
    losses = data.task.losses(model(batch), batch)
    assert losses is not None
    return losses.detach().double()


@pytest.fixture
def bench(tiny_bert: Path, tmp_path: Path) -> Any:
    """A bound technique with its data, model and batches."""
    def make(technique: Technique, groups: str = "aab") -> Any:
        data = module(tmp_path / "rows.csv", groups)
        backbone = HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0)
        data.load()
        data.connect(backbone, 0)
        technique.prepare(data)
        technique.bind(backbone.build(data.task), data.task).eval()
        return data, technique.model, list(data.train_dataloader())

    return make


def test_group_dro__is_the_authors_loss_by_hand(bench: Any) -> None:
    """`LossComputer.compute_robust_loss` of their code, three steps of it, in numpy."""
    technique = GroupDRO(FullFineTuning(), step=0.5, adjustment=2.0)
    data, model, batches = bench(technique)
    names = data.splits["train"].columns["group"]
    sizes = np.array([names.count("a"), names.count("b")])
    q = np.full(2, 0.5)
    for batch in batches[:3]:
        losses = losses_of(technique, data, model, batch).numpy()
        codes = np.array([names[index] == "b" for index in batch["index"].tolist()]).astype(int)
        means = np.array([losses[codes == g].mean() if (codes == g).any() else 0.0 for g in (0, 1)])
        q = q * np.exp(0.5 * (means + 2.0 / np.sqrt(sizes)))
        q = q / q.sum()
        ours = float(technique.objective(model, data.task, batch).detach())
        assert ours == pytest.approx(float(q @ means), rel=1e-5)
        technique.after_step(model, 1)
        assert technique.weights.numpy() == pytest.approx(q, rel=1e-5)
    technique.objective(model, data.task, batches[0])
    assert technique.weights.numpy() == pytest.approx(q, rel=1e-5), "measuring moves nothing"
    assert q[1] > 0.5, "the small group has more loss added"
    technique.begin_epoch(model, 0, 2)
    assert technique.weights.tolist() == [0.5, 0.5], "another fit within the fit"


def test_group_reweighting__makes_groups_count_alike(bench: Any) -> None:
    technique = GroupReweighting(FullFineTuning())
    data, model, _ = bench(technique)
    names = data.splits["train"].columns["group"]
    every: Any = next(iter(data.eval_loader("train")))
    weights = technique.weights
    of = {g: [float(w) for w, name in zip(weights, names, strict=True) if name == g] for g in "ab"}
    assert sum(of["a"]) == pytest.approx(sum(of["b"])) and float(weights.mean()) == pytest.approx(1)
    losses = losses_of(technique, data, model, every)
    wanted = (weights[every["index"]] * losses).mean()
    assert float(technique.objective(model, data.task, every).detach()) == pytest.approx(
        float(wanted), rel=1e-5)


@pytest.mark.parametrize("wrapper", [GroupDRO, GroupReweighting])
def test_one_group__is_plain_training(wrapper: Any, bench: Any) -> None:
    technique = wrapper(FullFineTuning())
    data, model, batches = bench(technique, "a")
    for batch in batches:
        plain = data.task.loss(model(batch), batch)
        assert float(technique.objective(model, data.task, batch).detach()) == pytest.approx(
            float(plain.detach()), rel=1e-6)


@pytest.mark.parametrize("wrapper", [GroupDRO, GroupReweighting])
def test_penalty_of_what_is_within_stays(wrapper: Any, bench: Any) -> None:
    bare, penalised = wrapper(FullFineTuning()), wrapper(L2SP(FullFineTuning(), 0.5, 0.5))
    data, model, batches = bench(penalised)
    bare.prepare(data)
    penalised.begin_fit(model, data, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    inner = penalised.technique.objective(model, data.task, batches[0])
    extra = float((inner - data.task.loss(model(batches[0]), batches[0])).detach())
    assert extra > 0
    one, other = (float(t.objective(model, data.task, batches[0]).detach()) for t in (penalised, bare))
    assert one - other == pytest.approx(extra, rel=1e-3)


def test_per_group__of_groups_that_a_batch_lacks_is_nothing() -> None:
    means = per_group(torch.tensor([1.0, 3.0]), torch.tensor([0.5, 0.5]), torch.tensor([2, 2]), 4)
    assert means.tolist() == [0, 0, 2, 0]


def test_rare_group__gains_where_a_shortcut_fails_it(tiny_bert: Path, tmp_path: Path) -> None:
    """A word goes with the label in nine of ten texts and against it in the rare groups."""
    rng = np.random.default_rng(0)
    def rows(count: int, rare: float) -> list[str]:
        made = []
        for _ in range(count):
            label, against = int(rng.random() < 0.5), rng.random() < rare
            spurious = "film" if label != against else "plot"
            core = ["good", "bad"][label] if rng.random() < 0.9 else ["bad", "good"][label]
            made.append(f"{spurious} {spurious} {core},{label},{'rare' if against else 'common'}")
        return made
    for name, count, rare in (("train", 400, 0.05), ("validation", 200, 0.5), ("test", 200, 0.5)):
        (tmp_path / f"{name}.csv").write_text("text,label,who\n" + "\n".join(rows(count, rare)) + "\n")
    worst = {}
    for name, technique in {"plain": FullFineTuning(lr=1e-3),
                            "dro": GroupDRO(FullFineTuning(lr=1e-3), step=0.1),
                            "weights": GroupReweighting(FullFineTuning(lr=1e-3)),
                            "twice": JTT(FullFineTuning(lr=1e-3), upweight=10)}.items():
        data = TextClassification(
            str(tmp_path / "train.csv"), str(tmp_path / "validation.csv"), str(tmp_path / "test.csv"),
            max_length=8, batch_size=32, columns={"group": "who"})
        folder = tmp_path / name
        folder.mkdir()
        run = Run(HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0), data, technique,
                  TrainerSettings(max_epochs=4), 0, "val/worst_accuracy", folder)
        worst[name] = execute(run, lambda event: None)["test/worst_accuracy"]
    assert all(worst[name] > worst["plain"] + 0.1 for name in ("dro", "weights", "twice")), worst


def test_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    data = TextClassification(str(table(tmp_path / "rows.csv", "ab")), max_length=16)
    with pytest.raises(Incompatible, match="GroupDRO reads the column 'group', which the data set does "
                                           "not have: it has none"):
        with_streams(data, L2SP(GroupDRO(FullFineTuning())), TrainerSettings())


def test_more_groups_than_can_be_weighed_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label,who\n" + "".join(f"film {n},{n % 2},g{n}\n" for n in range(120)))
    data = TextClassification(str(path), max_length=16, columns={"group": "who"})
    data.load()
    for technique in (GroupDRO(FullFineTuning()), DFR(FullFineTuning())):
        with pytest.raises(Incompatible, match="wants at most 100 groups, and the column 'group' has 120"):
            technique.prepare(data)


def test_loss_that_is_no_mean_of_examples_is_refused(bench: Any, monkeypatch: pytest.MonkeyPatch,
                                                     tmp_path: Path) -> None:
    data, _, _ = bench(FullFineTuning())
    assert data.task.of_examples
    monkeypatch.setattr(type(data.task._loss), "losses", Loss.losses)
    assert isinstance(data.task, Classification) and not data.task.of_examples
    with pytest.raises(Incompatible, match="is not a mean of theirs"):
        GroupDRO(FullFineTuning()).prepare(data)


def test_parts__are_those_of_the_loss() -> None:
    """Class weights and tokens count, also where their sum happens to be the number of examples."""
    task = Classification(loss=WeightedCrossEntropy())
    task.fit(["x"] * 30 + ["y"] * 10)
    batch = {"target": torch.tensor([0, 1]), "index": torch.tensor([0, 1])}
    outputs = torch.tensor([[0.3, -1.0], [2.0, 0.5]])
    weighed = weighing(task, lambda losses, parts, batch: (parts * losses).sum())
    assert float(weighed.loss(outputs, batch)) == pytest.approx(float(task.loss(outputs, batch)))
    assert float(task.weights(batch).sum()) == pytest.approx(task.weight(batch))


@pytest.mark.parametrize("make", [
    lambda: GroupReweighting(GroupDRO(FullFineTuning())), lambda: GroupDRO(GroupReweighting(FullFineTuning())),
    lambda: GroupDRO(SetFit())])
def test_weights_on_weights_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="makes no sense around"):
        make()


@pytest.mark.parametrize("wrapper", [GroupDRO, GroupReweighting, HeadLR])
def test_probe_within__trains_by_epochs(wrapper: Any, bench: Any) -> None:
    technique = wrapper(LinearProbe())
    data, model, _ = bench(technique)
    with pytest.raises(ByEpochs, match="has its own"):
        technique.optimum(model, data)


@pytest.mark.parametrize(("make", "what"), [
    (lambda: GroupDRO(FullFineTuning(), step=-1), "step must be 0 or more"),
    (lambda: GroupDRO(FullFineTuning(), adjustment=-1), "adjustment must be 0 or more"),
    (lambda: GroupReweighting(FullFineTuning(), strength=2), "strength must be from 0 to 1")])
def test_arguments_out_of_range_are_refused(make: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        make()


def test_replayed_examples_have_no_group_here(bench: Any) -> None:
    """Around it or within, the memory's part is the plain mean of its own losses."""
    for technique in (Replay(GroupReweighting(FullFineTuning()), part=0.25),
                      GroupReweighting(Replay(FullFineTuning(), part=0.25))):
        data, model, batches = bench(technique)
        weights = (technique.technique if isinstance(technique, Replay) else technique).weights
        memory = {**batches[1], "index": batches[1]["index"] + 1000, "stream": "memory"}
        batch = {**batches[0], "beside": {"memory": memory}}
        new = (weights[batch["index"]] * losses_of(technique, data, model, batch)).mean()
        old = losses_of(technique, data, model, memory).mean()
        assert float(technique.objective(model, data.task, batch).detach()) == pytest.approx(
            float(0.75 * new + 0.25 * old), rel=1e-5)
