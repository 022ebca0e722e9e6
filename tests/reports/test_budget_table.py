import csv
import io
import math
import random
import re
from dataclasses import replace

import pytest

from ftlab.reports.budget_table import columns, ranking
from ftlab.reports.colours import COLOURS, styles
from ftlab.reports.sweep_figures import draw_budget, draw_front
from ftlab.reports.sweep_report import contents
from ftlab.reports.trial_scores import tried
from ftlab.statistics.budget_curve import budget_curve, with_random_band
from ftlab.tracking.records import CellKey, TrialRecord

ACCURACY = "val/accuracy"
SIZE = "cost/trainable_parameters"


def key(technique, dataset="bbc"):
    return CellKey("study", "minilm", dataset, technique, f"c0ffee {technique} {dataset}")


def trials(cell, values, states="", **costs):
    """A trial a value: a number is what it gave; states are C, P, F or R, complete unless said."""
    words = {"C": "COMPLETE", "P": "PRUNED", "F": "FAIL", "R": "RUNNING"}
    made = []
    for number, (value, state) in enumerate(zip(values, states.ljust(len(values), "C"), strict=True)):
        metrics = {f"objective/{ACCURACY}": value, ACCURACY: 0.0} if value is not None else {}
        metrics |= {f"objective/{name}": each[number] for name, each in costs.items()}
        params = {f"{cell.technique}.lr": repr(0.001 * (number + 1)), "seed": "0"}
        made.append(TrialRecord(f"{cell.technique}{number}", cell, number, words[state], "",
                                metrics, params))
    return made


def write(cells, records, objectives=(ACCURACY,), higher=(True,), settled=(), sampler=""):
    rows = tried(cells, records, objectives, higher[0], settled, sampler)
    searched = {cell.technique: ["lr"] for cell in cells}
    return rows, contents("Sweep s.", rows, objectives, higher, searched, ranking(rows, higher[0]))


def lines(text):
    return list(csv.DictReader(io.StringIO(text)))


FULL, LORA, PROBE = key("full"), key("lora"), key("probe")
CELLS = [FULL, LORA, PROBE]


def usual():
    """Full is better at first, lora with more trials; one of probe's failed, one was pruned."""
    return [
        *trials(FULL, [0.80, 0.80, 0.80, 0.80]),
        *trials(LORA, [0.50, 0.90, 0.75, 0.95]),
        *trials(PROBE, [0.60, 0.40, None, 0.70], "CPFC"),
    ]


def test_contents__same_trials_same_bytes_whatever_the_order():
    records = usual()
    _, first = write(CELLS, records)
    random.Random(0).shuffle(records)
    assert write(CELLS, records)[1] == first
    assert list(first) == ["budget.md", "budget.csv", "budget.png"]
    assert first["budget.png"].startswith(b"\x89PNG")
    assert b"tIME" not in first["budget.png"] and b"Software" not in first["budget.png"]


def test_contents__the_table_has_the_curve_and_the_csv_its_numbers():
    _, files = write(CELLS, usual())
    full, lora, probe = lines(files["budget.csv"])
    assert [name for name in lora if name.startswith("k=") and " " not in name] == \
        ["k=1", "k=2", "k=4"]
    assert float(lora["k=1"]) == pytest.approx(0.775)
    assert float(lora["k=2"]) == pytest.approx((3 * 0.95 + 2 * 0.90 + 0.75) / 6)
    assert (float(lora["k=4"]), float(lora["own"])) == (0.95, 0.5)
    assert full["k=2 low"] == full["k=2 high"] == "", "nobody says how the trials were drawn"
    assert (probe["complete"], probe["pruned"], probe["failed"]) == ("2", "1", "1")
    text = files["budget.md"]
    assert "| lora | 4 | 50.00 | 77.50 | 90.00 | 95.00 |" in text
    assert "no random sample" in text and "in brackets" not in text
    assert "after k = 1 | k = 2 | k = 4 |" in text


