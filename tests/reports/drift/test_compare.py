"""`ftlab compare`: drift that is known, drift that is none, and what is said of it."""

import csv
import io
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import ftlab
from ftlab.errors import InputError
from ftlab.reports.drift.drift import Drift
from ftlab.reports.drift.metric_changes import movements
from ftlab.reports.drift.read_results import CellResult, ComparedStudy
from ftlab.statistics.paired import over_seeds
from ftlab.statistics.two_studies import moved, step

Make = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[3]
PUBLISHED = sorted(path.parent for path in ROOT.glob("results/*/runs.csv"))


def claims(old: ComparedStudy, new: ComparedStudy) -> bool:
    return any(m.moved for m in movements(old, new, ["test/accuracy"]))


def study(table: np.ndarray, seeds: range) -> ComparedStudy:
    """Test accuracies (techniques, seeds) as a side of a comparison."""
    cells = {
        ("b", "d", f"t{number}"): CellResult(
            dict.fromkeys(seeds, "FINISHED"),
            {"test/accuracy": dict(zip(seeds, map(float, row), strict=True))})
        for number, row in enumerate(table)
    }
    return ComparedStudy("x", "small", cells, "test/accuracy")


def accuracies(generator: np.random.Generator, techniques: int, seeds: int, lift: float = 0.0,
               examples: int = 400) -> np.ndarray:
    """Of techniques that differ in skill and in how much their seeds scatter, over 400 examples."""
    skill = generator.uniform(0.6, 0.9, (techniques, 1))
    scatter = generator.uniform(0.002, 0.06, (techniques, 1))
    rate = np.clip(skill + scatter * generator.normal(size=(techniques, 2 * seeds)), 0.05, 0.95)
    rate[0, seeds:] = np.clip(rate[0, seeds:] + lift * scatter[0], 0, 1)
    return generator.binomial(examples, rate) / examples


def too_many(found: int, studies: int) -> bool:
    """Whether so many false claims say, themselves beyond chance, that their rate is above 5%."""
    return bool(stats.binomtest(found, studies, 0.05, alternative="greater").pvalue < 0.05)


@pytest.mark.parametrize("new", [range(3), range(3, 6)], ids=["the same seeds", "other seeds"])
def test_compare__claims_too_much_in_at_most_5_percent(new: range) -> None:
    generator = np.random.default_rng(5)
    found, studies = 0, 500
    for _ in range(studies):
        table = accuracies(generator, 5, 3)
        found += claims(study(table[:, :3], range(3)), study(table[:, 3:], new))
    assert not too_many(found, studies), found


def test_compare__single_examples_that_flip_are_no_drift() -> None:
    """Another processor: the same seeds, each of which gains or loses an example or none."""
    generator = np.random.default_rng(6)
    found = bare = 0
    for _ in range(500):
        old = accuracies(generator, 5, 3)[:, :3]
        new = old + generator.integers(-1, 2, old.shape) / 400
        found += claims(study(old, range(3)), study(new, range(3)))
        p = [over_seeds(a, b, 0.0).p for a, b in zip(old, new, strict=True)]
        bare += min(p) * len(p) <= 0.05
    assert not too_many(found, 500), found
    assert bare / 500 > 0.2  # what the bare t test claims: without its least scatter ours would


@pytest.mark.parametrize(("seeds", "lift", "power"), [(3, 12, 0.5), (5, 4, 0.5), (10, 2.5, 0.7)])
def test_compare__finds_a_drift(seeds: int, lift: float, power: float) -> None:
    """Of one technique of five, `lift` standard deviations of its seeds."""
    generator = np.random.default_rng(7)
    found = others = 0
    for _ in range(200):
        table = accuracies(generator, 5, seeds, lift)
        first, *rest = movements(study(table[:, :seeds], range(seeds)),
                                 study(table[:, seeds:], range(seeds, 2 * seeds)),
                                 ["test/accuracy"])
        found += first.moved
        others += any(m.moved for m in rest)
    assert found / 200 >= power, found
    assert not too_many(others, 200), others


def test_moved__is_scipys() -> None:
    generator = np.random.default_rng(1)
    a, b = generator.normal(0.8, 0.03, 4), generator.normal(0.7, 0.01, 6)
    welch = moved(dict(enumerate(a)), dict(enumerate(b)))
    reference = stats.ttest_ind(b, a, equal_var=False)
    interval = reference.confidence_interval()
    assert (welch.p, welch.low, welch.high) == pytest.approx(
        (reference.pvalue, interval.low, interval.high))
    paired = moved(dict(enumerate(a)), dict(enumerate(b[:4])))
    reference = stats.ttest_rel(b[:4], a)
    assert (paired.p, paired.difference) == pytest.approx((reference.pvalue, b[:4].mean() - a.mean()))
    assert "paired" in paired.test and "Welch" in welch.test
    three = dict.fromkeys(range(3), 0.0)
    assert moved({0: 0.5, 1: 0.5}, {0: 0.9, 1: 0.8, 2: 0.9}) is None
    assert moved(three, three).p == 1


