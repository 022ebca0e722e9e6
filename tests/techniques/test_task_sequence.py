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
from ftlab.tasks.regression import Regression
from ftlab.techniques.base import Optimization, Technique
from ftlab.techniques.differentially_private import DifferentiallyPrivate
from ftlab.techniques.ema import EMA
from ftlab.techniques.ewc import EWC
from ftlab.techniques.federated import Federated
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.group_dro import GroupDRO
from ftlab.techniques.jtt import JTT
from ftlab.techniques.l2sp import L2SP
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
    """A word tells the class, but for some; in the task b it is the other one."""
    made = []
    for n in range(count):
        task, good = tasks[n % len(tasks)], n // len(tasks) % 2
        made.append((f"{'good' if good else 'bad'} {('film', 'plot', 'cast')[n % 3]}",
                     (good + (n % 7 == 6) + (task == "b")) % 2, task))
    return made


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
    record = {"backbone": {"source": str(tiny_bert)}, "data": {"init_args": {}}, "runs_to_come": 1000}
    run = Run(HuggingFace(str(tiny_bert), pooling="mean", dropout=dropout, head_dropout=dropout), data, technique,
              TrainerSettings(max_epochs=epochs, gradient_clip=None), seed, "val/loss", folder, record, plain)
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
    technique = TaskSequence(FullFineTuning(lr=0.1, optim=SGD), order=["b", "a"])
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
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
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
    assert len({tuple(line) for line in table}) == 3, "or nothing would tell the moments apart"
    (_, later), (b, a), (b_end, a_end) = table
    assert metrics["test/final_accuracy"] == pytest.approx((b_end + a_end) / 2)
    assert metrics["test/bwt_accuracy"] == pytest.approx(b_end - b)
    assert metrics["test/fwt_accuracy"] == pytest.approx(a - later)
    assert metrics["test/forgetting_accuracy"] == pytest.approx(max(b, b_end) - b_end)
    assert metrics["best_epoch"] == 4 and run.technique.restarts == [2]
    assert any("b then a, 6 updates each" in note for note in run.technique.notes)


def forgetful(task: str, count: int) -> list[Row]:
    """In the second task other words tell the class, and those of the first lie."""
    if task == "one":
        return [(("bad", "good")[n % 2] + " film", n % 2, "one") for n in range(count)]
    return [(("good awful", "bad great")[n % 2] + " film", n % 2, "two") for n in range(count)]


def test_sequence_that_forgets_by_construction_does_so_less_with_each(tiny_bert: Path, tmp_path: Path) -> None:
    """Through the run's own machinery: the first task is lost to full fine-tuning."""
    train = [*forgetful("one", 64), *forgetful("two", 64)]
    test = [*forgetful("one", 16), *forgetful("two", 16)]
    memory = {"memory": Stream(written(tmp_path, "memory", forgetful("one", 16)), labelled=True)}
    lost = {}
    for name, wrap in (("plain", lambda t: t), ("lwf", lambda t: LwF(t, strength=3.0)), ("replay", Replay)):
        technique = TaskSequence(wrap(FullFineTuning(lr=2e-3, optim=PLAIN)))
        metrics, _, _ = trained(technique, texts(tmp_path, train, test, beside=memory), tiny_bert,
                                tmp_path / name, 8)
        assert metrics["test.after-1-one/accuracy_by_group/one"] > 0.9, "it has been learned"
        lost[name] = metrics["test/forgetting_accuracy"]
    assert lost["plain"] > 0.2 + max(lost["lwf"], lost["replay"]), lost


def begun(technique: TaskSequence, data: TextClassification, tiny_bert: Path) -> Any:
    """A technique before its first epoch, and its optimizer and batches."""
    data.load()
    data.connect(HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0, head_dropout=0.0), 3)
    drawn = data.sampled_by(technique.plan)
    technique.foresee(drawn, 2)
    technique.prepare(drawn)
    torch.manual_seed(5)
    backbone = HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0, head_dropout=0.0)
    technique.bind(backbone.build(data.task), data.task)
    optimizer = technique.optimizer(technique.param_groups(technique.model))
    technique.begin_fit(technique.model, drawn, 2 * len(drawn.train_dataloader()))
    return drawn, optimizer