def test_contents__a_band_where_trials_were_drawn_at_random():
    rows, files = write(CELLS, usual(), sampler="RandomSampler")
    assert [row.band for row in rows] == ["random", "random", "pruned"]
    _, lora, probe = lines(files["budget.csv"])
    drawn = [0.90, 0.75, 0.95]  # the own setting was not
    wanted = with_random_band(budget_curve([0.50, *drawn]), drawn, (0.0, 1.0))
    assert [(float(lora[f"k={k} low"]), float(lora[f"k={k} high"])) for k in (1, 2, 4)] == [
        (wanted[k - 1].low, wanted[k - 1].high) for k in (1, 2, 4)]
    assert probe["k=4 low"] == probe["k=4 high"] == "" and probe["k=4"] == "0.7"
    assert "Kolmogorov" in files["budget.md"] and "Where trials were pruned" in files["budget.md"]
    assert r"\[" in next(line for line in files["budget.md"].splitlines() if line.startswith("| lora"))


def test_contents__several_searches_are_a_mean_and_a_spread():
    further = [replace(t, search=1) for t in trials(LORA, [0.60, 0.70, 0.65, 0.75])]
    rows, files = write([LORA], [*trials(LORA, [0.50, 0.90, 0.75, 0.95]), *further], sampler="TPESampler")
    (row,) = rows
    assert (row.band, len(row.ended), len(row.curve)) == ("searches", 8, 4)
    assert row.first_score == pytest.approx(0.55)
    (lora,) = lines(files["budget.csv"])
    assert [float(lora[name]) for name in ("k=4", "k=4 low", "k=4 high")] == pytest.approx([0.85, 0.75, 0.95])
    assert "from the lowest to the highest" in files["budget.md"]


def test_contents__pruned_counts_and_failed_gives_nothing():
    _, files = write(CELLS, usual())
    probe = lines(files["budget.csv"])[2]
    assert probe["k=1"] == probe["k=1 low"] == "", "a first trial may be the failed one"
    # the failed one and 0.4, 0.6, 0.7: of six pairs three have 0.7, two 0.6 and one 0.4
    assert float(probe["k=2"]) == pytest.approx((3 * 0.7 + 2 * 0.6 + 0.4) / 6)
    text = files["budget.md"]
    assert r"probe \[1\]" in text and "probe on bbc from minilm: 1 pruned, 1 failed" in text
    assert "A pruned trial counts with the best that it had reached" in text
    assert "gives nothing" in text
    _, clean = write([FULL, LORA], usual())
    assert "pruned" not in clean["budget.md"] and "failed" not in clean["budget.md"]


def test_contents__says_where_the_ranking_changes():
    rows, files = write(CELLS, usual())
    (sentence,) = ranking(rows, True)
    assert sentence == (
        "The ranking of the techniques by expected best val/accuracy changes at k = 2: after 1 "
        "trial full > lora (without a sure score: probe); after 2 trials lora > full > probe.")
    assert files["budget.md"].startswith("The ranking of the techniques")


@pytest.mark.parametrize(("full", "lora", "higher", "said"), [
    ([0.9, 0.8], [0.5, 0.4], True,
     "is the same after any number of trials from 1 to 2: full > lora."),
    ([0.9, 0.8], [0.5, 0.4], False,
     "is the same after any number of trials from 1 to 2: lora > full."),
    ([0.1 + 0.2, 0.3], [0.3, 0.3], True,
     "is the same after any number of trials from 1 to 2: full = lora."),
    ([0.5], [0.6, 0.1], True, "after 1 trial: full > lora."),
    ([None, 0.9], [0.5, 0.4], True,
     ("changes at k = 2: after 1 trial lora (without a sure score: full); after 2 trials full > "
      "lora.")),
])
def test_ranking__one_sentence(full, lora, higher, said):
    records = trials(FULL, full, "".join("F" if v is None else "C" for v in full))
    rows = tried([FULL, LORA], records + trials(LORA, lora), (ACCURACY,), higher)
    (sentence,) = ranking(rows, higher)
    assert sentence == f"The ranking of the techniques by expected best {ACCURACY} {said}"