def test_moved__what_another_processor_rounds_is_no_drift() -> None:
    """The same hundred-thousandth in every seed, which an ordinary t test finds."""
    old = {0: 0.9, 1: 0.8, 2: 0.7}
    new = {seed: value * (1 + 1e-5) for seed, value in old.items()}
    assert stats.ttest_rel(list(new.values()), list(old.values())).pvalue < 0.05
    found = moved(old, new)
    assert found is not None and found.p > 0.5


def test_step__is_an_example_whatever_float32_makes_of_it() -> None:
    values = [float(np.float32(k / 444)) for k in (350, 351, 353)]
    assert step([*values, 350 / 444]) == pytest.approx(1 / 444, rel=1e-4)
    assert step([0.5, 0.5]) == 0


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_compare__with_itself_says_nothing(folder: Path) -> None:
    made = ftlab.compare(folder, folder)
    assert not made.moved
    assert "Nothing moved" in made.sentences[0]
    assert not made.costs and not made.suspects and not any(o.swaps for o in made.orders)


def test_compare__every_part_is_said(results: Make, tmp_path: Path) -> None:
    environment = {"commit": "a" * 40, "versions": {"torch": "2.14.1"}, "device": "CPU"}
    old = results("old", {"full": [0.80, 0.81, 0.82], "lora": [0.70, 0.71, 0.72], "gone": [0.5]},
                  provenance={"datasets": {"bbc": "f" * 64}, "environments": [environment]})
    newer = environment | {"commit": "b" * 40 + "+", "versions": {"torch": "2.15.0"}}
    new = results("new", {"full": [0.80, 0.81, 0.82], "lora": [0.90, 0.91, 0.92], "more": [0.5]},
                  provenance={"datasets": {"bbc": "e" * 64}, "environments": [newer]},
                  trainable_parameters=2000, train_seconds=40.0)
    made = ftlab.compare(old, new)
    text = "\n".join(made.sentences)
    assert [m.verdict for m in made.movements] == ["equal", "moved"]
    lora = made.movements[1]
    assert lora.difference == pytest.approx(0.2)
    assert lora.test.effect == pytest.approx(20)  # standard deviations of 0.01
    for said in (
        "1 of 2 numbers has moved", "lora on bbc from minilm (test/accuracy)",
        "trainable_parameters: full x2 and lora x2", "train_seconds: full x4 and lora x4",
        "Kendall's tau -1.00", "1 pair changed places, 1 of them significantly",
        "full/lora", f"Only in {old}: gone on bbc", f"Only in {new}: more on bbc",
        "data set bbc: other data (ffffffff -> eeeeeeee)", "torch: 2.14.1 -> 2.15.0",
        "commit: aaaaaaaaaa -> bbbbbbbbbb+", "Holm's correction over 2 tests",
    ):
        assert said in text, said
    assert "device" not in text
    assert made.write(tmp_path / "d.md").read_text() == made.markdown()
    assert "| lora | 71.00 ± 1.00 | 91.00 ± 1.00 | +20.00" in made.markdown()
    lines = list(csv.DictReader(io.StringIO(made.write(tmp_path / "d.csv").read_text())))
    assert [(x["technique"], x["metric"], x["verdict"]) for x in lines][1:3] == [
        ("lora", "test/accuracy", "moved"), ("full", "cost/train_seconds", "measured otherwise")]
    with pytest.raises(InputError, match="Markdown or CSV"):
        made.write(tmp_path / "d.txt")


@pytest.mark.parametrize("old", [[0.7], [0.70, 0.71]])
def test_compare__fewer_than_three_seeds_are_not_tested(results: Make, old: list[float]) -> None:
    made = ftlab.compare(results("old", {"lora": old}), results("new", {"lora": [0.9, 0.9, 0.9]}))
    assert not made.moved
    assert "Nothing could be tested" in made.sentences[0]
    assert "fewer than three seeds" in made.sentences[0]
    assert made.movements[0].verdict == "untested" and math.isnan(made.movements[0].p)


def test_compare__no_interval_of_a_change_leaves_the_metrics_range(results: Make) -> None:
    old, new = results("old", {"lora": [0.1, 0.2, 0.5]}), results("new", {"lora": [0.8, 0.9, 0.9]})
    (movement,) = ftlab.compare(old, new).movements
    assert stats.ttest_rel([0.8, 0.9, 0.9], [0.1, 0.2, 0.5]).confidence_interval().high > 1
    assert 0 < movement.test.low < movement.difference < movement.test.high == 1


