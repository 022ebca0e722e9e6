"""Every figure of the room, as one; and each one's numbers against outside references."""

import hashlib
import io
import itertools
import math
import re
import subprocess
import sys
import zlib
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from invented import METRIC, Invented
from sklearn.metrics import cohen_kappa_score, confusion_matrix, f1_score, recall_score

from ftlab.errors import InputError
from ftlab.reports.colours import styles
from ftlab.reports.figures import all_figures
from ftlab.reports.figures.error_overlap import overlap
from ftlab.reports.figures.labels import labels, short
from ftlab.reports.figures.matplotlib_axes import paper
from ftlab.reports.figures.predictions import mistakes
from ftlab.reports.page.document import POLICY
from ftlab.reports.page.plots import WIDTHS
from ftlab.statistics.budget_curve import budget_curve, with_random_band
from ftlab.statistics.ranks import rank

NASTY = ["_hidden", "$\\frac{$ 50% <b>x</b> &amp;", "中文", "a" * 80 + "1", "a" * 80 + "2", "1e5"]
NAMES = [drawing.name for drawing in all_figures.drawings()]
GROUP = ("minilm", "data 1")
XLINK = "{http://www.w3.org/1999/xlink}"


def whole(**more):
    """A study that has every figure."""
    return Invented(**{"techniques": 3, "data_sets": 2, "trials": 5} | more)


def drawing(each):
    """The matplotlib figure, not yet laid out."""
    with paper():
        return each.drawing.draw(each.data, each.results)


def data_of(name, results):
    (drawing,) = (drawing for drawing in all_figures.drawings() if drawing.name == name)
    return drawing.data(results)


@pytest.fixture(scope="module")
def study():
    return whole().results()


@pytest.fixture(scope="module")
def all_drawn(study):
    return {each.name: each for each in all_figures.drawn(study)}


def test_room__has_every_figure_and_a_whole_study_shows_them_all(all_drawn):
    assert list(all_drawn) == NAMES
    assert {"scores", "trade_off", "learning_curves", "budget_curves", "class_effect", "costs",
            "error_overlap", "confusion_matrices", "critical_difference"} <= {*NAMES}


