"""A constructed study of which some seeds collapsed, and some cells are equal in every seed."""

import csv
import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from invented import Invented
from scipy import stats

from ftlab.reports.columns import grid
from ftlab.reports.csv_files import table_lines, to_csv
from ftlab.reports.default_columns import default_table
from ftlab.reports.diagnoses.run_histories import diagnose, observe
from ftlab.reports.study_results import StudyResults

EXAMPLES = 400
TARGETS = [0] * 160 + [1] * 140 + [2] * 100  # who always names class 0 is right on 40%
RIGHT = {"lora": (360, 352, 170, 356, 348), "full": (352, 344, 348, 360, 340),
         "probe": (320,) * 5, "whole": (EXAMPLES,) * 5}


def constructed(right: dict[str, tuple[int, ...]], predicted: bool = True, clusters: int = 0) -> StudyResults:
    """A study whose runs are right on so many test examples, in so many clusters or none."""
    made = Invented(techniques=list(right), seeds=5, examples=0, epochs=1)
    records = []
    for record in made.book.records:
        runs = []
        for run, count in zip(record.runs, right[record.key.technique], strict=True):
            hit = np.zeros(EXAMPLES, bool)
            hit[np.random.default_rng(count).permutation(EXAMPLES)[:count]] = True
            said = np.where(hit, TARGETS, (np.array(TARGETS) + 1) % 3)
            columns = {"id": [str(n) for n in range(EXAMPLES)], "target": TARGETS,
                       "prediction": said.tolist(), "scores": np.eye(3)[said].tolist()}
            if clusters:
                columns["cluster"] = [n % clusters for n in range(EXAMPLES)]
            file = io.BytesIO()
            pq.write_table(pa.table(columns), file)
            if predicted:
                made.book.files[run.run_id] = file.getvalue()
            runs.append(replace(run, metrics=run.metrics | {"test/accuracy": float(np.float32(count / EXAMPLES)),
                                                            "test/loss": 1.0}))
        records.append(replace(record, runs=tuple(runs)))
    made.book.records = records
    return made.results().compared()


@pytest.fixture(scope="module")
def study() -> StudyResults:
    return constructed(RIGHT)


def lines(study: StudyResults) -> dict[str, dict[str, str]]:
    """`table.csv`, by technique."""
    numbers = table_lines(study.rows, study.metric)
    return {line["technique"]: line for line in csv.DictReader(io.StringIO(to_csv(list(numbers[0]), numbers)))}


def test_table__counts_collapsed_seeds_and_shows_medians(study):
    found = lines(study)
    assert {name: line["collapsed"] for name, line in found.items()} == {
        "lora": "1", "full": "0", "probe": "0", "whole": "0"}
    assert float(found["lora"]["median"]) == pytest.approx(352 / 400)
    about = dict(default_table(study).about)
    assert about["Collapses"] == (
        "1 of 5 seeds of lora collapsed (less than half of its best seed's gain over guessing); 5 seeds without "
        "a collapse (full, probe, whole) do not exclude one in 3, so that no test on means is sure of how these "
        "compare.")
    assert about["Medians"] == "lora 88.00 beside a mean of 79.30."
    assert dict(grid([study], ["test/accuracy", "test/loss"]).about)["Collapses (test/accuracy)"] == about["Collapses"]


def test_table__a_seed_beyond_half_of_the_way_to_guessing_has_not_collapsed():
    """Half of the way from 90% to 40% is 65%: at 260 of 400; without predictions guessing is 0."""
    assert [row.collapsed for row in constructed({"a": (360, 259, 360, 360, 360)}).rows] == [1]
    assert [row.collapsed for row in constructed({"a": (360, 261, 360, 360, 360)}).rows] == [0]
    assert [row.collapsed for row in constructed({"a": (360, 179, 181, 360, 360)}, predicted=False).rows] == [1]


def test_table__where_all_seeds_are_equal_the_interval_is_of_the_test_examples(study):
    found = lines(study)
    for name, right in (("probe", 320), ("whole", EXAMPLES)):
        low, high = stats.beta.ppf(0.025, right, EXAMPLES - right + 1), 1.0
        if right < EXAMPLES:
            high = stats.beta.ppf(0.975, right + 1, EXAMPLES - right)
        assert float(found[name]["ci_low"]) == pytest.approx(low)
        assert float(found[name]["ci_high"]) == pytest.approx(high)
        assert found[name]["interval"] == "Clopper-Pearson"
    assert found["full"]["interval"] == "logit"
    table = default_table(study)
    assert dict(table.about)["Numbers"].endswith(
        "one seed has neither. Where all seeds are equal (probe, whole) it is Clopper and Pearson's over the "
        "test examples, and says nothing of other seeds.")
    assert table.groups[0][1][3].texts[2] == "[99.08, 100.00]"


def test_table__clusters_widen_the_interval_of_the_test_examples():
    """All right: of 40 clusters each counts once, and less for the few degrees of freedom (Korn, Graubard)."""
    (row,) = constructed({"whole": (EXAMPLES,) * 5}, clusters=40).rows
    size = 40 * (stats.t.ppf(0.975, EXAMPLES - 1) / stats.t.ppf(0.975, 39)) ** 2
    assert row.summary.ci_low == pytest.approx(0.025 ** (1 / size))
    (row,) = constructed({"whole": (EXAMPLES,) * 5}, clusters=1).rows
    assert not row.summary.interval, "one cluster says nothing of others"


def test_table__without_predictions_equal_seeds_have_no_interval():
    study = constructed({"probe": (320,) * 5, "full": RIGHT["full"]}, predicted=False)
    table = default_table(study)
    assert table.groups[0][1][0].texts[2] == "-"
    assert dict(table.about)["Numbers"].endswith("Seeds that are all equal have none.")
    assert lines(study)["probe"]["ci_low"] == "nan" and lines(study)["probe"]["interval"] == ""


def test_diagnoses__say_the_same_and_what_seeds_would_find(study):
    found = {diagnosis.title: said for diagnosis, said in diagnose(
        observe(study, "val/accuracy", True)).items() if said}
    collapse, clean = found["Collapsed seeds"]
    assert collapse.seen == "1 of 5 seeds collapsed" and collapse.where.startswith("lora")
    assert clean.seen == "5 seeds without a collapse (full, probe, whole) do not exclude one in 3"
    (few,) = found["Too few seeds to tell"]
    assert few.seen.startswith("lora is not told from whole; the smallest difference that 80 of 100 studies of 6 "
                               "pairs would find is 43.54 points with 5 seeds, ")
    assert few.seen.endswith(" points with any number on 400 test examples")
