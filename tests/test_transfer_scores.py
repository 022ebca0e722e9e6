"""`ftlab transferability`: backbones scored, held to a study's results, written and refused."""

import csv
import math
from pathlib import Path

import pytest
import transformers as hf
import yaml
from scipy import stats

from ftlab.errors import InputError
from ftlab.reports.backbone_scores import BackboneScores, Transferability
from ftlab.statistics.rank_agreement import agreement
from ftlab.statistics.transferability.all_scores import all_scores
from ftlab.studies.study import load_study
from ftlab.tracking.tracker import Tracker
from ftlab.transfer_scores import transferability

UNRENDERED = True
POOLINGS = ("mean", "first", "max", "last")
REACHED = {"probe": (0.9, 0.7, 0.8, 0.6), "full": (0.95, 0.9, 0.97, 0.93)}


def written(folder: Path, bert: Path, reviews: Path, **changes: object) -> Path:
    """A study of one network with four poolings."""
    data = {
        "name": "which",
        "backbones": {pooling: {"class_path": "HuggingFace",
                                "init_args": {"source": str(bert), "pooling": pooling}}
                      for pooling in POOLINGS},
        "datasets": {"reviews": {"class_path": "TextClassification",
                                 "init_args": {"train": str(reviews), "max_length": 8}}},
        "techniques": {"probe": "LinearProbe", "full": "FullFineTuning"},
        "seeds": [0, 1], "select_by": "val/accuracy", "trainer": {"max_epochs": 1}}
    path = folder / "which.yaml"
    path.write_text(yaml.safe_dump(data | changes, sort_keys=False))
    return path


