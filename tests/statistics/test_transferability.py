"""Transferability scores: every one held to the contract, each to its numbers."""

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.special import softmax
from sklearn.cluster import KMeans
from sklearn.covariance import ledoit_wolf as sklearn_ledoit_wolf
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from ftlab.statistics.transferability import n_leep
from ftlab.statistics.transferability.all_scores import all_scores
from ftlab.statistics.transferability.base import centred, spectrum
from ftlab.statistics.transferability.dummy_labels import expected_likelihood
from ftlab.statistics.transferability.gbc import FLOOR, GBCDiagonal, GBCSpherical
from ftlab.statistics.transferability.h_score import HScore, RegularisedHScore, ledoit_wolf
from ftlab.statistics.transferability.leep import LEEP
from ftlab.statistics.transferability.log_me import LogME
from ftlab.statistics.transferability.mixture import fitted_posterior
from ftlab.statistics.transferability.n_leep import NLEEP
from ftlab.statistics.transferability.nce import NCE
from ftlab.statistics.transferability.trans_rate import TransRate

SCORES = all_scores()
every = pytest.mark.parametrize("score", SCORES, ids=lambda score: type(score).__name__)


def planted():
    """Four classes of unlike size, and rows of which some columns tell them apart."""
    generator = np.random.default_rng(0)
    labels = np.repeat(range(4), [90, 60, 35, 15])
    features = generator.normal(size=(200, 16))
    features[:, :4] += 1.5 * np.eye(4)[labels]
    logits = generator.normal(size=(200, 6))
    logits[:, :4] += 2 * np.eye(4)[labels]
    return features, softmax(logits, axis=1), labels


FEATURES, PROBABILITIES, LABELS = planted()


def rows_of(score):
    return FEATURES if score.reads == "features" else PROBABILITIES


NUMBERS = {LogME: -0.4901422497, LEEP: -0.8925654622, NCE: -0.6703433439, HScore: 1.0344117521,
           RegularisedHScore: 0.3574819855, TransRate: 1.5400909942, GBCSpherical: -6.3123357104,
           GBCDiagonal: -5.5662155294}


@pytest.mark.parametrize("kind", NUMBERS, ids=lambda kind: kind.__name__)
def test_score__number(kind):
    score = kind()
    assert score(rows_of(score), LABELS) == pytest.approx(NUMBERS[kind], abs=1e-9)


@every
def test_score__in_its_limits(score):
    low, high = score.limits(rows_of(score).shape[1], 4)
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(size=(60, 5))
        rows = noise if score.reads == "features" else softmax(3 * noise, axis=1)
        labels = np.random.default_rng(seed).permutation(np.arange(60) % 4)
        assert low - 1e-9 <= score(rows, labels) <= high + 1e-9


@every
def test_score__more_where_the_classes_are_further_apart(score):
    generator = np.random.default_rng(1)
    noise = generator.normal(size=(120, 8))
    labels = np.arange(120) % 3
    found = []
    for distance in (0.0, 1.5, 4.0):
        rows = noise.copy()
        rows[:, :3] += distance * np.eye(3)[labels]
        found.append(score(rows if score.reads == "features" else softmax(rows, axis=1), labels))
    assert found == sorted(found)
    assert found[2] - found[0] > 0.1


@every
def test_score__the_order_of_examples_says_nothing(score):
    order = np.random.default_rng(3).permutation(200)
    rows = rows_of(score)
    assert score(rows[order], LABELS[order]) == pytest.approx(score(rows, LABELS), rel=1e-9)


@every
def test_score__names_of_classes_say_nothing(score):
    rows = rows_of(score)
    names = np.array(["sport", "art", "zoo", "news"])[LABELS]
    assert score(rows, names) == pytest.approx(score(rows, LABELS), rel=1e-9)
    assert score(rows, (7 * LABELS + 3) % 31) == pytest.approx(score(rows, LABELS), rel=1e-9)


@pytest.mark.parametrize("score", [score for score in SCORES if score.reads == "features"],
                         ids=lambda score: type(score).__name__)
def test_score__rotated_features(score):
    turn = stats.ortho_group.rvs(16, random_state=np.random.default_rng(2))
    same = score(FEATURES @ turn, LABELS) == pytest.approx(score(FEATURES, LABELS), rel=1e-9)
    assert same is score.turns


@every
@pytest.mark.parametrize("case", [
    "wide", "constant column", "constant", "one example", "duplicates", "large", "small"])