def epoch(technique: TaskSequence, number: int, data: Any, optimizer: Any, step: int = 0) -> int:
    technique.begin_epoch(technique.model, number, 2)
    technique.model.eval()  # no dropout
    loader = data.train_dataloader()
    set_epoch(loader, number)
    for batch in loader:
        optimizer.zero_grad()
        technique.objective(technique.model, data.task, batch).backward()
        optimizer.step()
        step += 1
        technique.after_step(technique.model, step)
    return step


def test_reference_within__is_the_network_after_the_task_before(tiny_bert: Path, tmp_path: Path) -> None:
    """LwF's, which compares outputs from the second task on: by then the head says something."""
    lwf = LwF(FullFineTuning(lr=1e-3, optim=PLAIN))
    technique = TaskSequence(lwf)
    data, optimizer = begun(technique, texts(tmp_path, rows("ab", 32), rows("ab", 16)), tiny_bert)
    before = {name: p.detach().clone() for name, p in technique.model.named_parameters()}
    assert lwf.of_features and all(torch.equal(lwf.start[name], before[name]) for name in before)
    step = epoch(technique, 0, data, optimizer)
    reached = {name: p.detach().clone() for name, p in technique.model.named_parameters()}
    technique.begin_epoch(technique.model, 1, 2)
    assert not lwf.of_features
    for name, tensor in reached.items():
        assert torch.equal(lwf.start[name], tensor) and torch.equal(technique.kept[0][name], tensor)
    assert step and not optimizer.state
    assert any(not torch.equal(reached[name], before[name]) for name in before)


def test_ewc_of_numbers__keeps_to_features_where_the_stream_has_no_labels(tiny_bert: Path, tmp_path: Path) -> None:
    memory = Stream(written(tmp_path, "memory", rows("c", 20)))
    data = texts(tmp_path, rows("ab", 40), rows("ab", 24), task=Regression(), beside={"memory": memory})
    found, run, _ = trained(TaskSequence(EWC(FullFineTuning(lr=1e-3), examples=4)), data, tiny_bert,
                            tmp_path / "run", 2)
    assert "test/bwt_mse" in found
    assert run.technique.technique.read == "features"


def test_averages_within__are_what_a_task_ends_with_and_the_next_begins_from(tiny_bert: Path, tmp_path: Path) -> None:
    ema = EMA(FullFineTuning(lr=1e-2, optim=PLAIN), decay=0.5)
    technique = TaskSequence(ema)
    data, optimizer = begun(technique, texts(tmp_path, rows("ab", 32), rows("ab", 16)), tiny_bert)
    epoch(technique, 0, data, optimizer)
    average = {name: tensor.clone() for name, tensor in ema.average.items()}
    now = dict(technique.model.named_parameters())
    assert any(not torch.equal(average[name], now[name]) for name in average)
    technique.begin_epoch(technique.model, 1, 2)
    for name, tensor in average.items():
        assert torch.equal(technique.kept[0][name], tensor) and torch.equal(now[name], tensor)


def test_fit_within__is_of_all_that_may_train(tiny_bert: Path, tmp_path: Path) -> None:
    """Not of what the last epoch of the task before left free."""
    inner = L2SP(LinearProbeThenFineTune(lr=1e-3, probe_epochs=0.9))
    technique = TaskSequence(inner)
    begun(technique, texts(tmp_path, rows("ab", 32), rows("ab", 16)), tiny_bert)
    anchors = {*inner.start}
    technique.begin_epoch(technique.model, 0, 2)
    assert sum(p.requires_grad for p in technique.model.parameters()) < len(anchors)
    technique.begin_epoch(technique.model, 1, 2)
    assert {*inner.start} == anchors and len(anchors) > 10


def test_schedule__of_each_task_is_its_own() -> None:
    technique = TaskSequence(FullFineTuning(optim=Optimization(schedule="linear", warmup=0.0)))
    technique.names = ["a", "b"]
    (factor,) = technique.lr_factors([{}], 8, 4)
    assert [factor(step) for step in (0, 2, 4, 6)] == [1.0, 0.5, 1.0, 0.5]


