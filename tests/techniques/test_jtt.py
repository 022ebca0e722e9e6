"""JTT: what the first fit gets wrong counts more in a second one, which begins where the first did."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.splits import Split
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible
from ftlab.tasks.regression import Regression
from ftlab.techniques.base import Optimization, Technique
from ftlab.techniques.discriminative_lr import DiscriminativeLR
from ftlab.techniques.ema import EMA
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.group_dro import GroupDRO
from ftlab.techniques.jtt import JTT
from ftlab.techniques.l2sp import L2SP
from ftlab.techniques.linear_probe_then_fine_tune import LinearProbeThenFineTune
from ftlab.techniques.model_soup import ModelSoup
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
PLAIN = Optimization(schedule="constant", warmup=0.0)


def texts(folder: Path, noise: int = 4) -> TextClassification:
    """Of two classes that a word tells apart, but for every `noise`-th, whose label is the other."""
    rows = [f"{'good' if n % 2 else 'bad'} film,{(n + (n % noise == noise - 1)) % 2}" for n in range(64)]
    (folder / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return TextClassification(str(folder / "rows.csv"), max_length=8, batch_size=8,
                              split=Split(validation=0.25, test=0.25))


@pytest.fixture
def begun(tiny_bert: Path, tmp_path: Path) -> Any:
    """A technique before its first epoch: technique, data, batches, optimizer."""
    def make(technique: Technique) -> Any:
        data, backbone = texts(tmp_path), HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0)
        data.load()
        data.connect(backbone, 0)
        technique.prepare(data)
        torch.manual_seed(5)
        technique.bind(backbone.build(data.task), data.task)
        optimizer = technique.optimizer(technique.param_groups(technique.model))
        batches = list(data.train_dataloader())
        technique.begin_fit(technique.model, data, 3 * len(batches))
        return technique, data, batches, optimizer

    return make


def epoch(number: int, epochs: int, technique: Technique, data: Any, batches: Any, optimizer: Any,
          step: int) -> int:
    """Train over the batches, `step` updates after the start."""
    technique.begin_epoch(technique.model, number, epochs)
    technique.model.eval()  # no dropout
    for batch in batches:
        optimizer.zero_grad()
        technique.objective(technique.model, data.task, batch).backward()
        optimizer.step()
        step += 1
        technique.after_step(technique.model, step)
    return step


def weights(technique: Technique) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in technique.model.state_dict().items()}


def test_second_fit__is_a_fit_from_the_start(begun: Any) -> None:
    """With upweight 1 bit for bit the plain one, of as many epochs, with an optimizer as new."""
    twice = begun(JTT(FullFineTuning(lr=1e-3, optim=PLAIN), first_epochs=1, upweight=1.0))
    once = begun(FullFineTuning(lr=1e-3, optim=PLAIN))
    start, step = weights(twice[0]), 0
    for number in range(3):
        step = epoch(number, 3, *twice, step=step)
    step = 0
    for number in range(2):
        step = epoch(number, 2, *once, step=step)
    found, wanted = weights(twice[0]), weights(once[0])
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert any(not torch.equal(found[name], start[name]) for name in start)


def test_wrong__are_the_first_fit_s_and_count_more(begun: Any) -> None:
    technique, data, batches, optimizer = begun(JTT(FullFineTuning(lr=1e-3, optim=PLAIN), 1, 5.0))
    step = epoch(0, 3, technique, data, batches, optimizer, 0)
    whole: Any = next(iter(data.eval_loader("train")))
    everything = {key: torch.cat([batch[key] for batch in data.eval_loader("train")])
                  for key in ("index", "target")}
    with torch.no_grad():
        model = technique.model.eval()
        outputs = torch.cat([model(batch) for batch in data.eval_loader("train")])
    wrong = np.zeros(len(data.splits["train"]))
    wrong[everything["index"].numpy()] = (outputs.argmax(dim=1) != everything["target"]).numpy()
    epoch(1, 3, technique, data, batches, optimizer, step)
    assert 0 < wrong.sum() < len(wrong)
    counts = np.where(wrong == 1, 5.0, 1.0) / np.where(wrong == 1, 5.0, 1.0).mean()
    assert technique.weights is not None and technique.weights.tolist() == pytest.approx(counts.tolist())
    with torch.no_grad():
        losses = data.task.losses(model(whole), whole)
        found = float(technique.objective(model, data.task, whole))
    assert found == pytest.approx(float((torch.tensor(counts)[whole["index"]] * losses).mean()))
    assert any(f"{int(wrong.sum())} of {len(wrong)} training examples" in note
               for note in technique.notes)


def test_schedule__of_each_fit_is_its_own() -> None:
    technique = JTT(FullFineTuning(optim=Optimization(schedule="linear", warmup=0.0)), 1)
    (factor,) = technique.lr_factors([{}], 12, 3)
    assert [factor(step) for step in (0, 2, 4, 8)] == [1.0, 0.5, 1.0, 0.5]


def run(tiny_bert: Path, folder: Path, technique: Technique, data: TextClassification,
        epochs: int = 3) -> Run:
    (folder / "run").mkdir()
    return Run(HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0), data, technique,
               TrainerSettings(max_epochs=epochs), 0, "val/loss", folder / "run")


def test_run__takes_no_epoch_of_the_first_fit(tiny_bert: Path, tmp_path: Path) -> None:
    """Where each epoch is worse than the one before, plain training takes the first."""
    data = texts(tmp_path, 3)
    rising = FullFineTuning(lr=0.3, optim=PLAIN)
    around = DiscriminativeLR(JTT(rising, 2), decay=1.0)
    events: list[dict[str, Any]] = []
    found = execute(run(tiny_bert, tmp_path, around, data), events.append)
    assert found["best_epoch"] == 3
    # a report tells the fits apart
    epochs = [event["metrics"] for event in events if "epoch" in event.get("metrics", ())]
    assert [metrics.get("train/fit") for metrics in epochs] == [None, None, 2]


def test_run__ends_where_nothing_is_wrong(tiny_bert: Path, tmp_path: Path) -> None:
    one = run(tiny_bert, tmp_path, JTT(FullFineTuning(lr=1e-2), 8), texts(tmp_path, 1000), 9)
    with pytest.raises(Incompatible, match="gets every training example right") as caught:
        execute(one, lambda event: None)
    assert "first_epochs" in caught.value.mend


def test_run__needs_an_epoch_for_the_second_fit(tiny_bert: Path, tmp_path: Path) -> None:
    one = run(tiny_bert, tmp_path, JTT(FullFineTuning(), 3), texts(tmp_path))
    with pytest.raises(Incompatible, match=r"JTT\(first_epochs=3\) wants epochs for a second fit, and "
                                           "there are 3 in all") as caught:
        execute(one, lambda event: None)
    assert caught.value.mend == "set max_epochs to 4 or more"


def test_averages_within__begin_anew(begun: Any) -> None:
    technique, data, batches, optimizer = begun(JTT(EMA(FullFineTuning(lr=1e-2, optim=PLAIN)), 1, 5.0))
    start = weights(technique)
    step = epoch(0, 3, technique, data, batches, optimizer, 0)
    technique.begin_epoch(technique.model, 1, 3)
    assert step and all(torch.equal(value, start[name]) for name, value in
                        technique.technique.average.items())


def test_second_fit_within__is_of_all_that_may_train(begun: Any) -> None:
    """Not of what the last epoch of the first left free."""
    inner = L2SP(LinearProbeThenFineTune(lr=1e-3, probe_lr=1e-3, probe_epochs=0.9, optim=PLAIN))
    technique, data, batches, optimizer = begun(JTT(inner, 1, 5.0))
    anchors = []
    begin_fit = inner.begin_fit

    def watched(*arguments: Any) -> None:
        begin_fit(*arguments)
        anchors.append(set(inner.start))

    inner.begin_fit = watched  # type: ignore[method-assign]  # to look at it
    epoch(0, 3, technique, data, batches, optimizer, 0)
    technique.begin_epoch(technique.model, 1, 3)
    assert len(anchors) == 2 and anchors[0] == anchors[1] and len(anchors[0]) > 10


@pytest.mark.parametrize("make", [
    lambda: EMA(JTT(FullFineTuning())), lambda: ModelSoup(JTT(FullFineTuning())),
    lambda: JTT(ModelSoup(FullFineTuning())), lambda: JTT(GroupDRO(FullFineTuning()))])
def test_what_would_mix_the_fits_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="makes no sense around"):
        make()


def test_numbers_are_neither_right_nor_wrong() -> None:
    data: Any = type("Data", (), {"task": Regression(), "mixes": False})
    with pytest.raises(Incompatible, match="calls a prediction right or wrong"):
        JTT(FullFineTuning()).prepare(data)


@pytest.mark.parametrize(("arguments", "what"), [
    ({"first_epochs": 0}, "first_epochs must be at least 1"),
    ({"upweight": 0.5}, "upweight must be at least 1")])
def test_arguments_out_of_range_are_refused(arguments: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        JTT(FullFineTuning(), **arguments)