def test_ranking__many_changes_name_all_places_and_two_orders():
    steady = [0.50, 0.52, 0.54, 0.56, 0.58, 0.60, 0.62, 0.64]
    records = trials(FULL, steady)
    rows = []
    for seed in range(2000):  # some technique overtakes and falls back often enough
        draw = random.Random(seed)
        others = [trials(cell, [draw.gauss(0.55, 0.05) for _ in steady]) for cell in (LORA, PROBE)]
        rows = tried(CELLS, [*records, *others[0], *others[1]], (ACCURACY,), True)
        (sentence,) = ranking(rows, True)
        if len(re.findall(r"\d", sentence.split("k = ")[-1].split(":")[0])) >= 4:
            break
    assert sentence.count(" trial") == 2, sentence
    assert "after 1 trial " in sentence and "after 8 trials " in sentence


def test_ranking__each_group_for_itself_and_never_of_one_technique():
    cells = [key("full"), key("lora"), key("full", "sst"), key("lora", "sst")]
    records = [t for c in cells for t in trials(c, [0.5, 0.6] if c.technique == "full" else [0.7])]
    said = ranking(tried(cells, records, (ACCURACY,), True), True)
    assert len(said) == 2 and "on bbc from minilm" in said[0] and "on sst from minilm" in said[1]
    assert ranking(tried([FULL], usual(), (ACCURACY,), True), True) == []
    nothing = trials(LORA, [None, None], "FF")
    assert ranking(tried([FULL, LORA], usual()[:4] + nothing, (ACCURACY,), True), True) == []


def test_tried__nothing_to_search_stands_for_any_number():
    records = usual()[:8] + trials(PROBE, [0.85])
    rows, files = write(CELLS, records, settled=["probe"])
    probe = lines(files["budget.csv"])[2]
    assert [probe[f"k={k}"] for k in (1, 2, 4)] == ["0.85"] * 3
    assert "nothing to search" in files["budget.md"]
    assert "from 1" not in ranking(rows, True)[0] and "after 2 trials" in ranking(rows, True)[0]
    unfinished = lines(write(CELLS, records)[1]["budget.csv"])[2]
    assert [unfinished[f"k={k}"] for k in (1, 2, 4)] == ["0.85", "", ""]


def test_tried__what_still_goes_on_does_not_count():
    rows, files = write([FULL], trials(FULL, [0.5, 0.9, 0.7], "CRC"))
    assert (len(rows[0].ended), rows[0].running, len(rows[0].curve)) == (2, 1, 2)
    assert "full on bbc from minilm: 1 not ended" in files["budget.md"]
    assert lines(files["budget.csv"])[0]["k=2"] == "0.7"


def test_tried__reads_what_the_trial_gave_not_its_last_epoch():
    (row,) = tried([FULL], trials(FULL, [0.9]), (ACCURACY,), True)
    assert (row.first_score, row.curve[0].expected) == (0.9, 0.9)


def test_tried__of_other_cells_nothing():
    rows = tried([FULL], [*trials(FULL, [0.9]), *trials(LORA, [0.1])], (ACCURACY,), True)
    assert [row.key for row in rows] == [FULL]


def test_contents__before_any_trial():
    _, files = write(CELLS, [])
    assert list(files) == ["budget.md", "budget.csv"]
    assert "not tried" in files["budget.md"]