def test_head_alone__trains_by_epochs_and_a_cached_prefix_changes_nothing(tiny_bert: Path, tmp_path: Path) -> None:
    found = []
    for plain in (False, True):
        technique = TaskSequence(LinearProbe(lr=1e-2))
        metrics, _, events = trained(technique, texts(tmp_path, rows("ab", 256), rows("ab", 64)), tiny_bert,
                                     tmp_path / f"plain{plain}", 4, plain=plain)
        cached = [event["text"] for event in events if event["event"] == "shortcut"]
        assert plain or any("prefix cache" in text for text in cached), cached
        assert any("the head trains by epochs" in event.get("text", "") for event in events)
        found.append({name: value for name, value in metrics.items() if name.startswith("test")})
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[0]["test.before/loss"] != found[0]["test.after-1-a/loss"] != found[0]["test/loss"]


def test_plan__has_one_task_after_another_with_equally_many_batches() -> None:
    tasks = ["b"] * 9 + ["a"] * 13
    plan = TasksInTurn(["b", "a"])
    codes = plan.strata([None] * 22, {"domain": tasks})
    plan.epochs = 2
    assert plan.length(codes, 4) == 3  # of 13 the last joins
    seen = [[i for batch in plan.plan(codes, 4, 0, epoch) for i in batch] for epoch in range(4)]
    assert all(len(plan.plan(codes, 4, 0, epoch)) == 3 for epoch in range(4))
    assert [{tasks[i] for i in of} for of in seen] == [{"b"}, {"b"}, {"a"}, {"a"}]
    assert sorted(seen[2]) == list(range(9, 22)) == sorted(seen[3]) and seen[2] != seen[3]
    assert sorted(seen[0] + seen[1]) == sorted([*range(9)] * 3), "three passes of two batches"


def test_default_order__is_numbers_first() -> None:
    assert TasksInTurn().names(["10", "9", "x", "9"]) == ["9", "10", "x"]


def test_metrics__keep_the_sign_of_their_own() -> None:
    """Word errors that rise are forgetting, which is 0 or more; changes of percents are points."""
    wer = Metric("wer", lambda: None, False, "error rate")  # type: ignore[arg-type, return-value]  # is not measured
    found = of_sequence(wer, [[0.2, 0.9], [0.5, 0.1]], [1.0, 1.0])
    assert found == pytest.approx({"final_wer": 0.3, "bwt_wer": 0.3, "fwt_wer": -0.1, "forgetting_wer": 0.3})
    facts = {metric.name: (metric.unit, metric.higher_is_better) for metric in over_sequence([wer])}
    assert facts == {"final_wer": ("error rate", False), "bwt_wer": ("points", False),
                     "fwt_wer": ("points", False), "forgetting_wer": ("error rate", False)}


@pytest.mark.parametrize(("make", "what"), [
    (lambda: TaskSequence(FullFineTuning(), order=["a", "a"]), "names a task twice"),
    (lambda: TaskSequence(Untuned()), "trains nothing"),
    (lambda: TaskSequence(WiSEFT(FullFineTuning())), "makes no sense around"),
    (lambda: TaskSequence(JTT(FullFineTuning())), "makes no sense around"),
    (lambda: TaskSequence(GroupDRO(FullFineTuning())), "makes no sense around"),
    (lambda: TaskSequence(Federated(FullFineTuning())), "makes no sense around"),
    (lambda: TaskSequence(DifferentiallyPrivate(FullFineTuning())), "makes no sense around"),
    (lambda: DifferentiallyPrivate(TaskSequence(FullFineTuning())), "draws the training examples in a way of its own"),
    (lambda: WiSEFT(TaskSequence(FullFineTuning())), "makes no sense around"),
    (lambda: ModelSoup(TaskSequence(FullFineTuning())), "makes no sense around"),
    (lambda: EMA(TaskSequence(FullFineTuning())), "makes no sense around")])