def fill(study, uri: str) -> None:
    """The store, as if the study had run."""
    tracker = Tracker(uri)
    tracker.open_study(study.name, {})
    for place, cell in enumerate(study.cells):
        reached = REACHED[cell.key.technique][POOLINGS.index(cell.key.backbone)]
        opened = tracker.open_cell(cell.key, cell.config, study.seeds, place, place)
        for seed in study.seeds:
            run = tracker.open_run(opened, seed, cell.config | {"seed": seed})
            tracker.log_metrics(run, {"test/accuracy": reached + (-1) ** seed * 0.01}, 0, 1)
            tracker.end_run(run, "FINISHED")
        tracker.end_cell(opened)
    tracker.close()


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def lines(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_command__scores_and_their_agreement(here, tmp_path, tiny_bert, reviews, store,
                                             monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    path = written(tmp_path, tiny_bert, reviews)
    fill(load_study(path), store)
    code, output, errors = here("transferability", path, "--results", tmp_path / "results")
    assert (code, errors) == (0, "")
    folder = tmp_path / "results" / "which" / "transferability"
    assert {file.name for file in folder.iterdir()} == {
        f"{name}.{kind}" for name in ("scores", "agreement")
        for kind in ("csv", "md", "tex", "html")}
    names = [score.name for score in all_scores()]
    with_features = [score.name for score in all_scores() if score.reads == "features"]
    scores = lines(folder / "scores.csv")
    assert [row["backbone"] for row in scores] == list(POOLINGS)
    assert list(scores[0]) == ["dataset", "backbone", "examples", "features", *names,
                               "probe", "full"]
    for row in scores:
        assert row["features"] == "32"
        assert all(math.isfinite(float(row[name])) for name in with_features)
        assert row["LEEP"] == row["NCE"] == ""
    assert [float(row["probe"]) for row in scores] == pytest.approx(REACHED["probe"])
    for row in lines(folder / "agreement.csv"):
        if row["score"] not in with_features:
            assert (row["backbones"], row["tau"]) == ("0", "nan")
            continue
        expected = stats.weightedtau([float(s[row["score"]]) for s in scores],
                                     REACHED[row["technique"]]).statistic
        assert float(row["tau"]) == pytest.approx(expected)
        assert row["backbones"] == "4"
        assert float(row["by_chance"]) == pytest.approx(1)
    assert "4 backbones leave tau +-1.00" in output
    assert "hardly techniques" in output
    assert "reviews from first: 84 examples of 32 features, 7 scores" in output
    assert "LEEP and NCE: a head on pooled features" in output


def test_scores__again_the_same_bytes(tmp_path, tiny_bert, reviews, store) -> None:
    study = load_study(written(tmp_path, tiny_bert, reviews))
    study = study.with_cells(study.cells[:6])  # three backbones
    fill(study, store)
    first = transferability(study, store, tmp_path / "one")
    again = transferability(study, store, tmp_path / "two")
    assert [path.name for path in first.paths] == [path.name for path in again.paths]
    for one, other in zip(first.paths, again.paths, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_scores__before_the_study_has_run(here, tmp_path, tiny_bert, reviews) -> None:
    path = written(tmp_path, tiny_bert, reviews)
    code, output, errors = here("transferability", path, "--results", tmp_path / "results")
    assert (code, errors) == (0, "")
    assert "no tracking store" in output
    assert "no results yet" in output
    folder = tmp_path / "results" / "which" / "transferability"
    assert not (folder / "agreement.csv").exists()
    assert not (tmp_path / "mlflow.db").exists()


def test_scores__of_a_study_with_other_settings(tmp_path, tiny_bert, reviews, store) -> None:
    path = written(tmp_path, tiny_bert, reviews)
    study = load_study(path)
    fill(study.with_cells(study.cells[:1]), store)
    made = transferability(load_study(path, ["trainer.max_epochs=3"]), store, tmp_path / "results")
    assert made.techniques == ()
    assert "none with these settings" in made.notes[0]


def test_scores__of_a_checkpoints_own_classes(tmp_path, tiny_bert, reviews, store) -> None:
    config = hf.BertConfig.from_pretrained(tiny_bert, num_labels=5)
    hf.BertForSequenceClassification(config).save_pretrained(tmp_path / "five")
    for file in tiny_bert.glob("*token*"):
        (tmp_path / "five" / file.name).write_bytes(file.read_bytes())
    study = load_study(written(tmp_path, tiny_bert, reviews, backbones={
        "five": {"class_path": "HuggingFace", "init_args": {"source": str(tmp_path / "five")}}}))
    made = transferability(study, store, tmp_path / "results")
    row, = made.rows
    assert row.lacking == ()
    assert row.scores["LEEP"] == pytest.approx(-math.log(2), abs=0.05)  # random weights
    assert -math.log(2) <= row.scores["NCE"] <= 0


def test_scores__a_backbone_whose_head_has_layers_is_a_row_without(tmp_path, tiny_bert, reviews,
                                                                   store) -> None:
    config = hf.DistilBertConfig(vocab_size=40, dim=32, n_heads=2, n_layers=1, hidden_dim=48)
    hf.DistilBertModel(config).save_pretrained(tmp_path / "distil")
    for file in tiny_bert.glob("*token*"):
        (tmp_path / "distil" / file.name).write_bytes(file.read_bytes())
    own = {"class_path": "HuggingFace", "init_args": {"source": str(tmp_path / "distil")}}
    mean = {"class_path": "HuggingFace", "init_args": own["init_args"] | {"pooling": "mean"}}
    study = load_study(written(tmp_path, tiny_bert, reviews, backbones={"own": own, "mean": mean}))
    said: list[str] = []
    made = transferability(study, store, tmp_path / "results", said.append)
    assert [bool(row.scores) for row in made.rows] == [False, True]
    assert "not one linear layer" in made.rows[0].lacking[0]
    assert said[0].startswith("reviews from own: not scored")
    alone = load_study(written(tmp_path, tiny_bert, reviews, backbones={"own": own}))
    with pytest.raises(InputError, match="no backbone has features to score") as caught:
        transferability(alone, store, tmp_path / "results")
    assert "pooling" in caught.value.mend


def numbers(folder: Path) -> Path:
    path = folder / "numbers.csv"
    path.write_text("text,label\n" + "".join(f"good fine {i},{i / 60}\n" for i in range(60)))
    return path


def test_scores__data_without_classes(here, tmp_path, tiny_bert, reviews, store) -> None:
    regression = {"class_path": "TextClassification", "init_args": {
        "train": str(numbers(tmp_path)), "max_length": 8, "task": "Regression"}}
    path = written(tmp_path, tiny_bert, reviews, select_by="val/loss",
                   datasets={"numbers": regression})
    code, _, errors = here("transferability", path, "--results", tmp_path / "results")
    assert code == 2
    assert "no data set has one class an example" in errors
    assert "mend: take a study of classification" in errors
    assert not (tmp_path / "results").exists()


def test_scores__of_the_data_with_classes_beside_other_data(tmp_path, tiny_bert, reviews,
                                                            store) -> None:
    datasets = {"numbers": {"class_path": "TextClassification", "init_args": {
                    "train": str(numbers(tmp_path)), "max_length": 8, "task": "Regression"}},
                "reviews": {"class_path": "TextClassification",
                            "init_args": {"train": str(reviews), "max_length": 8}}}
    study = load_study(written(tmp_path, tiny_bert, reviews, select_by="val/loss",
                               datasets=datasets))
    made = transferability(study, store, tmp_path / "results")
    assert {row.dataset for row in made.rows} == {"reviews"}
    assert any(note.startswith("numbers") for note in made.notes)


def rows(reached, scores=(1.0, 2.0, 3.0, 4.0, 5.0)):
    return tuple(BackboneScores(f"b{place}", "d", {"LogME": score}, {"probe": value})
                 for place, (score, value) in enumerate(zip(scores, reached, strict=True)))


def made_of(rows, techniques=("probe",)):
    return Transferability("s", "test/accuracy", True, ("LogME",), techniques, rows)


def test_tables__numbers_intervals_and_the_best() -> None:
    made = made_of(rows((0.5, 0.7, 0.6, 0.9, 0.8)))
    (_, scored), = made.table.groups
    assert made.table.headings == ("backbone", "LogME", "probe, %")
    assert [line.bold for line in scored] == [frozenset()] * 4 + [frozenset({1})]
    assert [line.texts[2] for line in scored] == ["50.00", "70.00", "60.00", "90.00", "80.00"]
    expected = agreement((1, 2, 3, 4, 5), (0.5, 0.7, 0.6, 0.9, 0.8))
    (_, (line,)), = made.agreements.groups
    interval = f"[{expected.low:.2f}, {expected.high:.2f}]"
    assert line.texts == ("LogME", "5", f"{expected.tau:.2f} {interval}")
    assert made.sentences[0].startswith("5 backbones leave tau +-0.82")


def test_tables__where_less_is_better() -> None:
    reached = (0.5, 0.7, 0.6, 0.9, 0.8)
    upwards, downwards = (
        Transferability("s", "test/loss", higher, ("LogME",), ("probe",), rows(reached))
        for higher in (True, False))
    assert upwards.foretold[0].agreement == agreement((1, 2, 3, 4, 5), reached)
    turned = [-value for value in reached]
    assert downwards.foretold[0].agreement == agreement((1, 2, 3, 4, 5), turned)
    assert downwards.foretold[0].agreement.tau < 0


def test_tables__two_backbones_are_no_order() -> None:
    made = made_of(rows((0.5, 0.7), (1.0, 2.0)))
    (_, (line,)), = made.agreements.groups
    assert line.texts == ("LogME", "2", "-")
    assert "no order" in made.sentences[0]
