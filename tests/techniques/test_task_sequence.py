"""Tasks in turn: held to plain training, to a loop of separate fits, and to a sequence that forgets."""

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.examples import Stream
from ftlab.data.tasks_in_turn import TasksInTurn
from ftlab.data.text import TextClassification
from ftlab.data.train_batches import set_epoch
from ftlab.errors import Incompatible, InputError
from ftlab.tasks.metric import Metric
from ftlab.tasks.over_sequence import of_sequence, over_sequence
from ftlab.techniques.base import Optimization, Technique
from ftlab.techniques.differentially_private import DifferentiallyPrivate
from ftlab.techniques.ema import EMA
from ftlab.techniques.federated import Federated
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.group_dro import GroupDRO
from ftlab.techniques.jtt import JTT
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.techniques.linear_probe_then_fine_tune import LinearProbeThenFineTune
from ftlab.techniques.lwf import LwF
from ftlab.techniques.model_soup import ModelSoup
from ftlab.techniques.replay import Replay
from ftlab.techniques.set_fit import SetFit
from ftlab.techniques.task_sequence import TaskSequence
from ftlab.techniques.untuned import Untuned
from ftlab.techniques.wise_ft import WiSEFT
from ftlab.training.checkpoint import WEIGHTS
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
SGD = Optimization(optimizer="sgd", schedule="constant", warmup=0.0, weight_decay=0.0)
PLAIN = Optimization(schedule="constant", warmup=0.0)
Row = tuple[str, int, str]


def rows(tasks: str, count: int) -> list[Row]:
    """A word tells the class, but for some."""
    return [(f"{'good' if n % 2 else 'bad'} film {n % 7}", (n + (n % 5 == 4)) % 2, tasks[n % len(tasks)])
            for n in range(count)]


def written(folder: Path, name: str, lines: Sequence[Row]) -> str:
    folder.mkdir(exist_ok=True)
    text = "".join(f"{text},{label},{task}\n" for text, label, task in lines)
    (folder / f"{name}.csv").write_text("text,label,place\n" + text)
    return str(folder / f"{name}.csv")


def texts(folder: Path, train: Sequence[Row], test: Sequence[Row], **more: Any) -> TextClassification:
    made = {"columns": {"domain": "place", "group": "place"}} | more
    return TextClassification(written(folder, "train", train), written(folder, "validation", test),
                              written(folder, "test", test), max_length=8, batch_size=8, bucketing=False, **made)


def trained(technique: Technique, data: TextClassification, tiny_bert: Path, folder: Path, epochs: int,
            seed: int = 3, plain: bool = False, dropout: float = 0.0) -> tuple[dict[str, float], Run, list[Any]]:
    folder.mkdir()
    events: list[Any] = []
    run = Run(HuggingFace(str(tiny_bert), pooling="mean", dropout=dropout, head_dropout=dropout), data, technique,
              TrainerSettings(max_epochs=epochs, gradient_clip=None), seed, "val/loss", folder, plain=plain)
    return execute(run, events.append), run, events


