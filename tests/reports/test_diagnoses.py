import math
from dataclasses import replace

import numpy as np
import pytest
from courses import (
    BLOCKS,
    EPOCHS,
    STEPS,
    course,
    healthy,
    key,
    observed,
    with_history,
    with_metrics,
)
from scipy import stats

from ftlab.reports.comparison import compare
from ftlab.reports.diagnoses.base import LEVELS, CellHistory, RunHistory, StudyHistory, matters
from ftlab.reports.diagnoses.notes import Notes
from ftlab.reports.diagnoses.nothing_learned import weigh
from ftlab.reports.diagnoses.run_histories import diagnose
from ftlab.statistics.paired import of_seeds
from ftlab.statistics.power import Noise, noise, smallest_found
from ftlab.tracking.cell_metric import CellMetric

LAST = EPOCHS * STEPS


def said(study: StudyHistory) -> dict[str, list]:
    """What is found, by title."""
    return {diagnosis.title: found for diagnosis, found in diagnose(study).items() if found}


def beside(sick: list[RunHistory], noise: int = 1) -> StudyHistory:
    """A sick cell beside a healthy one that is far better, so that seeds suffice."""
    return observed({"sick": sick, "well": healthy(noise + 100, 0.97)})


@pytest.mark.parametrize("noise", range(40))
def test_healthy__gives_no_finding(noise: int) -> None:
    assert said(beside(healthy(noise, 0.85), noise)) == {}


def test_a_loss_near_zero__may_double() -> None:
    draw = np.random.default_rng(3)
    runs = [course(draw, seed, [1.0, 0.1, 0.01, 0.004, 0.004, 0.009],
                   [0.4, 0.1, 0.06, 0.05, 0.05, 0.05], [0.8, 0.9, 0.95, 0.95, 0.95, 0.95], 0.85)
            for seed in range(3)]
    assert said(beside(runs)) == {}


def tail(run: RunHistory, metric: str, factor: float, epochs: int = 2) -> RunHistory:
    """The metric of the last epochs, so many times as large."""
    begin = LAST - STEPS * epochs
    return with_history(run, metric, lambda step, value: value * factor if step > begin else value)


def overfitted() -> list[RunHistory]:
    draw = np.random.default_rng(3)
    return [course(draw, seed, [1.1, 0.4, 0.1, 0.02, 0.01, 0.01], [0.9, 0.8, 0.85, 0.9, 0.92, 0.93],
                   [0.6, 0.7, 0.72, 0.73, 0.73, 0.73], 0.7) for seed in range(3)]


def rising() -> list[RunHistory]:
    draw = np.random.default_rng(3)
    return [course(draw, seed, [1.1, 0.7, 0.6, 0.5, 0.45, 0.4], [0.9, 0.7, 0.75, 0.8, 0.85, 0.88],
                   [0.6, 0.75, 0.7, 0.7, 0.7, 0.7], 0.7) for seed in range(3)]


def diverged() -> list[RunHistory]:
    return [tail(run, "train/epoch_loss", 2.0) for run in healthy(1, 0.85)]


def spiked() -> list[RunHistory]:
    first, *rest = healthy(1, 0.85)
    jump = with_history(first, "train/loss", lambda step, loss: 9.0 if step == 120 else loss)
    return [jump, *rest]


def no_number() -> list[RunHistory]:
    first, *rest = healthy(1, 0.85)
    broken = replace(first, status="FAILED", reason="non-finite loss at or before step 30",
                     metrics={}, named=None)
    return [broken, *rest]


def vanished() -> list[RunHistory]:
    return [with_metrics(run, train__grad_norm__embeddings=1e-6) for run in healthy(1, 0.85)]


def exploded() -> list[RunHistory]:
    first, *rest = healthy(1, 0.85)
    burst = with_history(first, "train/grad_norm", lambda step, n: 5e3 if step == 200 else n)
    return [burst, *rest]


def no_gradient_number() -> list[RunHistory]:
    first, *rest = healthy(1, 0.85)
    burst = with_history(first, "train/grad_norm", lambda step, n: math.nan if step == 200 else n)
    return [burst, *rest]


