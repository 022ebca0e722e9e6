"""Scores over groups are those of each group's examples alone, in every world; fairlearn agrees."""

import csv
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import fairlearn.metrics
import numpy as np
import pytest
import torch
from fairlearn.metrics import MetricFrame
from matrix import WORLDS, build, make_world
from sklearn.metrics import accuracy_score, f1_score
from statsmodels.stats.proportion import proportion_confint

from ftlab.data.batches import pick
from ftlab.data.examples import Examples
from ftlab.data.groups import Groups, SplitScores, faulty_groups, groups_of, note_groups
from ftlab.data.text import TextClassification
from ftlab.reports.study_results import read
from ftlab.studies.study import load_study
from ftlab.tasks.classification import Classification
from ftlab.tasks.over_groups import bare, over_groups, parsed
from ftlab.tasks.regression import Regression
from ftlab.tracking.metric_facts import PER_CLASS
from ftlab.tracking.tracker import Tracker
from ftlab.training.evaluate import evaluate

UNRENDERED = True
Here = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("name", WORLDS)
def test_scores__are_those_of_the_groups_examples_alone(
    name: str, request: pytest.FixtureRequest
) -> None:
    data, model = build(make_world(name, request.getfixturevalue))
    ids = data.splits["test"].ids
    codes = torch.tensor([0 if number % 3 else 1 for number in range(len(ids))])
    groups = Groups(("few", "many"), codes, (0.25, 0.75))

    def of(group: int) -> dict[str, float]:
        rows, place = [], {}
        for batch in data.eval_loader("test"):
            inside = [i for i, index in enumerate(batch["index"].tolist()) if codes[index] == group]
            if inside:
                part = pick(batch, inside)
                for index in part["index"].tolist():
                    place[index] = len(place)
                rows.append({**part, "index": torch.tensor([place[i] for i in part["index"].tolist()])})
        return evaluate(model, rows, data.task, [""] * len(place), lambda batch: batch)[0]

    scores, _ = evaluate(model, data.eval_loader("test"), data.task, ids, lambda batch: batch,
                         groups=groups)
    alone = [of(0), of(1)]
    names = [metric for metric in data.task.metrics()
             if metric.make is not None and not metric.name.endswith(PER_CLASS)]
    assert names
    for metric in names:
        one, other = (part.get(metric.name, np.nan) for part in alone)
        if np.isnan(one) or np.isnan(other):  # a group of one class has no AUROC
            continue
        assert scores[f"{metric.name}_by_group/few"] == pytest.approx(one, rel=1e-4, abs=1e-6)
        assert scores[f"{metric.name}_by_group/many"] == pytest.approx(other, rel=1e-4, abs=1e-6)
        worst = (min if metric.higher_is_better else max)(one, other)
        assert scores[f"worst_{metric.name}"] == pytest.approx(worst, rel=1e-4, abs=1e-6)
        assert scores[f"gap_{metric.name}"] == pytest.approx(abs(one - other), rel=1e-3, abs=1e-6)
        mean = 0.25 * one + 0.75 * other
        assert scores[f"reweighted_{metric.name}"] == pytest.approx(mean, rel=1e-4, abs=1e-6)


def test_scores__are_fairlearns() -> None:
    generator = np.random.default_rng(0)
    target, group = generator.integers(0, 3, 300), generator.choice(["a", "b", "c", "d"], 300)
    logits = generator.normal(size=(300, 3)) + 1.5 * np.eye(3)[target] * (group != "c")[:, None]
    task = Classification()
    task.fit(["x", "y", "z"])
    scores = SplitScores(task, groups_of({
        "train": Examples(["0"] * 4, [], [], columns={"group": ["a", "b", "c", "d"]}),
        "test": Examples(["0"] * 300, [], [], columns={"group": group.tolist()})}, "test"))
    for rows in np.split(generator.permutation(300), 10):
        scores.update(torch.tensor(logits[rows]), {
            "target": torch.tensor(target[rows]), "index": torch.tensor(rows)})
    ours = scores.compute()
    theirs = MetricFrame(
        metrics={"accuracy": accuracy_score, "f1_macro": lambda t, p: f1_score(t, p, average="macro")},
        y_true=target, y_pred=logits.argmax(axis=1), sensitive_features=group)
    for name in ("accuracy", "f1_macro"):
        for value in "abcd":
            assert ours[f"{name}_by_group/{value}"] == pytest.approx(theirs.by_group[name][value])
        assert ours[f"worst_{name}"] == pytest.approx(theirs.group_min()[name])
        assert ours[f"gap_{name}"] == pytest.approx(theirs.difference()[name])
        assert ours[name] == pytest.approx(theirs.overall[name])


