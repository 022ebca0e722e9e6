"""Examples that belong together: whom the column `cluster` names, equal inputs, parts of one text."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matrix import WORLDS, make_world
from scipy.sparse.csgraph import connected_components
from statsmodels.stats.proportion import proportion_confint

from ftlab.data.causal_lm import CausalLM
from ftlab.data.clusters import clusters_of
from ftlab.data.masked_lm import MaskedLM
from ftlab.data.text import TextClassification
from ftlab.errors import InputError
from ftlab.reports.study_results import read
from ftlab.statistics.clusters import by_cluster, effective_size
from ftlab.statistics.paired import over_both
from ftlab.studies.study import load_study
from ftlab.techniques.untuned import Untuned
from ftlab.tracking.tracker import Tracker
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
Here = Callable[..., tuple[int, str, str]]


def test_clusters__are_the_connected_components() -> None:
    generator = np.random.default_rng(0)
    for count, names in ((40, 60), (60, 40), (30, 500)):
        keys = generator.integers(0, names, (2, count))
        number, wanted = connected_components((keys[:, :, None] == keys[:, None, :]).any(axis=0))
        assert clusters_of(*keys.tolist()) == wanted.tolist()
        assert 1 < number < count


@pytest.mark.parametrize("name", WORLDS)
def test_equal_inputs__are_clusters_in_every_world(name: str, request: pytest.FixtureRequest) -> None:
    """The test split twice over, as another file of the same rows would have it."""
    backbone, data = make_world(name, request.getfixturevalue)()
    part = data._part_of
    data._part_of = lambda split, examples: part(split, examples).take(  # type: ignore[method-assign]
        [*range(len(part(split, examples)))] * (1 + (split == "test")))
    data.load()
    half = len(data.splits["test"]) // 2
    found = data.splits["test"].clusters
    assert found[:half] == found[half:] and max(found) < half
    data.connect(backbone, 0)
    assert len(data.splits["test"].clusters) == len(data.splits["test"].ids)
    assert data.splits["train"].clusters == []


def write(path: Path, rows: Sequence[tuple[str, str, str]]) -> Path:
    path.write_text("text,label,who\n" + "".join(",".join(row) + "\n" for row in rows))
    return path


def films(count: int, who: Callable[[int], str], first: int = 0) -> list[tuple[str, str, str]]:
    words = (("good", "pos"), ("bad", "neg"))
    return [(f"{words[n % 2][0]} film plot {n + first}", words[n % 2][1], who(n)) for n in range(count)]


def test_chunks__of_one_text_are_one_cluster(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    texts = [(" ".join(["good bad film plot"] * (1 + n % 3)) + f" {n}", "pos", f"author {n // 2}") for n in range(30)]
    path = str(write(tmp_path / "texts.csv", texts))
    for world, module, more in (("causal_lm", CausalLM, {"prompt": None, "response": "{text}"}),
                                ("masked_lm", MaskedLM, {})):
        backbone, _ = make_world(world, request.getfixturevalue)()
        data = module(path, max_length=6, **more)
        data.connect(backbone, 0)
        test = data.splits["test"]
        owners = [":".join(name.split(":")[:2]) for name in test.ids]
        assert len(set(owners)) < len(owners)
        assert test.clusters == clusters_of(owners), world
        data = module(path, max_length=6, columns={"cluster": "who"}, **more)
        data.connect(backbone, 0)
        assert data.splits["test"].clusters == clusters_of(data.splits["test"].columns["cluster"]), world


def test_plain_texts__are_measured_with_their_clusters(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = write(tmp_path / "texts.csv", films(40, lambda n: f"author {n // 4}"))
    backbone, _ = make_world("causal_lm", request.getfixturevalue)()
    data = CausalLM(str(path), prompt=None, response="{text}", max_length=4, columns={"cluster": "who"})
    run = Run(backbone, data, Untuned(), TrainerSettings(max_epochs=1), 0, "val/loss", tmp_path / "run")
    run.directory.mkdir()
    assert "test/loss" in execute(run, lambda event: None)
    records = pd.read_parquet(run.directory / "predictions" / "test.parquet")
    assert len(records) > 8 and records["column.cluster"].tolist() == data.splits["test"].columns["cluster"]
    assert records["cluster"].tolist() == clusters_of(records["column.cluster"].tolist())


@pytest.mark.parametrize(("column", "cell", "says"), [
    ("speaker", "x", "a.csv has no column 'speaker': it has: text, label, who"),
    ("who", "", "row 3: column 'who' is empty"),
])
def test_column__that_is_not_there_is_refused(tmp_path: Path, column: str, cell: str, says: str) -> None:
    rows = films(20, str)
    rows[2] = (*rows[2][:2], cell)
    with pytest.raises(InputError) as refused:
        TextClassification(str(write(tmp_path / "a.csv", rows)), columns={"cluster": column}).load()
    assert says in f"{refused.value.what}: {refused.value.mend}"
    assert "\n" not in refused.value.what + refused.value.mend


@pytest.fixture
def study(tmp_path: Path, tiny_bert: Path) -> Path:
    """Test texts of 12 people, two of whom wrote one text alike; the set `plain` has each person once."""
    write(tmp_path / "train.csv", films(32, str))
    rows = films(48, lambda n: f"p{n // 4}", first=100)
    rows[5] = (rows[1][0], rows[5][1], rows[5][2])  # p1 wrote what p0 wrote
    write(tmp_path / "test.csv", rows[:47])
    write(tmp_path / "plain.csv", films(20, str, first=300))
    path = tmp_path / "study.yaml"
    path.write_text(f"""\