def guessing() -> list[RunHistory]:
    draw = np.random.default_rng(5)
    runs = []
    for run in healthy(1, 0.34):
        targets = list(run.named["target"])
        named = {"target": targets, "prediction": draw.permutation(targets).tolist()}
        runs.append(replace(run, named=named))
    return runs


def majority() -> list[RunHistory]:
    """Better than chance would be with such guesses, and not better than one class always."""
    target = ["a"] * 300 + ["b"] * 100
    said_ = ["a"] * 220 + ["b"] * 80 + ["b"] * 80 + ["a"] * 20
    return [replace(run, named={"target": target, "prediction": said_})
            for run in healthy(1, 0.75)]


def jumping() -> list[RunHistory]:
    runs = []
    for run, best in zip(healthy(1, 0.85), (1, 3, 6), strict=True):
        course_ = with_history(run, "val/accuracy", lambda step, value, best=best: (
            0.9 if step == best * STEPS or step > LAST else 0.8 - 0.001 * abs(step / STEPS - best)))
        runs.append(with_metrics(course_, best_epoch=best, val__accuracy=0.9))
    return runs


def unfinished() -> list[RunHistory]:
    draw = np.random.default_rng(3)
    return [course(draw, seed, [1.1, 1.0, 0.9, 0.8, 0.7, 0.6], [1.1, 1.0, 0.9, 0.8, 0.7, 0.6],
                   [0.4, 0.48, 0.56, 0.64, 0.72, 0.8], 0.8) for seed in range(3)]


def noted() -> list[RunHistory]:
    return [replace(run, notes="3 of 444 test inputs are also in train (exact duplicates)")
            for run in healthy(1, 0.85)]


def test_notes__one_with_a_semicolon_is_one_and_of_all_that_ran_it_is_said_once() -> None:
    notes = "1 of 9 texts is not UTF-8; bytes replaced\n100.0% of training texts were cut at 16 tokens"
    ran = [replace(run, notes=notes) for run in healthy(1, 0.85)]
    study = observed({"a": ran, "b": ran, "never": []})
    seen = [(found.where, found.seen, found.advice[:20]) for found in Notes().find(study)]
    assert seen == [("all cells that ran", "1 of 9 texts is not UTF-8; bytes replaced", ""),
                    ("all cells that ran", "100.0% of training texts were cut at 16 tokens",
                     "a larger max_length,")]


def failed() -> list[RunHistory]:
    first, *rest = healthy(1, 0.85)
    return [replace(first, status="FAILED", reason="a trained tensor never moved"), *rest]


SICK = {
    "overfitted": (overfitted, "Overfitting", "warning"),
    "rising": (rising, "Overfitting", "hint"),
    "diverged": (diverged, "Learning rate too high", "warning"),
    "spiked": (spiked, "Learning rate too high", "warning"),
    "no number": (no_number, "Learning rate too high", "problem"),
    "vanished": (vanished, "Vanishing or exploding gradients", "warning"),
    "exploded": (exploded, "Vanishing or exploding gradients", "warning"),
    "no gradient": (no_gradient_number, "Vanishing or exploding gradients", "warning"),
    "guessing": (guessing, "Nothing learned", "problem"),
    "majority": (majority, "Nothing learned", "warning"),
    "jumping": (jumping, "Selection unstable", "hint"),
    "unfinished": (unfinished, "Not converged", "warning"),
    "noted": (noted, "Notes of the runs", "hint"),
    "failed": (failed, "Runs that did not finish", "problem"),
}


@pytest.mark.parametrize("name", SICK)
def test_sick__gives_exactly_its_finding(name: str) -> None:
    make, title, level = SICK[name]
    found = said(beside(make()))
    assert list(found) == [title]
    (finding,) = found[title]
    assert finding.level == level
    assert finding.where == "sick on bbc from minilm"
    assert finding.seen
    assert level in LEVELS


def test_notes__are_a_finding_each_whatever_stands_in_them() -> None:
    texts = ["3 files in a; b are no images; skipped", "2 test inputs are duplicates of train"]
    runs = [replace(run, notes="\n".join(texts)) for run in healthy(1, 0.85)]
    (found,) = said(beside(runs)).values()
    assert [finding.seen for finding in found] == texts
    assert [bool(finding.advice) for finding in found] == [False, True]