def test_worst__of_an_error_is_the_largest() -> None:
    task = Regression()
    task.fit([0.0, 1.0, 2.0])
    groups = Groups(("a", "b"), torch.tensor([0, 0, 1, 1]), (0.5, 0.5))
    scores = SplitScores(task, groups)
    scores.update(torch.zeros(4), {
        "target": torch.tensor([1.0, 1.0, 1.0, 3.0]), "index": torch.arange(4)})
    computed = scores.compute()
    assert computed["worst_rmse"] == max(computed["rmse_by_group/a"], computed["rmse_by_group/b"])
    assert not task.higher_is_better("worst_rmse") and not task.higher_is_better("gap_r2")
    assert task.higher_is_better("worst_r2") and task.higher_is_better("r2_by_group/a")


def test_facts__are_recorded_where_there_are_groups() -> None:
    task = Classification()
    assert not any("worst" in name for name in task.facts())
    task.groups = ("a", "b")
    facts = task.facts()
    assert facts["worst_accuracy"].unit == "share" and not facts["gap_accuracy"].higher_is_better
    assert "accuracy_by_group/<class>" in facts
    assert not any("loss" in metric.name or "f1/" in metric.name for metric in over_groups(task.metrics()))


def test_parsed__tells_metric_part_and_group() -> None:
    assert parsed("accuracy_by_group/a_b") == ("accuracy", "group", "a_b")
    assert parsed("worst_f1_macro") == ("f1_macro", "worst", "")
    assert parsed("f1/worst") is None and bare("f1/worst") == "f1/worst"
    assert bare("gap_rmse") == "rmse"


def examples(*groups: str) -> Examples:
    return Examples([str(i) for i in range(len(groups))], [], [], columns={"group": list(groups)})


def test_groups__of_one_example_or_too_many_have_no_scores() -> None:
    train = examples("a", "b", "c")
    assert note_groups({"train": train, "test": examples("a", "a", "b")}) == [
        "the test split has no example of group 'c', which has no score there",
        "the test split has one example of group 'b', which has no score there"]
    many = {"train": examples(*map(str, range(101)))}
    assert "101 values" in note_groups(many)[0] and groups_of(many, "train") is None
    assert note_groups({"train": Examples(["1"], [], [])}) == []
    groups = groups_of({"train": train, "test": examples("a", "a", "b")}, "test")
    assert groups is not None and groups.scored == {0}


@pytest.mark.parametrize(("groups", "metric", "what"), [
    ("aabbc", "worst_accuracy", "has one example of group 'c' in its test split"),
    ("aabb", "accuracy_by_group/z", "has no group 'z'"),
    ("aabb", "accuracy_by_group/c", "has no example of group 'c' in its test split"),
    ("aabb", "worst_auroc", "gives it no value for group 'a' of the test split: it tells classes apart"),
    ("", "worst_accuracy", "has none"),
    ("aabb", "worst_accuracy", None),
])
def test_metric_over_groups__that_says_nothing_is_named(groups: str, metric: str, what: str | None) -> None:
    task = Classification()
    task.fit(["x", "y"])
    splits = {"train": examples(*"abc"), "test": examples(*groups)}
    splits["test"].targets = [int(name == "b") for name in groups]
    if not groups:
        splits = {name: Examples(["1"], [], []) for name in splits}
    fault = faulty_groups(metric, task, splits, "test")
    assert (fault is None) == (what is None) and (what is None or what in fault.what)


def test_ranks__may_have_no_example_of_a_group(tmp_path: Path) -> None:
    """Two processes, each with one group alone, compute what one does with both."""
    torch.multiprocessing.spawn(rank_of_two, (str(tmp_path),), nprocs=2)
    alone = scores_of(range(8))
    assert torch.load(tmp_path / "0", weights_only=True) == pytest.approx(alone, rel=1e-6)
    assert torch.load(tmp_path / "1", weights_only=True) == pytest.approx(alone, rel=1e-6)


