"""What a study with a baseline says of the others, and which family its tests are."""

import io
import math

import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from ftlab.reports import csv_files
from ftlab.reports.against_baseline import family, sentences
from ftlab.reports.comparison import compare
from ftlab.tracking.cell_metric import CellMetric
from ftlab.tracking.records import CellKey

GROUP = ("minilm", "bbc")
SPREADS = {"full": (0, 1, -1, 0, 0), "lora": (1, 0, -1, 0.5, -0.5), "probe": (0, -1, 0, 1, 0),
           "ia3": (-1, 0, 0, 0, 1)}


def cell(name, mean, size=0.001, seeds=5, group=GROUP):
    values = {seed: mean + size * SPREADS[name][seed] for seed in range(seeds)}
    return CellMetric(CellKey("study", *group, name, name), values)


def raw(comparison, other):
    """The p-value without a correction."""
    return comparison.against[other].decides.p


FULL, LORA, PROBE, IA3 = (cell("full", 0.8), cell("lora", 0.8002), cell("probe", 0.6),
                          cell("ia3", 0.88))


def test_it_is_said_what_is_kept_and_what_differs():
    comparison = compare(GROUP, [FULL, LORA, PROBE, IA3], True, "full")
    (said,) = sentences([comparison], "test/accuracy")
    assert said == ("Of full's accuracy, 80.00%, ia3 keeps 110.0%, lora 100.0%, probe 75.0%; "
                    "ia3 (p < 0.001) is significantly better than full; probe (p < 0.001) is "
                    f"significantly worse than full; lora (p = {raw(comparison, 'lora'):.3f}) does not "
                    "differ significantly from it.")


def test_the_pairs_with_the_baseline_are_corrected_among_themselves():
    cells = [FULL, LORA, cell("probe", 0.799), cell("ia3", 0.8008)]
    comparison = compare(GROUP, cells, True, "full")
    expected = multipletests([raw(comparison, other) for other in comparison.against], method="holm")[1]
    assert [pair.p for pair in comparison.against.values()] == pytest.approx(list(expected))
    assert list(comparison.against) == ["lora", "probe", "ia3"]
    whole = compare(GROUP, cells, True)
    assert comparison.pairs == whole.pairs, "the family of all pairs stays as it is"
    assert comparison.standing == whole.standing
    assert not whole.against
    assert any(comparison.against[b].p < comparison.pairs["full", b].p for b in comparison.against)


def test_tests_csv_has_both_corrections():
    comparison = compare(GROUP, [LORA, FULL, PROBE], True, "full")
    found = pd.read_csv(io.StringIO(csv_files.tests_csv([comparison]))).set_index(["a", "b"])
    assert found.p_baseline["lora", "full"] == comparison.against["lora"].p
    assert math.isnan(found.p_baseline["lora", "probe"])
    assert found.p_holm["full", "probe"] == comparison.pairs["full", "probe"].p


def test_where_lower_is_better_differences_are_said_and_not_shares():
    cells = [cell("full", 0.20), cell("lora", 0.15), cell("probe", 0.40)]
    (said,) = sentences([compare(GROUP, cells, False, "full")], "test/wer")
    assert said.startswith("Against full's wer, 20.00%: lora -5.00 points, probe +20.00 points; lora")
    assert "lora (p < 0.001) is significantly better than full" in said
    assert "probe (p < 0.001) is significantly worse than full" in said
    loss = [cell("full", -0.5), cell("lora", -0.25)]
    (said,) = sentences([compare(GROUP, loss, True, "full")], "test/score")
    assert said.startswith("Against full's score, -0.5000: lora +0.2500; lora (p < 0.001) is")


def test_one_seed_says_how_sure_it_is_not():
    cells = [cell("full", 0.8, seeds=1), cell("lora", 0.699, seeds=1)]
    (said,) = sentences([compare(GROUP, cells, True, "full")], "test/accuracy")
    assert said == ("Of full's accuracy, 80.00%, lora keeps 87.5%; with fewer than three "
                    "seeds in common it is these trained models that are compared, and nothing is "
                    "claimed of the techniques.")
    mixed = [cell("full", 0.8), cell("lora", 0.8002), cell("probe", 0.7, seeds=1)]
    (said,) = sentences([compare(GROUP, mixed, True, "full")], "test/accuracy")
    assert said.endswith("does not differ significantly from it; probe was not tested.")


def test_nothing_differs():
    cells = [FULL, cell("lora", 0.8005), cell("ia3", 0.8003)]
    comparison = compare(GROUP, cells, True, "full")
    (said,) = sentences([comparison], "test/accuracy")
    least = min(pair.p for pair in comparison.against.values())
    assert said.endswith(f"; none of them differs significantly from full (p = {round(least, 3)} or more).")


@pytest.mark.parametrize("cells, baseline", [
    ([LORA, PROBE], "full"),  # it failed, or is not among --only
    ([LORA, PROBE], ""),
    ([FULL], "full"),         # nobody beside it
    ([], "full"),
])
def test_without_a_complete_baseline_nothing_is_said(cells, baseline):
    comparison = compare(GROUP, cells, True, baseline)
    assert sentences([comparison], "test/accuracy") == []
    assert family([comparison]) == ""


def test_many_groups_are_counted():
    groups = [("minilm", f"data{n}") for n in range(5)]
    probes = [0.6, 0.6, 0.8002, 0.9, 0.6]
    found = [compare(group, [cell("full", 0.8), cell("probe", mean)], True, "full")
             for group, mean in zip(groups, probes, strict=True)]
    assert sentences(found, "test/accuracy") == [
        ("Significantly better and worse than full in accuracy, of all backbones and data sets: "
         "probe 1 times and 3 times of 5.")]
    few = sentences(found[:2], "test/accuracy")
    assert [each.split(",")[0] for each in few] == [
        f"Of full's accuracy on data{n} from minilm" for n in range(2)]
    assert "over the 1 pair with the baseline" in family(found)