def test_what_cannot_be_right_is_refused(make: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        make()


def test_what_reads_training_examples_by_itself_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    """SetFit fits its head on those of all tasks."""
    with pytest.raises(Incompatible, match="reads training examples by itself, and TaskSequence shows them"):
        trained(TaskSequence(SetFit()), texts(tmp_path, rows("ab", 32), rows("ab", 16)), tiny_bert,
                tmp_path / "run", 2)


@pytest.mark.parametrize(("train", "test", "order", "more", "what"), [
    ("ab", "ab", ["a", "c"], {}, r"order: no training example has 'c' in the column 'domain'"),
    ("abc", "abc", ["a", "c"], {}, "order leaves out b"),
    ("ab", "a", None, {}, "task 'b' has 0 test examples"),
    ("ab", "abc", None, {}, "task 'c' has 5 test examples and no training example"),
    ("ab", "ab", None, {"columns": {"domain": "place", "group": "label"}}, "the columns 'domain' and 'group' differ"),
    ("abcde", "abcde", None, {}, "4 epochs cannot be shared equally by 5 tasks"),
    ("abc", "abc", None, {}, r"4 epochs cannot be shared equally by 3 tasks \(a, b, c\)"),
    ("ab", "ab", None, {"columns": {"group": "place"}}, "TaskSequence reads the column 'domain'")])
def test_bad_input__is_refused(tiny_bert: Path, tmp_path: Path, train: str, test: str, order: Any,
                               more: Any, what: str) -> None:
    data = texts(tmp_path, rows(train, 30), rows(test, 15), **more)
    with pytest.raises(InputError, match=what) as caught:
        trained(TaskSequence(FullFineTuning(), order), data, tiny_bert, tmp_path / "run", 4)
    assert caught.value.mend and "\n" not in caught.value.what + caught.value.mend


def test_study__has_the_scores_in_record_table_and_report(
    tmp_path: Path, tiny_bert: Path, here: Callable[..., tuple[int, str, str]]
) -> None:
    for name, count in (("train", 48), ("validation", 24), ("test", 24)):
        written(tmp_path, name, rows("ab", count))
    (tmp_path / "study.yaml").write_text(f"""\
name: turns
backbones: {{bert: {{class_path: HuggingFace, init_args: {{source: '{tiny_bert}'}}}}}}
datasets:
  films:
    class_path: TextClassification
    init_args: {{train: train.csv, validation: validation.csv, test: test.csv, max_length: 8, batch_size: 8,
                 columns: {{domain: place, group: place}}}}
techniques:
  full: {{class_path: TaskSequence, init_args: {{technique: FullFineTuning, order: [b, a]}}}}
seeds: [0, 1]
report: test/final_accuracy
trainer: {{max_epochs: 2}}
""")
    code, _, errors = here("check", "study.yaml", "--set", "trainer.max_epochs=3")
    assert code == 2 and "cannot be shared equally" in errors and len(errors.strip().splitlines()) == 2, errors
    code, _, errors = here("check", "study.yaml", "--set", "select_by=val/bwt_accuracy")
    assert code == 2 and "end of a sequence of tasks" in errors, errors
    code, _, errors = here("check", "study.yaml", "--set", "datasets.films.init_args.columns=null")
    assert code == 2 and "columns: {domain: COLUMN, group: COLUMN}" in errors, errors
    assert here("run", "study.yaml")[0] == 0
    runs = list(csv.DictReader(Path("results/turns/runs.csv").read_text().splitlines()))
    assert len(runs) == 2
    for run in runs:
        first, end = (float(run[f"{split}/accuracy_by_group/b"]) for split in ("test.after-1-b", "test"))
        assert float(run["test/bwt_accuracy"]) == pytest.approx(end - first)
    code, shown, errors = here("table", "study.yaml", "--columns",
                               "test/final_accuracy,test/bwt_accuracy,test/forgetting_accuracy")
    assert code == 0 and "forgetting" in shown, (shown, errors)
    assert here("report", "study.yaml")[0] == 0
    page = Path("results/turns/report.html").read_text()
    section = re.search(r'<section id="sequences">.*?</section>', page, re.DOTALL)
    assert section and all(text in section[0] for text in ("ACC", "BWT", "before any", "after b", "after a"))