@pytest.mark.parametrize(("name", "seeds"), [("spiked", (0,)), ("no number", (0,)),
                                             ("failed", (0,)), ("vanished", (0, 1, 2))])
def test_sick__names_the_seeds_that_show_it(name: str, seeds: tuple[int, ...]) -> None:
    (findings,) = said(beside(SICK[name][0]())).values()
    assert findings[0].seeds == seeds


def test_gradients__name_the_block_and_the_numbers() -> None:
    (found,) = said(beside(vanished()))["Vanishing or exploding gradients"]
    assert found.seen.startswith("gradients vanish in embeddings, the first on the way back from the "
                                 "output: norm 1e-06 beside ")
    assert found.seen.endswith("in head") and not any(name in found.seen for name in BLOCKS[1:-1])


def test_gradients__of_what_every_block_was_added_may_be_far_below_the_head_s() -> None:
    """A bank of vectors that all blocks share, say; not where the head alone gets anything."""
    def small(share: float) -> list[RunHistory]:
        return [with_metrics(run, **{f"train__grad_norm__{name}": share * run.metrics[
            "train/grad_norm/head"] for name in BLOCKS if name != "head"})
            for run in healthy(1, 0.85)]

    title = "Vanishing or exploding gradients"
    assert title not in said(beside(small(1e-5)))
    assert "gradients vanish in" in said(beside(small(1e-7)))[title][0].seen
    nowhere = [replace(run, blocks=()) for run in vanished()]  # an earlier version's: in no order
    assert title not in said(beside(nowhere))


def test_gradients__of_steps_that_half_precision_leaves_out_are_no_finding() -> None:
    first, *rest = healthy(1, 0.85)
    steps = [step for step, _ in first.steps("train/grad_norm")]
    skipped = with_history(first, "train/grad_norm",
                           lambda step, norm: math.inf if step == steps[0] else norm)
    assert "Vanishing or exploding gradients" not in said(beside([skipped, *rest]))


def test_gradients__of_seeds_alike_give_one_sentence_and_of_several_blocks_one_each() -> None:
    runs = [with_metrics(run, **{f"train__grad_burst__{name}": times}) for run, name, times in zip(
        healthy(1, 0.85), ["head", "embeddings", "head"], [150.0, 300.0, 400.0], strict=True)]
    (found,) = said(beside(runs))["Vanishing or exploding gradients"]
    first, second = found.seen.split("; ")
    assert "in head" in first and "norm 400 times its own median" in first
    assert "in embeddings" in second and "norm 300 times its own median" in second


def several_fits(train: list[float], validation: list[float], right: list[float]) -> list[RunHistory]:
    draw = np.random.default_rng(3)
    return [course(draw, seed, train, validation, right, 0.85) for seed in range(3)]


@pytest.mark.parametrize(("runs", "alone", "starts"), [
    # just train twice: the second fit's loss is of other weights, and another one
    (several_fits([1.1, 0.3, 2.9, 1.6, 1.45, 1.4], [0.8, 0.4, 0.7, 0.6, 0.55, 0.55],
                  [0.5, 0.6, 0.7, 0.85, 0.85, 0.85]), {"Learning rate too high"}, [2]),
    # a soup, whose first member is at its end when the others begin
    (several_fits([1.1, 0.5, 0.45, 1.1, 0.5, 0.44], [0.6, 0.4, 0.38, 0.7, 0.55, 0.5],
                  [0.7, 0.8, 0.84, 0.7, 0.84, 0.845]), {"Overfitting"}, [3]),
])
def test_several_fits_of_one_run__are_not_judged_as_one_curve(
    runs: list[RunHistory], alone: set[str], starts: list[int]
) -> None:
    def fit(step: int) -> int:
        return 1 + sum(step > start * STEPS for start in starts)

    assert set(said(beside(runs))) >= alone  # as if they were one
    runs = [replace(run, history={**run.history, "train/fit": [
        (step, fit(step)) for step, _ in run.history["train/epoch_loss"] if fit(step) > 1]})
        for run in runs]
    assert said(beside(runs)) == {}
    first = with_metrics(runs[0], best_epoch=1.0)
    assert (first.best_epoch, first.epochs("val/loss")) == (
        1, [value for _, value in first.history["val/loss"]][:starts[0]])
    last = with_metrics(runs[0], best_epoch=6.0)
    assert last.best_epoch == len(last.epochs("val/loss")) == 6 - starts[0]