@pytest.mark.parametrize("name", NAMES)
class TestContract:
    def test_png_and_pdf(self, all_drawn, name):
        files = all_drawn[name].files()
        picture = matplotlib.image.imread(io.BytesIO(files["png"]))
        assert picture.shape[0] > 200 and picture.shape[1] > 400
        assert picture[..., :3].std() > 0.02, "not an empty page"
        edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert (edge[:, :3] == 1).all(), "nothing is cut at the margin"
        assert b"Software" not in files["png"] and b"tIME" not in files["png"]
        assert files["pdf"].startswith(b"%PDF")
        text = files["pdf"] + b"".join(inflated(files["pdf"]))
        assert b"/Type42" in text or b"/CIDFontType2" in text
        assert b"/Type3" not in text
        assert not re.search(rb"CreationDate|Producer|Creator", text)
        (again,) = all_figures.drawn(whole().results(), [name])
        assert again.files() == files, "the same store gives the same bytes"
        assert again.svg(WIDTHS["desktop"]) == all_drawn[name].svg(WIDTHS["desktop"])

    def test_axes_have_titles(self, all_drawn, name):
        figure = drawing(all_drawn[name])
        panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
        assert panels
        for axes in panels:
            said = axes.get_title() + axes.get_xlabel() + figure.get_suptitle()
            assert said and axes.has_data()

    @pytest.mark.parametrize("width", [
        pytest.param(width, id=name, marks=() if name == "desktop" else pytest.mark.slow)
        for name, width in WIDTHS.items()])
    def test_svg_for_a_page(self, all_drawn, name, width):
        text = all_drawn[name].svg(width)
        root = ElementTree.fromstring(text)
        assert root.tag.endswith("svg")
        assert float(root.get("width").removesuffix("pt")) <= 72 * width + 1
        ids = [element.get("id") for element in root.iter() if element.get("id")]
        assert len(set(ids)) == len(ids) and all(each.startswith(f"{name}-") for each in ids)
        used = {element.get("href", element.get(f"{XLINK}href")) for element in root.iter()} - {None}
        drawn = {name for name in used if name.startswith("data:image/png;base64,")}
        assert {name[1:] for name in used - drawn} <= set(ids)
        assert not drawn or "img-src data:" in POLICY
        assert not re.search(r"<(script|style|metadata|text|!--)", text)

    def test_caption_says_n(self, all_drawn, name):
        each = all_drawn[name]
        assert re.search(r"n = \d", each.caption), each.caption
        assert each.title and each.caption.endswith((".", "…"))

    def test_any_name_is_allowed(self, name):
        sets = ["$", "<i>"] if name == "critical_difference" else ["$<i>"]
        results = whole(techniques=NASTY, classes=NASTY, data_sets=sets, seeds=2,
                         examples=40).results()
        (each,) = all_figures.drawn(results, [name])
        with paper():
            figure = each.drawing.draw(each.data, results)
            figure.draw_without_rendering()
            drawn = figure.findobj(matplotlib.text.Text)
        assert not any(text.get_parse_math() for text in drawn if "$" in text.get_text())
        assert any("$" in text.get_text() for text in drawn)
        said = each.svg(WIDTHS["desktop"])
        assert "<b>" not in said and "<i>" not in said

    @pytest.mark.parametrize("kind", ["one seed", "no predictions", "failed", "nan", "alone"])
    def test_gaps_give_a_right_figure_or_none(self, name, kind):
        sets = 2 if name == "critical_difference" else 1
        invented = whole(data_sets=sets, seeds=1 if kind == "one seed" else 2,
                         examples=20 * (kind != "no predictions"),
                         techniques=1 if kind == "alone" else 2, classes=3, epochs=2)
        if kind == "failed":
            invented.change("technique 2", status="FAILED", reason="out of memory")
        if kind == "nan":
            invented.change("technique 2", metrics={METRIC: math.nan})
        for each in all_figures.drawn(invented.results(), [name]):
            assert drawing(each).axes
            assert "nan" not in each.caption
        if kind == "no predictions":
            assert (data_of(name, invented.results()) is None) == (
                name in ("confusion_matrices", "error_overlap", "class_effect"))
        if kind == "alone" and name in ("trade_off", "error_overlap", "critical_difference"):
            assert data_of(name, invented.results()) is None


def inflated(pdf):
    """The streams of a PDF, decompressed."""
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        try:
            yield zlib.decompress(stream)
        except zlib.error:
            continue


def test_files__do_not_depend_on_the_hash_seed():
    code = ("import hashlib; from invented import Invented; from ftlab.reports.figures import all_figures\n"
            "(each,) = all_figures.drawn(Invented().results(), ['error_overlap'])\n"
            "print([hashlib.sha256(content).hexdigest() for content in each.files().values()])")
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True,
                          env={"PYTHONHASHSEED": "1", "PYTHONPATH": ":".join(sys.path)}).stdout
    (each,) = all_figures.drawn(Invented().results(), ["error_overlap"])
    ours = [hashlib.sha256(content).hexdigest() for content in each.files().values()]
    assert said.strip() == str(ours)


def test_data__many_techniques_and_classes_are_narrowed_and_said():
    invented = Invented(45, classes=200, examples=300, seeds=1, epochs=1)
    results = invented.results()
    shown = {each.name: each for each in all_figures.drawn(results, ["scores", "class_effect",
                                                               "confusion_matrices"])}
    assert len(shown["scores"].data) == 40
    best = sorted(results.rows, key=lambda row: -row.summary.mean)
    worst = {row.key.technique for row in best[-3:]}
    assert worst.isdisjoint(shown["scores"].data["technique"])
    assert "40 of 45 techniques" in shown["scores"].caption
    assert shown["confusion_matrices"].data["shares"].iloc[0].shape == (200, 200)
    assert len(shown["confusion_matrices"].data) == 12
    assert shown["class_effect"].data["place"].nunique() == 10
    assert "bins" in shown["class_effect"].caption
    assert all(drawing(each).axes for each in shown.values())