name: together
backbones: {{bert: {{class_path: HuggingFace, init_args: {{source: '{tiny_bert}'}}}}}}
datasets:
  films:
    class_path: TextClassification
    init_args: {{train: train.csv, test: test.csv, tests: {{plain: plain.csv}}, max_length: 16, columns: {{cluster: who, group: label}}}}
techniques: {{few: {{class_path: LinearProbe, init_args: {{solver: null}}}}, probe: LinearProbe}}
seeds: [0, 1, 2]
trainer: {{max_epochs: 1}}
""")
    return path


def test_study__tests_over_clusters(study: Path, here: Here) -> None:
    """From the runs to the table, the tests and the page, against the stored predictions."""
    code, output, errors = here("run", study)
    assert code == 0, output + errors
    note = Path("results/together/table.md").read_text()
    assert "t test over seeds and clusters, n = 3 seeds, n = 11 clusters of 47 examples" in note
    tracker = Tracker("sqlite:///mlflow.db")
    stored = read(load_study(study), tracker).directed()
    clusters = [max(0, n // 4 - 1) for n in range(47)]  # p0 and p1 are one
    right = {}
    for key in stored.keys:
        runs = [stored.predictions(run) for run in stored.runs(key)]
        assert [run["cluster"] for run in runs] == [clusters] * 3
        right[key.technique] = np.array([[float(t == p) for t, p in zip(
            run["target"], run["prediction"], strict=True)] for run in runs])
        of_group = np.array(runs[0]["target"]) == "pos"
        plain = stored.predictions(stored.runs(key)[0], "test.plain")
        assert "column.cluster" in plain and "cluster" not in plain
    tracker.close()
    table = right["few"] - right["probe"]
    wanted = over_both(by_cluster(table, clusters))
    assert wanted.difference == pytest.approx(table.mean()) and table.any()
    (row,) = csv.DictReader(Path("results/together/tests.csv").read_text().splitlines())
    assert (row["test"], row["examples"]) == ("t test over seeds and clusters", "11")
    assert [float(row[name]) for name in ("difference", "ci_low", "ci_high", "p")] == pytest.approx(
        [wanted.difference, max(-1, wanted.low), min(1, wanted.high), wanted.p], abs=1e-9)
    code, _, errors = here("report", study)
    assert code == 0, errors
    page = Path("results/together/report.html").read_text()
    assert "3 seeds, 11 clusters of 47 examples" in page
    (line,) = [line for line in re.findall("<tr>(.*?)</tr>", page) if re.match("<t[dh][^>]*>pos<", line)]
    scored = right["few"][:, of_group]
    size = min(effective_size(row, np.array(clusters)[of_group].tolist()) for row in scored)
    low, high = proportion_confint(scored.mean() * size, size, method="wilson")
    assert f"{100 * scored.mean():.2f} [{100 * low:.2f}, {100 * high:.2f}]" in line