def test_score__finite(score, case):
    rows, labels = rows_of(score)[::5].copy(), LABELS[::5].copy()
    if score.reads == "features":
        match case:
            case "wide":
                rows = np.random.default_rng(0).normal(size=(len(labels), 300))
            case "constant column":
                rows[:, 3] = 2.5
            case "constant":
                rows[:] = 2.5
            case "duplicates":
                rows[:] = rows[:2].repeat(len(rows) // 2, axis=0)
            case "large" | "small":
                rows *= 1e4 if case == "large" else 1e-4
    elif case in ("constant", "duplicates"):
        rows[:] = rows[0]
    if case == "one example":
        labels[0] = 9
        assert (labels == 9).sum() == 1
    value = score(rows, labels)
    low, high = score.limits(rows.shape[1], len(np.unique(labels)))
    assert np.isfinite(value)
    assert low - 1e-6 <= value <= high + 1e-6


@every
def test_score__half_precision(score):
    half = rows_of(score).astype(np.float16)
    assert score(half, LABELS) == score(half.astype(np.float64), LABELS)
    assert score(half, LABELS) == pytest.approx(score(rows_of(score), LABELS), abs=0.02)


@every
def test_score__rows_are_left_as_they_were(score):
    rows, labels = rows_of(score).copy(), LABELS.copy()
    rows.flags.writeable = labels.flags.writeable = False
    score(rows, labels)


@every
@pytest.mark.parametrize(("rows", "labels", "says"), [
    (np.ones((3, 2)), [0, 0, 0], "all 3 examples are of one class"),
    ([[1.0, np.nan], [1.0, 2.0], [np.inf, 0.0]], [0, 1, 0], "2 of 3 examples"),
    (np.ones(3), [0, 1, 0], r"\(3,\)"),
    (np.ones((3, 2)), [0, 1], r"\(2,\)"),
    (np.ones((3, 0)), [0, 1, 0], r"\(3, 0\)"),
])
def test_score__refuses(score, rows, labels, says):
    with pytest.raises(ValueError, match=says):
        score(rows, labels)


def test_scores__names_differ():
    assert len({score.name for score in SCORES}) == len(SCORES)


def entropy(labels):
    shares = np.bincount(labels) / len(labels)
    return float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())


@pytest.mark.parametrize("score", [LEEP(), NCE()], ids=lambda score: score.name)
def test_source_score__perfect_and_constant(score):
    assert score(np.eye(4)[LABELS], LABELS) == pytest.approx(0, abs=1e-12)
    constant = np.tile(PROBABILITIES[0], (200, 1))
    assert score(constant, LABELS) == pytest.approx(-entropy(LABELS), rel=1e-12)


def test_nce__two_by_two():
    """Of 8 examples called a, 6 are of class 0; of 4 called b, all are of class 1."""
    labels, called = np.array([0] * 6 + [1] * 6), np.array([0] * 8 + [1] * 4)
    expected = (6 * np.log(6 / 8) + 2 * np.log(2 / 8)) / 12
    assert NCE()(np.eye(2)[called], labels) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("score", [HScore(), RegularisedHScore()], ids=lambda score: score.name)
def test_h_score__one_hot_features(score):
    assert HScore()(np.eye(4)[LABELS], LABELS) == pytest.approx(3, rel=1e-9)
    assert 2 < score(np.eye(4)[LABELS], LABELS) <= 3 + 1e-9


def test_h_score__plain_one_says_nothing_with_few_examples():
    noise = np.random.default_rng(0).normal(size=(40, 100))
    labels = np.arange(40) % 4
    assert HScore()(noise, labels) == pytest.approx(3, rel=1e-9)
    assert RegularisedHScore()(noise, labels) < 0.5


def test_h_score__by_covariances():
    means = np.stack([FEATURES[label == LABELS].mean(axis=0) for label in LABELS])
    whole, between = np.cov(FEATURES, rowvar=False), np.cov(means, rowvar=False)
    assert HScore()(FEATURES, LABELS) == pytest.approx(np.trace(np.linalg.inv(whole) @ between))
    shrunk, shrinkage = sklearn_ledoit_wolf(FEATURES)
    assert RegularisedHScore()(FEATURES, LABELS) == pytest.approx(
        (1 - shrinkage) * np.trace(np.linalg.inv(shrunk) @ between), rel=1e-10)


@pytest.mark.parametrize("shape", [(200, 16), (20, 50)])
def test_ledoit_wolf__as_scikit_learn(shape):
    rows = centred(np.random.default_rng(5).normal(size=shape) * np.arange(1, shape[1] + 1))
    _, shrinkage = sklearn_ledoit_wolf(rows, assume_centered=True)
    found, mean = ledoit_wolf(rows, spectrum(rows)[1])
    assert found == pytest.approx(shrinkage, rel=1e-10)
    assert mean == pytest.approx((rows**2).mean(), rel=1e-10)


def test_h_score__shrinkage():
    rows = centred(FEATURES)
    assert ledoit_wolf(rows, spectrum(rows)[1])[0] == pytest.approx(0.7320456638, abs=1e-9)