def test_confusion__little_is_light(study):
    (each,) = all_figures.drawn(study, ["confusion_matrices"])
    image = drawing(each).axes[0].images[0]
    assert (image.get_cmap().name, image.get_clim()) == ("Blues", (0, 100))
    few, many = (sum(image.to_rgba(share)[:3]) for share in (0, 100))
    assert few > many, "little is light"


def test_costs__a_bar_ends_at_its_value_and_a_point_stands_there_on_a_logarithmic_axis(study):
    (each,) = all_figures.drawn(study, ["costs"])
    panels = drawing(each).axes
    for axes, (_, lines) in zip(panels, each.data.groupby(["group", "of"], sort=False),
                                strict=True):
        points = [line.get_xdata()[0] for line in axes.lines if line.get_marker() != "None"]
        assert bool(points) != bool(axes.patches)  # a bar has no length where there is no zero
        assert bool(points) == (axes.get_xscale() == "log")
        ends = np.array(points or [bar.get_x() + bar.get_width() for bar in axes.patches])
        assert ends / ends[0] == pytest.approx(lines["mean"] / lines["mean"].iloc[0])
    assert {axes.get_xscale() for axes in panels} == {"log", "linear"}


def test_costs_and_scores__a_cell_that_never_ran():
    invented = Invented(3)
    invented.change("technique 2", status="FAILED", reason="out of memory")
    results = invented.results()
    assert "technique 2" not in set(data_of("costs", results)["technique"])
    (each,) = all_figures.drawn(results, ["scores"])
    said = [text.get_text() for axes in drawing(each).axes for text in axes.texts]
    assert any("out of memory" in text for text in said), said


def test_scores__are_the_runs(study):
    data = data_of("scores", study)
    for line in data.itertuples():
        (key,) = (r.key for r in study.rows if (r.group, r.key.technique) == (line.group,
                                                                             line.technique))
        values = [100 * run.metrics[METRIC] for run in study.runs(key)]
        assert line.seeds == pytest.approx(values)
        assert line.mean == pytest.approx(np.mean(values))


@pytest.mark.parametrize("higher", [True, False])
def test_trade_off__front_by_brute_force(higher):
    results = Invented(9, examples=0, seed=3).results(higher_is_better=higher)
    data = data_of("trade_off", results)
    assert set(data["of"]) == {"cost/trainable_parameters", "cost/train_seconds",
                               "cost/peak_memory_bytes"}
    for _, points in data.groupby("of"):
        for a in points.itertuples():
            beaten = any(
                (b.mean >= a.mean if higher else b.mean <= a.mean) and b.cost <= a.cost
                and (b.mean, b.cost) != (a.mean, a.cost) for b in points.itertuples())
            assert a.front == (not beaten)


def test_trade_off__bars_end_where_the_interval_does():
    results = Invented(3).results()
    (each,) = all_figures.drawn(results, ["trade_off"])
    wanted = sorted((100 * row.summary.ci_low, 100 * row.summary.ci_high) for row in results.rows)
    axes = drawing(each).axes[0]
    ends = sorted(tuple(bar.lines[2][0].get_segments()[0][:, 1]) for bar in axes.containers)
    np.testing.assert_allclose(ends, wanted)
    low, high = wanted[0]
    mean = 100 * min(row.summary.mean for row in results.rows)
    assert high - mean != pytest.approx(mean - low, rel=1e-3)  # on the logit scale


def test_trade_off__what_trains_nothing_stands_at_zero_and_has_no_peak():
    invented = Invented(3)
    invented.change("technique 1", metrics={"cost/trainable_parameters": 0.0,
                                            "cost/train_seconds": 0.0})
    results = invented.results()
    data = data_of("trade_off", results)
    none = data[data["technique"] == "technique 1"]
    assert none["of"].tolist() == ["cost/trainable_parameters", "cost/train_seconds"]
    (each,) = all_figures.drawn(results, ["trade_off"])
    figure = drawing(each)
    for axes in figure.axes[:2]:
        low, high = axes.get_xlim()
        assert low < 0 < high
    costs = data_of("costs", results)
    peak = costs[(costs["of"] == "cost/peak_memory_bytes") & (costs["technique"] == "technique 1")]
    assert peak["n"].tolist() == [0]