def test_compare__a_seed_that_fails_now_has_moved(results: Make) -> None:
    old, new = results("old", {"lora": [0.7, 0.7]}), results("new", {"lora": [0.7, None]})
    assert [m.verdict for m in ftlab.compare(old, new).movements] == ["seed 1 now fails"]
    assert ftlab.compare(old, new).moved
    all_failed = results("none", {"lora": [None, None]})
    assert ftlab.compare(old, all_failed).movements[0].lost == "seed 0, 1 now fails"


def test_compare__a_seed_that_was_not_run_has_not(results: Make) -> None:
    old = results("old", {"lora": [0.7, 0.72, 0.7, 0.71]})
    new = results("new", {"lora": [0.7, 0.72, 0.7]})
    made = ftlab.compare(old, new)
    assert not made.moved
    assert "Welch" in made.movements[0].test.test  # the seeds are not the same


def test_compare__the_order_of_sides_is_only_a_sign(results: Make) -> None:
    old = results("old", {"full": [0.80, 0.83, 0.82], "lora": [0.70, 0.71, 0.74]})
    new = results("new", {"full": [0.81, 0.84, 0.80], "lora": [0.90, 0.91, 0.92]})
    there, back = ftlab.compare(old, new), ftlab.compare(new, old)
    for a, b in zip(there.movements, back.movements, strict=True):
        assert (a.p, a.difference) == pytest.approx((b.p, -b.difference))
    assert there.orders[0].tau == back.orders[0].tau


def test_order__a_swap_within_noise_is_no_significant_one(results: Make) -> None:
    old = results("old", {"full": [0.80, 0.85, 0.75], "lora": [0.79, 0.86, 0.74]})
    new = results("new", {"full": [0.80, 0.83, 0.75], "lora": [0.79, 0.88, 0.74]})
    (order,) = ftlab.compare(old, new).orders
    (swap,) = order.swaps
    assert (swap.first, swap.second, swap.significant) == ("full", "lora", False)
    assert order.tau == -1


@pytest.mark.parametrize(("sides", "said"), [
    (("runs", "nowhere"), "no results there"),
    (("runs", "sqlite:///{}/mlflow.db"), "which study"),
    (("runs", "sqlite:///{}/mlflow.db#small"), "no tracking store"),
    (("runs", "empty.csv"), "no column 'study'"),
    (("runs", "twice.csv"), "stands twice"),
    (("runs", "words.csv"), "'many' is no number"),
    (("runs", "short.csv"), "not as many fields"),
    (("runs", "two.csv"), "2 studies"),
    (("runs", "other.csv"), "no cell in common"),
])  # fmt: skip
def test_compare__refuses_in_one_line(results: Make, tmp_path: Path, sides: tuple[str, str],
                                      said: str) -> None:
    results("runs", {"lora": [0.7, 0.8]})
    head, first, second = (tmp_path / "runs" / "runs.csv").read_text().splitlines()
    written = {
        "empty.csv": [""], "twice.csv": [head, first, first],
        "words.csv": [head, first.replace("0.7", "many")], "short.csv": [head, first[:-5]],
        "two.csv": [head, first, second.replace("small", "large")],
        "other.csv": [head, first.replace("lora", "probe")],
    }
    for name, lines in written.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    old, new = (s.format(tmp_path) if ":" in s else str(tmp_path / s) for s in sides)
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        ftlab.compare(old, new)
    assert "\n" not in caught.value.what + caught.value.mend
    assert caught.value.mend


def test_compare__an_unknown_metric_is_refused(results: Make) -> None:
    folder = results("runs", {"lora": [0.7, 0.8]})
    with pytest.raises(InputError, match="did you mean 'test/accuracy'"):
        ftlab.compare(folder, folder, ["test/acuracy"])


def test_cli__fits_80_columns_and_says_by_its_code(
    here: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, results: Make,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    old = results("old", {"partial": [0.80, 0.81, 0.82], "lora": [0.70, 0.71, 0.72]})
    new = results("new", {"partial": [0.80, 0.61, 0.82], "lora": [0.90, 0.91, 0.92]})
    code, output, errors = here("compare", old, old)
    assert (code, errors) == (0, "")
    code, output, errors = here("compare", old, new, "--out", "drift.md")
    assert (code, errors) == (1, "")
    assert max(map(len, output.splitlines())) <= 80
    assert re.search(r"partial +81.00 ± 1.00 +74.33 ± 11.59 +-6.67 \[.+\] +0.423 +noise", output)
    assert here("compare", old, "nowhere")[0] == 2


def test_drift__is_a_frame_and_markdown_in_a_notebook(results: Make) -> None:
    folder = results("runs", {"lora": [0.7, 0.8], "full": [0.7, 0.9]})
    made = ftlab.compare(folder, folder)
    assert isinstance(made, Drift)
    assert list(made.frame["technique"]) == ["lora", "full"]
    assert made._repr_markdown_() == made.markdown()