@pytest.mark.parametrize("step", [1, 14], ids=["many", "fewer than dimensions"])
def test_log_me__is_the_maximum(step):
    """The evidence as the paper writes it, maximised over both precisions by scipy."""
    labels = LABELS[::step]
    rows = FEATURES[::step] + 3 * np.eye(4, 16)[labels]
    count, width = rows.shape
    best = []
    for label in np.unique(labels):
        target = (labels == label).astype(float)

        def evidence(logs, target=target):
            prior, noise = np.exp(np.clip(logs, -20, 20))
            inverse = prior * np.eye(width) + noise * rows.T @ rows
            mean = noise * np.linalg.solve(inverse, rows.T @ target)
            return -0.5 * (width * np.log(prior) + count * np.log(noise) - count * np.log(2 * np.pi)
                           - noise * ((rows @ mean - target) ** 2).sum() - prior * mean @ mean
                           - np.linalg.slogdet(inverse)[1]) / count

        starts = [(-2, 3), (2, 3), (6, 3)]
        best.append(max(-optimize.minimize(evidence, start, method="Nelder-Mead", options={
            "xatol": 1e-8, "fatol": 1e-13, "maxiter": 1000}).fun for start in starts))
    assert -1e-12 < LogME()(rows, labels) - np.mean(best) < 1e-6  # scipy stops a little below


def test_trans_rate__by_determinants():
    rows = FEATURES - FEATURES.mean(axis=0)

    def rate(part):
        return 0.5 * np.linalg.slogdet(np.eye(16) + part.T @ part / len(part) / 1e-4)[1]

    parts = [rows[label == LABELS] for label in range(4)]
    expected = rate(rows) - sum(len(part) / 200 * rate(part) for part in parts)
    assert TransRate()(FEATURES, LABELS) == pytest.approx(expected, rel=1e-12)


def test_gbc__one_feature_by_integration():
    """The coefficient is the integral of the root of both densities."""
    rows = np.array([[0.0], [1.0], [2.5], [4.0], [4.5], [6.0]])
    labels = [0, 0, 0, 1, 1, 1]
    grid = np.linspace(-30, 40, 200_001)
    densities = [stats.norm.pdf(grid, part.mean(), part.std()) for part in (rows[:3], rows[3:])]
    overlap = np.trapezoid(np.sqrt(densities[0] * densities[1]), grid)
    for score in (GBCSpherical(), GBCDiagonal()):
        assert score(rows, labels) == pytest.approx(-2 * overlap, rel=1e-6)


def test_gbc__classes_alike_overlap_wholly():
    rows = np.tile(np.random.default_rng(0).normal(size=(20, 3)), (3, 1))
    labels = np.repeat(range(3), 20)
    for score in (GBCSpherical(), GBCDiagonal()):
        assert score(rows, labels) == pytest.approx(-6, rel=1e-9)


def test_gbc__one_example_has_the_variance_of_the_others():
    rows, labels = np.array([[0.0], [2.0], [1.0]]), [0, 0, 1]
    assert GBCSpherical()(rows, labels) == pytest.approx(-2)  # its mean, and its variance
    alone = GBCSpherical()(np.array([[0.0], [0.1]]), [0, 1])
    assert alone == pytest.approx(-2 * np.exp(-0.01 / FLOOR / 8), rel=1e-9)


def test_n_leep__as_scikit_learn():
    """From where its k-means starts, the mixture goes where scikit-learn's goes."""
    directions = n_leep.principal(FEATURES)
    theirs = PCA(n_components=0.8).fit_transform(FEATURES)
    assert np.abs(directions) == pytest.approx(np.abs(theirs))
    start = KMeans(20, n_init=1, random_state=np.random.RandomState(0)).fit(directions).labels_
    ours = fitted_posterior(directions, start)
    theirs = GaussianMixture(20, random_state=0).fit(directions).predict_proba(directions)
    assert ours == pytest.approx(theirs, abs=1e-6)
    directions = PCA(n_components=0.8).fit_transform(FEATURES)
    start = KMeans(20, n_init=1, random_state=np.random.RandomState(0)).fit(directions).labels_
    assert expected_likelihood(fitted_posterior(directions, start), LABELS) == pytest.approx(
        -0.8624530995, abs=1e-8)


def test_n_leep__its_starts_are_as_good_as_scikit_learns():
    """The mean of five seeds lies within what five of scikit-learn's mixtures give."""
    directions = PCA(n_components=0.8).fit_transform(FEATURES)
    theirs = [expected_likelihood(GaussianMixture(20, random_state=seed).fit(directions)
                                  .predict_proba(directions), LABELS) for seed in range(10)]
    assert min(theirs) < NLEEP()(FEATURES, LABELS) < max(theirs)