def test_one_bad_seed_of_three__is_no_overfitting_of_the_technique() -> None:
    runs = [overfitted()[0], *healthy(1, 0.85)[1:]]
    assert "Overfitting" not in said(beside(runs))


def test_majority__is_fine_where_another_metric_is_compared() -> None:
    study = replace(beside(majority()), metric="test/f1_macro", select_by="val/accuracy")
    assert "Nothing learned" not in said(study)


def test_nothing_learned__equals_scipys_binomial_test() -> None:
    target = ["a"] * 30 + ["b"] * 20
    for hits in (22, 28, 32, 36):
        prediction = ["a"] * hits + ["c"] * (50 - hits) if hits < 30 else (
            ["a"] * 30 + ["b"] * (hits - 30) + ["a"] * (50 - hits))
        guess = weigh(replace(healthy(1)[0], named={"target": target, "prediction": prediction}))
        assert guess is not None
        assert guess.right == hits
        p = stats.binomtest(hits, 50, 0.6, alternative="greater").pvalue
        assert guess.constant_as_good == (p > 0.05)


def test_nothing_learned__is_asked_of_clusters() -> None:
    """33 of 50 right against 25 by chance; as each of five answers ten times over it is little."""
    answers = {"target": ["a", "b"] * 25, "prediction": ["a", "b"] * 16 + ["a", "a"] + ["b", "a"] * 8}
    alone = weigh(replace(healthy(1)[0], named=answers))
    together = weigh(replace(healthy(1)[0], named=answers | {"cluster": [n // 10 for n in range(50)]}))
    assert alone is not None and together is not None and alone.right == together.right == 33
    assert not alone.by_chance and together.by_chance and together.size < 10
    one = weigh(replace(healthy(1)[0], named=answers | {"cluster": [0] * 50}))
    assert one is not None and one.size == 50


def test_constant_predictions__are_chance_whatever_the_balance() -> None:
    run = replace(healthy(1)[0], named={"target": ["a"] * 95 + ["b"] * 5,
                                        "prediction": ["a"] * 100})
    guess = weigh(run)
    assert guess is not None
    assert guess.by_chance


def test_nothing_learned__of_a_healthy_minority_detector_is_not_said_by_chance() -> None:
    run = replace(healthy(1)[0], named={"target": ["a"] * 90 + ["b"] * 10,
                                        "prediction": ["a"] * 80 + ["b"] * 20})
    guess = weigh(run)
    assert guess is not None
    assert not guess.by_chance


def close() -> dict[str, list[RunHistory]]:
    """Two techniques whose seeds overlap."""
    return {name: [with_metrics(run, test__accuracy=a) for run, a in zip(healthy(n, 0.85), scores, strict=True)]
            for n, (name, scores) in enumerate({"a": (0.84, 0.86, 0.83), "b": (0.87, 0.86, 0.855)}.items())}


def test_too_few_seeds__says_which_differences_would_be_found() -> None:
    seen = noise([of_seeds([0.84, 0.86, 0.83], [0.87, 0.86, 0.855], 0.0)])
    (found,) = said(observed(close(), noise={("minilm", "bbc"): seen}))["Too few seeds to tell"]
    assert found.level == "hint"
    from statsmodels.stats.power import TTestPower  # the outside reference

    spread = np.std([0.03, 0.0, 0.025], ddof=1)
    sizes = [100 * spread * TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8) for n in (3, 10, 20)]
    assert found.seen == (
        "a is not told from b; the smallest difference that 80 of 100 studies of 1 pair would find is "
        f"{sizes[0]:.2f} points with 3 seeds, {sizes[1]:.2f} points with 10, {sizes[2]:.2f} points with 20")


def test_too_few_seeds__says_what_this_test_set_finds_at_all() -> None:
    seen = Noise(0.0, 0.01**2, 444)
    (found,) = said(observed(close(), noise={("minilm", "bbc"): seen}))["Too few seeds to tell"]
    assert "is 2.81 points with 3 seeds, 2.81 points with 10, 2.81 points with 20" in found.seen
    assert found.seen.endswith(", and 2.81 points with any number on 444 test examples")
    seen = Noise(0.0, 0.01**2, 444, 2000)
    (found,) = said(observed(close(), noise={("minilm", "bbc"): seen}))["Too few seeds to tell"]
    assert found.seen.endswith("on 444 clusters of 2,000 test examples")


def test_too_few_seeds__a_difference_that_there_cannot_be_is_none() -> None:
    seen = Noise(0.4**2)
    (found,) = said(observed(close(), noise={("minilm", "bbc"): seen}))["Too few seeds to tell"]
    assert "is none that there can be with 3 seeds, 39." in found.seen


def test_too_few_seeds__counts_the_pairs_of_the_question() -> None:
    """With a baseline the others are compared with it alone, and the best is not asked for."""
    cells = observed(close() | {"c": healthy(7, 0.5)}).cells
    asked = [CellMetric(cell.key, {run.seed: run.metrics["test/accuracy"] for run in cell.finished})
             for cell in cells]
    study = StudyHistory(cells, (compare(("minilm", "bbc"), asked, True, "a"),),
                         noise={("minilm", "bbc"): Noise(0.01**2)})
    (found,) = said(study)["Too few seeds to tell"]
    assert found.seen.startswith("b is not told from a; ") and "studies of 2 pairs" in found.seen
    size = 100 * smallest_found(Noise(0.01**2), 10, 0.05 / 2)
    assert f", {size:.2f} points with 10, " in found.seen


def test_collapse__is_said_of_those_that_collapsed_and_of_those_that_did_not() -> None:
    cells = tuple(CellHistory(key(name), tuple(healthy(n, 0.85)), some)
                  for n, (name, some) in enumerate({"lora": 1, "ia3": 0, "loss": None}.items()))
    one, others = said(StudyHistory(cells))["Collapsed seeds"]
    assert (one.level, one.where, one.seen) == ("warning", cells[0].key.title, "1 of 3 seeds collapsed")
    assert (others.level, others.where) == ("hint", "bbc from minilm")
    assert others.seen == "3 seeds without a collapse (ia3) do not exclude one in 2"


def test_collapse__of_healthy_cells_is_not_said() -> None:
    cells = tuple(CellHistory(key(str(n)), tuple(healthy(n, 0.85)), 0) for n in range(2))
    assert "Collapsed seeds" not in said(StudyHistory(cells))


def test_one_seed__is_too_few_and_nothing_else_is_invented() -> None:
    found = said(observed({"a": healthy(1, 0.85)[:1], "b": healthy(2, 0.97)[:1]}))
    assert list(found) == ["Too few seeds to tell"]
    assert found["Too few seeds to tell"][0].seen.startswith("a has 1 seed and b has 1 seed")


def test_contrary_selection__is_said_where_the_test_split_refutes_it() -> None:
    low = [with_metrics(run, val__accuracy=0.95) for run in healthy(1, 0.85)]
    high = [with_metrics(run, val__accuracy=0.90) for run in healthy(2, 0.97)]
    (found,) = said(observed({"a": low, "b": high}))["Selection unstable"]
    assert (found.level, found.where) == ("warning", "bbc from minilm")
    assert "validation puts a first" in found.seen


def test_no_record__gives_no_finding() -> None:
    bare = [RunHistory(seed, metrics={"test/accuracy": 0.8 + 0.001 * seed}) for seed in range(3)]
    assert said(beside(bare)) == {}


def test_matters__of_shares_and_of_other_metrics() -> None:
    assert matters("val/accuracy", 0.021, 0.5)
    assert not matters("val/accuracy", 0.019, 0.5)
    assert matters("val/loss", 0.3, 10.0)
    assert not matters("val/loss", 0.1, 10.0)