@pytest.mark.parametrize(("most", "ks"), [
    (1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (16, [1, 2, 4, 8, 16]), (20, [1, 2, 4, 8, 16, 20]),
])
def test_columns__powers_of_two_and_all(most, ks):
    rows = tried([FULL], trials(FULL, [0.5] * most), (ACCURACY,), True)
    assert columns(rows) == ks


def two_objectives():
    return [
        *trials(FULL, [0.80, 0.95], **{SIZE: [1e6, 1e6]}),
        *trials(LORA, [0.70, 0.90, 0.85], **{SIZE: [1e3, 5e3, 9e3]}),
        *trials(PROBE, [0.60, None], "CF", **{SIZE: [770.0, 770.0]}),
    ]


def test_contents__fronts_of_each_technique_and_over_all():
    _, files = write(CELLS, two_objectives(), (ACCURACY, SIZE), (True, False))
    assert list(files)[3:] == ["front.md", "front.csv", "front.png"]
    rows = lines(files["front.csv"])
    assert len(rows) == 6, "a failed trial is no point"
    on = {(r["technique"], r["trial"]): (r["front_of_technique"], r["front_of_all"]) for r in rows}
    assert on == {
        ("full", "1"): ("1", "1"), ("full", "0"): ("0", "0"), ("lora", "1"): ("1", "1"),
        ("lora", "0"): ("1", "1"), ("lora", "2"): ("0", "0"), ("probe", "0"): ("1", "1"),
    }
    assert rows[0] == {
        "backbone": "minilm", "dataset": "bbc", "technique": "full", "trial": "1",
        ACCURACY: "0.95", SIZE: "1000000", "front_of_technique": "1", "front_of_all": "1",
        "lr": "0.002", "run_id": "full1",
    }
    text = files["front.md"]
    assert "| full | **95.00** | 1,000,000 | 1 | lr 0.002 |" in text
    assert "85.00" not in text


def test_contents__fronts_per_pair_and_of_three_objectives():
    seconds = "cost/train_seconds"
    cells = [key("full"), key("full", "sst")]
    records = [t for cell in cells for t in
               trials(cell, [0.8, 0.9], **{SIZE: [1.0, 2.0], seconds: [0.5, 0.25]})]
    _, files = write(cells, records, (ACCURACY, SIZE, seconds), (True, False, False))
    assert [row["front_of_all"] for row in lines(files["front.csv"])] == ["1"] * 4
    assert "### bbc from minilm" in files["front.md"]
    assert files["front.png"].startswith(b"\x89PNG")


def test_contents__no_complete_trial_has_no_front_figure():
    _, files = write([FULL], trials(FULL, [None], "F"), (ACCURACY, SIZE), (True, False))
    assert list(files) == ["budget.md", "budget.csv", "front.md", "front.csv"]


def colours_of(monkeypatch, make):
    """Label -> colour of all that has a label or an error bar in the figure that `make` draws."""
    from matplotlib.figure import Figure

    kept = []

    class Kept(Figure):
        def add_subplot(self, *args, **kwargs):
            kept.append(super().add_subplot(*args, **kwargs))
            return kept[-1]

    monkeypatch.setattr("ftlab.reports.figures.matplotlib_axes.Figure", Kept)
    make()
    return kept


def test_figures__a_technique_has_its_colour_everywhere(monkeypatch):
    rows = tried(CELLS, two_objectives(), (ACCURACY, SIZE), True)
    look = styles(cell.technique for cell in CELLS)
    assert [look[c.technique][0] for c in CELLS] == list(COLOURS[:3])
    (axes,) = colours_of(monkeypatch, lambda: draw_budget(rows, True))
    assert {line.get_label(): line.get_color() for line in axes.lines
            if line.get_label() != "_band"} == {n: style.colour for n, style in look.items()}
    from ftlab.reports.pareto_front import points

    found = points(rows, (True, False))
    (axes,) = colours_of(
        monkeypatch, lambda: draw_front(rows, found, (ACCURACY, SIZE), (True, False)))
    drawn = {line.get_label(): line.get_color() for line in axes.lines}
    assert {name: drawn[name] for name in look} == {n: style.colour for n, style in look.items()}


def test_styles__beyond_ten_the_line_changes():
    look = styles(f"t{n}" for n in range(25))
    assert len(set(look.values())) == 25


def test_draw_budget__begins_where_a_score_is_sure(monkeypatch):
    rows = tried([PROBE], trials(PROBE, [0.6, None, 0.7], "CFC"), (ACCURACY,), True)
    (axes,) = colours_of(monkeypatch, lambda: draw_budget(rows, True))
    (line,) = [line for line in axes.lines if line.get_label() != "_band"]
    assert list(line.get_xdata()) == [2, 3]
    assert list(line.get_ydata()) == pytest.approx([100 * (0.7 * 2 + 0.6) / 3, 70.0])
    assert all(math.isfinite(y) for y in line.get_ydata())
    assert axes.get_xlabel() and "expected best val/accuracy, %" in axes.get_ylabel()
    assert axes.get_title() == "bbc from minilm"