def kept(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoint" / WEIGHTS)


def test_one_task__is_plain_training(tiny_bert: Path, tmp_path: Path) -> None:
    """Bit for bit; of more tasks than one, and of no metric that wants two."""
    data = [texts(tmp_path, rows("a", 40), rows("a", 16)) for _ in range(2)]
    found, _, _ = trained(TaskSequence(FullFineTuning(lr=1e-3)), data[0], tiny_bert, tmp_path / "one", 2, dropout=0.1)
    plain, _, _ = trained(FullFineTuning(lr=1e-3), data[1], tiny_bert, tmp_path / "plain", 2, dropout=0.1)
    assert plain["best_epoch"] == 2, "the result is the last epoch's"
    ours, wanted = kept(tmp_path / "one"), kept(tmp_path / "plain")
    assert ours.keys() == wanted.keys()
    assert all(torch.equal(ours[name], wanted[name]) for name in wanted)
    assert found["test/loss"] == plain["test/loss"]
    assert found["test/final_accuracy"] == found["test/accuracy"]
    assert not any(name.startswith(("test/bwt_", "test/fwt_", "test/forgetting_")) for name in found)


def test_matrix__is_that_of_a_loop_of_separate_fits(tiny_bert: Path, tmp_path: Path) -> None:
    """Weights and scores; the smaller task goes round more often, and momentum begins anew."""
    train, test = rows("aaabb", 40), rows("ab", 24)
    technique = TaskSequence(FullFineTuning(lr=0.05, optim=SGD), order=["b", "a"])
    metrics, run, _ = trained(technique, texts(tmp_path, train, test), tiny_bert, tmp_path / "run", 4)

    backbone = HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0, head_dropout=0.0)
    every = texts(tmp_path / "all", train, test)
    every.load()
    every.connect(backbone, 3)
    model = backbone.build(every.task).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(technique.fits.start[name])
    places = np.array([row[2] for row in test])

    def scores() -> list[float]:
        right = np.zeros(len(test))
        with torch.no_grad():
            for batch in every.test_dataloader():
                right[batch["index"].numpy()] = (model(batch).argmax(dim=1) == batch["target"]).numpy()
        return [float(right[places == task].mean()) for task in "ba"]

    table, weights = [scores()], []
    for task in "ba":
        alone = texts(tmp_path / task, [row for row in train if row[2] == task], test)
        alone.load()
        alone.connect(backbone, 3)
        assert alone.task.names == every.task.names
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        loader, updates, turn = alone.train_dataloader(), 0, 0
        while updates < 2 * 3:  # two epochs of as many batches as the larger task's 24 examples fill
            set_epoch(loader, turn)
            for batch in loader:
                if updates < 2 * 3:
                    optimizer.zero_grad()
                    alone.task.loss(model(batch), batch).backward()
                    optimizer.step()
                    updates += 1
            turn += 1
        assert turn == {"b": 3, "a": 2}[task]
        table.append(scores())
        weights.append({name: p.detach().clone() for name, p in model.named_parameters()})

    for ours, wanted in ((technique.kept[0], weights[0]), (kept(tmp_path / "run"), weights[1])):
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, wanted[name], rtol=1e-5, atol=1e-6, msg=name)
    found = [[metrics[f"{split}/accuracy_by_group/{task}"] for task in "ba"]
             for split in ("test.before", "test.after-1-b", "test")]
    assert found == [pytest.approx(line) for line in table]
    (_, later), (b, a), (b_end, a_end) = table
    assert metrics["test/final_accuracy"] == pytest.approx((b_end + a_end) / 2)
    assert metrics["test/bwt_accuracy"] == pytest.approx(b_end - b)
    assert metrics["test/fwt_accuracy"] == pytest.approx(a - later)
    assert metrics["test/forgetting_accuracy"] == pytest.approx(max(b, b_end) - b_end)
    assert metrics["best_epoch"] == 4
    assert any("b then a, 6 updates each" in note for note in run.technique.notes)


def forgetful(task: str, count: int) -> list[Row]:
    """In the second task other words tell the class, and those of the first lie."""
    if task == "one":
        return [(("bad", "good")[n % 2] + " film", n % 2, "one") for n in range(count)]
    return [(("good dull", "bad great")[n % 2] + " film", n % 2, "two") for n in range(count)]


def test_sequence_that_forgets_by_construction_does_so_less_with_each(tiny_bert: Path, tmp_path: Path) -> None:
    """Through the run's own machinery, on every seed."""
    train = [*forgetful("one", 64), *forgetful("two", 64)]
    test = [*forgetful("one", 16), *forgetful("two", 16)]
    full = {"lr": 1e-2, "optim": PLAIN}
    memory = {"memory": Stream(written(tmp_path, "memory", forgetful("one", 16)), labelled=True)}
    techniques: dict[str, Callable[[], Technique]] = {
        "plain": lambda: FullFineTuning(**full), "lwf": lambda: LwF(FullFineTuning(**full), strength=3.0),
        "replay": lambda: Replay(FullFineTuning(**full))}
    for seed in range(2):
        found = {}
        for name, make in techniques.items():
            data = texts(tmp_path, train, test, beside=memory)
            found[name], _, _ = trained(TaskSequence(make()), data, tiny_bert, tmp_path / f"{name}{seed}", 8, seed)
        print({name: {m: round(v, 3) for m, v in one.items() if "by_group" not in m and m.endswith("_accuracy") and m.startswith("test/")} for name, one in found.items()})
        lost = {name: metrics["test/forgetting_accuracy"] for name, metrics in found.items()}
        assert lost["plain"] > 0.4, lost
        assert max(lost["lwf"], lost["replay"]) < lost["plain"] - 0.1, lost