def test_learning_curves__leave_out_what_is_measured_after_the_fit(study):
    data = data_of("learning_curves", study)
    val = data[data["metric"] == "val/accuracy"]
    assert val["x"].max() == 4 and val["high"].max() < 200, "the tested epoch is no epoch more"
    first = val[(val["x"] == 1)].iloc[0]
    (key,) = (r.key for r in study.rows if (r.group, r.key.technique) == (first.group,
                                                                         first.technique))
    values = [100 * study.history(run, "val/accuracy")[0][1] for run in study.runs(key)]
    assert (first["mean"], first.low, first.high) == pytest.approx(
        (np.mean(values), min(values), max(values)))


def test_learning_curves__go_as_far_as_all_seeds():
    invented = Invented(2, epochs=5)
    run = invented.book.records[0].runs[1]
    for metric in ("epoch", "train/epoch_loss", "val/accuracy"):
        del invented.book.curves[run.run_id, metric][2:]
    results = invented.results()
    data = data_of("learning_curves", results)
    reached = data.groupby("technique")["x"].max()
    assert reached.to_dict() == {"technique 1": 2, "technique 2": 5}
    (each,) = all_figures.drawn(results, ["learning_curves"])
    assert "as far as all seeds" in each.caption


def test_learning_curves__one_epoch_is_shown_by_steps():
    invented = Invented(2, epochs=1)
    for record in invented.book.records:
        for run in record.runs:
            invented.book.curves[run.run_id, "train/loss"] = [(10, 1.0), (20, 0.5)]
    data = data_of("learning_curves", invented.results())
    assert set(data["over"]) == {"optimizer step"} and set(data["x"]) == {10, 20}
    assert data_of("learning_curves", Invented(2, epochs=1).results()) is None, "one point: none"


def answers(results, technique, seed, group=GROUP):
    (key,) = (r.key for r in results.rows if r.group == group and r.key.technique == technique)
    return results.predictions(results.runs(key)[seed])


def test_confusion__is_that_of_scikit_learn(study):
    data = data_of("confusion_matrices", study)
    line = next(data.itertuples())
    found = []
    for seed in range(3):
        said = answers(study, line.technique, seed)
        found.append(confusion_matrix(said["target"], said["prediction"], labels=line.classes,
                                      normalize="true"))
    assert line.shares == pytest.approx(100 * np.mean(found, axis=0))


def test_confusion__a_class_without_test_examples_is_not_zero():
    invented = Invented(2)
    invented.book.counts["never tested"] = 1
    line = next(data_of("confusion_matrices", invented.results()).itertuples())
    place = line.classes.index("never tested")
    assert np.isnan(line.shares[place]).all() and (line.shares[:-1, place] == 0).all()


def test_class_effect__is_that_of_scikit_learn(study):
    data = data_of("class_effect", study)
    lines = data[data["group"] == GROUP]
    reference = lines["reference"].iloc[0]
    assert reference == max(study.rows[:3], key=lambda row: row.summary.mean).key.technique
    names = ["class 1", "class 2", "class 3", "class 4"]  # as frequent, so as ordered
    for technique in ("technique 1", "technique 2", "technique 3"):
        own = lines[lines["technique"] == technique].sort_values("place")
        recall, f1, gain = [], [], []
        for seed in range(3):
            said, best = (answers(study, name, seed) for name in (technique, reference))
            pair = said["target"], said["prediction"]
            recall.append(recall_score(*pair, labels=names, average=None, zero_division=0))
            f1.append(f1_score(*pair, labels=names, average=None, zero_division=0))
            gain.append(f1[-1] - f1_score(best["target"], best["prediction"], labels=names,
                                          average=None, zero_division=0))
        for name, values in (("recall", recall), ("f1", f1), ("gain", gain)):
            assert own[name].tolist() == pytest.approx(100 * np.mean(values, axis=0))
        assert own["low"].tolist() == pytest.approx(100 * np.min(gain, axis=0))
    assert lines["line"].iloc[0] == "class 1 (400, 36.6%)"