def scores_of(rows: Iterable[int]) -> dict[str, float]:
    task = Classification()
    task.fit(["x", "y"])
    logits = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    scores = SplitScores(task, Groups(("a", "b"), torch.arange(8) % 2, (0.5, 0.5)))
    for row in rows:
        batch = {"target": torch.tensor([row // 2 % 2]), "index": torch.tensor([row])}
        scores.update(logits[row:row + 1], batch, torch.tensor(float(row)))
    return scores.compute()


def rank_of_two(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(scores_of(range(rank, 8, 2)), f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


def table(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    path.write_text("text,label,lang\n" + "".join(",".join(row) + "\n" for row in rows))
    return path


@pytest.fixture
def study(tmp_path: Path, tiny_bert: Path) -> Callable[..., Path]:
    """A study of three languages, chosen by its worst."""
    def make(select_by: str = "val/worst_accuracy", columns: str = "{group: lang}") -> Path:
        texts = [(f"{word} film plot {number}", label, language) for number in range(4)
                 for language in ("de", "en", "fr")
                 for word, label in (("good", "pos"), ("bad", "neg"))]
        table(tmp_path / "train.csv", texts * 3)
        table(tmp_path / "test.csv", texts)
        path = tmp_path / "study.yaml"
        path.write_text(f"""\
name: whom
backbones: {{bert: {{class_path: HuggingFace, init_args: {{source: '{tiny_bert}'}}}}}}
datasets:
  films:
    class_path: TextClassification
    init_args: {{train: train.csv, test: test.csv, max_length: 16, columns: {columns}, split: {{validation: 0.3}}}}
techniques: {{full: FullFineTuning, probe: {{class_path: LinearProbe, init_args: {{solver: null}}}}, best: LinearProbe}}
seeds: [0, 1]
select_by: {select_by}
report: test/accuracy
trainer: {{max_epochs: 2}}
""")
        return path

    return make


def test_study__is_chosen_by_its_worst_group_with_every_loop(study: Callable[..., Path], here: Here) -> None:
    """The Trainer's, the stacked heads' and the solver's; without shortcuts it is the same."""
    path = study()
    for options in ((), ("--plain", "--tracking-uri", "sqlite:///plain.db", "--results", "plain")):
        code, _, errors = here("run", path, *options)
        assert code == 0, errors
    code, output, _ = here("table", path, "--columns", "test/worst_accuracy,test/accuracy_by_group/en")
    assert code == 0 and "test/worst_accuracy" in output
    rows = csv.DictReader(Path("results/whom/figures/example_groups.csv").read_text().splitlines())
    shown = {(row["technique"], row["part"], row["group"]): float(row["mean"])
             for row in rows if row["metric"] == "accuracy"}
    assert {(part, group) for _, part, group in shown} == {
        ("worst", ""), ("gap", ""), ("reweighted", ""), *(("group", name) for name in ("de", "en", "fr"))}
    quick, plain = (list(csv.DictReader(Path(folder, "whom", "runs.csv").read_text().splitlines())) for folder in (
        "results", "plain"))
    means = [float(run["test/worst_accuracy"]) for run in quick if run["technique"] == "full"]
    assert shown["full", "worst", ""] == pytest.approx(np.mean(means))
    over = [name for name in quick[0] if re.search("/(worst|gap|reweighted)_|_by_group/", name)]
    assert len(quick) == 6 and "val/worst_accuracy" in over
    for one, other in zip(quick, plain, strict=True):
        assert one["technique"] == other["technique"] and one["seed"] == other["seed"]
        for name in over:
            assert float(one[name]) == pytest.approx(float(other[name]), abs=1e-4), name


def test_report__says_whom_each_technique_fails(study: Callable[..., Path], here: Here) -> None:
    """Scores, intervals and differences are those of the stored predictions."""
    path = study()
    assert here("run", path, "--only", "probe", "--only", "full")[0] == 0
    code, _, errors = here("report", path)
    assert code == 0, errors
    page = Path("results/whom/report.html").read_text()
    section = page[page.index('<section id="groups">'):]
    tables = [[re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall("<tr>(.*?)</tr>", part)]
              for part in section[:section.index("</section>")].split("<table>")[1:]]
    whole, each = ({row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[1:]} for rows in tables)
    tracker = Tracker("sqlite:///mlflow.db")
    stored = read(load_study(path), tracker).directed()
    for key in stored.keys:
        if key.technique == "best":
            continue
        runs = [stored.predictions(run) for run in stored.runs(key)]
        assert len(runs) == 2
        shown = whole[key.technique]
        for heading, measure in (("parity difference", fairlearn.metrics.demographic_parity_difference),
                                 ("odds difference", fairlearn.metrics.equalized_odds_difference)):
            wanted = [100 * measure([t == "pos" for t in run["target"]], [p == "pos" for p in run["prediction"]],
                                    sensitive_features=run["column.group"]) for run in runs]
            assert shown[heading].startswith(f"{np.mean(wanted):.2f} ±"), (heading, wanted)
        worst = [stored.values(key, "test/worst_accuracy")[seed] for seed in (0, 1)]
        assert shown["worst group"].startswith(f"{100 * np.mean(worst):.2f} ± ")
        right = np.mean([[t == p for t, p, g in zip(run["target"], run["prediction"], run["column.group"],
                                                    strict=True) if g == "fr"] for run in runs])
        low, high = proportion_confint(right * 8, 8, method="wilson")
        assert each["fr"]["test examples"] == "8"
        assert each["fr"][key.technique] == f"{100 * right:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
    tracker.close()


def test_report__has_no_such_section_without_groups(study: Callable[..., Path], here: Here) -> None:
    path = study(select_by="val/accuracy", columns="{lang: lang}")
    assert here("run", path, "--only", "probe", "--seeds", "0")[0] == 0
    assert here("report", path)[0] == 0
    assert 'id="groups"' not in Path("results/whom/report.html").read_text()


def test_named_sets_and_variants__have_scores_of_groups(study: Callable[..., Path], here: Here) -> None:
    path = study()
    table(path.parent / "other.csv", [(f"{word} cast {n}", label, language) for n in range(2)
                              for language in ("de", "en") for word, label in (("good", "pos"), ("bad", "neg"))])
    path.write_text(path.read_text().replace("test: test.csv,", "test: test.csv, tests: {other: other.csv},").replace(
        "{full: FullFineTuning,", "{mixed: {class_path: WiSEFT, init_args: {technique: FullFineTuning, curve: [0.0, 0.5]}, "
        "before: [{technique: LinearProbe, carry: all}]},"))
    code, output, errors = here("run", path, "--only", "mixed", "--seeds", "0")
    assert code == 0, output + errors
    (run,) = csv.DictReader(Path("results/whom/runs.csv").read_text().splitlines())
    for split, names in (("test.other", "de en"), ("test.alpha-0", "de en fr"), ("test.alpha-0.5", "de en fr")):
        each = [float(run[f"{split}/accuracy_by_group/{name}"]) for name in names.split()]
        assert float(run[f"{split}/worst_accuracy"]) == min(each)
    assert "test.other/accuracy_by_group/fr" not in run


@pytest.mark.parametrize(("arguments", "what"), [
    ({"columns": "{}"}, "val/worst_accuracy is over groups, and data set films has none"),
    ({"select_by": "val/worst_acuracy"}, "did you mean 'worst_accuracy'?"),
    ({"columns": "{group: tongue}"}, "tongue"),
])
def test_study__is_refused_before_anything_runs(
    study: Callable[..., Path], here: Here, arguments: dict[str, Any], what: str
) -> None:
    code, _, errors = here("check", study(**arguments))
    assert code == 2 and what in errors


def test_module__knows_its_groups(study: Callable[..., Path], tmp_path: Path,
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    study()
    monkeypatch.chdir(tmp_path)
    data = TextClassification("train.csv", test="test.csv", columns={"group": "lang"})
    data.load()
    assert data.task.groups == ("de", "en", "fr")
    groups = groups_of(data.splits, "test")
    assert groups is not None and groups.shares == pytest.approx((1 / 3,) * 3, rel=0.05)
    assert [groups.names[code] for code in groups.codes.tolist()] == data.splits["test"].columns["group"]