def wrong(results, techniques, seeds):
    """By technique and seed, from the predictions themselves."""
    return {name: {seed: np.array([a != b for a, b in zip(
        said["target"], said["prediction"], strict=True)])
        for seed in range(seeds) if (said := answers(results, name, seed))} for name in techniques}


def test_error_overlap__every_set_by_brute_force(study):
    names = ["technique 1", "technique 2", "technique 3"]
    known = {name: np.sum([*seeds.values()], axis=0) >= 2  # of three
             for name, seeds in wrong(study, names, 3).items()}
    data = data_of("error_overlap", study)
    own = data[data["group"] == GROUP]
    found = {line.members: line.many for line in own.itertuples()}
    for size in (1, 2, 3):
        for members in itertools.combinations(names, size):
            exactly = np.logical_and.reduce(
                [known[name] == (name in members) for name in names]).sum()
            assert found.get(members, 0) == exactly
    assert sum(found.values()) == np.logical_or.reduce([*known.values()]).sum() > 0
    assert own["many"].is_monotonic_decreasing
    assert own["errors"].iloc[0] == [each.sum() for each in known.values()]


def test_error_overlap__half_of_two_seeds_is_not_most():
    results = Invented(2, seeds=2, seed=4).results()
    known = wrong(results, ["technique 1"], 2)["technique 1"]
    data = data_of("error_overlap", results)
    assert (known[0] != known[1]).any()
    assert data["errors"].iloc[0][0] == (known[0] & known[1]).sum()


@pytest.mark.parametrize("count", [3, 7, 12])
def test_error_overlap__draws_the_largest_sets_and_says_the_rest(count):
    results = Invented(count, examples=400).results()
    (each,) = all_figures.drawn(results, ["error_overlap"])
    (axes,) = drawing(each).axes
    bars = [-bar.get_height() for bar in axes.patches if bar.get_height() < 0]
    shown = each.data["many"].head(20)
    assert bars == pytest.approx((shown / shown.max() * max(4, 0.7 * count)).tolist())
    assert [text.get_text() for text in axes.texts] == [str(many) for many in shown]
    assert (f"of {len(each.data)} sets" in each.caption) == (len(each.data) > 20) == (count > 3)


def test_error_overlap__every_error_is_in_its_file(study):
    (each,) = all_figures.drawn(study, ["error_overlap"])
    lines = pd.read_csv(io.StringIO(each.drawing.texts(each.data, study)["errors.csv"]))
    own = lines[(lines["dataset"] == "data 1") & (lines["technique"] == "technique 2")]
    known = np.sum([*wrong(study, ["technique 2"], 3)["technique 2"].values()], axis=0)
    assert dict(zip(own["id"], own["wrong_seeds"], strict=True)) == {
        f"row {n}": times for n, times in enumerate(known) if times}
    assert set(own["seeds"]) == {3}


def test_overlap__is_that_of_scikit_learn(study):
    known = wrong(study, ["technique 1", "technique 2"], 3)
    a, b = known["technique 1"], known["technique 2"]
    assert overlap(a, b, same=False) == pytest.approx(
        np.mean([cohen_kappa_score(a[s], b[s]) for s in range(3)]))
    own = [cohen_kappa_score(a[s], a[t]) for s, t in itertools.combinations(range(3), 2)]
    assert overlap(a, a, same=True) == pytest.approx(np.mean(own))


def test_overlap__says_nothing_where_nothing_varies_or_no_seed_is_shared():
    right, half = np.zeros(4, bool), np.array([1, 1, 0, 0], bool)
    assert overlap({0: right}, {0: half}, same=False) == 0
    assert math.isnan(overlap({0: right}, {0: right}, same=False))
    assert math.isnan(overlap({0: half}, {0: half}, same=True))
    assert math.isnan(overlap({0: half}, {1: half}, same=False))


def test_error_overlap__other_examples_are_not_compared():
    invented = Invented(3, seeds=2)
    other = Invented(3, seeds=2, examples=61)
    for record in invented.book.records[2:]:
        for run in record.runs:
            invented.book.files[run.run_id] = other.book.files[run.run_id]
    assert set(mistakes(invented.results(), GROUP).wrong) == {"technique 1", "technique 2"}


def test_critical_difference__is_that_of_the_ranks(study):
    data = data_of("critical_difference", study)
    scores = {}
    for row in study.rows:
        scores.setdefault(row.key.dataset, {})[row.key.technique] = row.summary.mean
    found = rank(scores, True)
    assert dict(zip(data["technique"], data["rank"], strict=True)) == pytest.approx(found.ranks)
    assert data["rank"].is_monotonic_increasing
    for place, line in enumerate(data.itertuples()):
        told = [name for name in data["technique"].iloc[place + 1:]
                if found.pairs[line.technique][name] <= 0.05]
        assert line.last == len(data) - 1 - len(told)
    assert data_of("critical_difference", Invented(3).results()) is None, "one data set"


def test_budget_curves__are_those_of_the_sweep(study):
    data = data_of("budget_curves", study)
    own = data[(data["group"] == GROUP) & (data["technique"] == "technique 2")]
    scores = [trial.metrics["objective/val/accuracy"] for trial in study.tracker.tried
              if (trial.key.dataset, trial.key.technique) == ("data 1", "technique 2")]
    wanted = with_random_band(budget_curve(scores), scores[1:], (0.0, 1.0))  # the first is the own setting
    assert own["expected"].tolist() == pytest.approx([100 * best.expected for best in wanted])
    assert own["low"].tolist() == pytest.approx([100 * best.low for best in wanted])


def test_write__files_captions_and_nothing_old(study, tmp_path):
    for old in ("test_accuracy.png", "budget_curves.pdf", "shared_errors.csv", "mine.png"):
        (tmp_path / old).touch()
    paths = all_figures.write(Invented(3).results(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths} | {"mine.png"}
    assert {"scores.png", "scores.pdf", "captions.md", "errors.csv"} <= {
        path.name for path in paths}
    assert "95% interval" in (tmp_path / "captions.md").read_text()
    before = (tmp_path / "costs.png").read_bytes()
    (tmp_path / "costs.png").write_bytes(b"")
    assert [path.name for path in all_figures.write(Invented(3).results(), tmp_path, ["costs"])] == [
        "costs.png", "costs.pdf"]
    assert (tmp_path / "costs.png").read_bytes() == before
    assert (tmp_path / "scores.png").exists(), "others stay"


def test_drawn__a_wrong_name_is_refused(study):
    with pytest.raises(InputError, match="scoers") as caught:
        list(all_figures.drawn(study, ["scoers"]))
    assert caught.value.mend == "did you mean scores?"


def test_labels__are_short_and_never_alike():
    names = ["a" * 80, "a" * 80 + "b", "a" * 40 + "x" + "a" * 40, "short"]
    found = labels(names)
    assert len({*found.values()}) == 4 and max(map(len, found.values())) <= 32
    assert found["short"] == "short"


def test_short__three_digits():
    values = (0, 0.01234, 999.4, 999.9, 1e3, 75653, 22.6e6, 3e9, 1e-6, math.nan)
    assert [short(value) for value in values] == [
        "0", "0.0123", "999", "1k", "1k", "75.7k", "22.6M", "3G", "1.0e-06", "-"]


def test_styles__neighbours_differ_without_colour():
    look = list(styles(f"t{n}" for n in range(40)).values())
    assert len({(style.colour, style.marker) for style in look}) == 40
    for a, b in itertools.pairwise(look):
        assert a.line != b.line and a.marker != b.marker
