"""Twenty real seeds of the quickstart's techniques, fed run by run as several workers would.

The table was written from a store of `experiments/quickstart.yaml` with `--seeds 0,...,19`: for
each technique and seed, which test articles were right, as bits.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from ftlab.statistics.moderated import SeedScores
from ftlab.statistics.until_decided import compare, decide, stacked
from ftlab.statistics.verdict import Decision, Rule

TABLE = Path(__file__).with_name("quickstart_20_seeds.npz")
RULE = Rule(0.03, 3, 20)
Scores = Mapping[str, Mapping[int, SeedScores]]


@pytest.fixture(scope="module")
def stored() -> tuple[Scores, dict[str, float]]:
    with np.load(TABLE, allow_pickle=False) as table:
        names, examples = table["names"].tolist(), int(table["examples"])
        hits = {name: np.unpackbits(table[name], axis=1, count=examples).astype(float) for name in names}
        seconds = dict(zip(names, table["seconds"].tolist(), strict=True))
    scores = {name: {seed: SeedScores(np.array([row.mean()]), row[None])
                     for seed, row in enumerate(rows)} for name, rows in hits.items()}
    return scores, seconds


def questions(scores: Scores) -> list[tuple[str, str]]:
    return [(name, "full") for name in scores if name != "full"]


def replay(scores: Scores, seconds: Mapping[str, float], generator: np.random.Generator,
           every: int) -> list[Decision]:
    """Run what is wanted, up to four runs at a time that end in any order; the decisions on the way."""
    known: dict[str, dict[int, SeedScores]] = {name: {} for name in scores}
    going: list[tuple[str, int]] = []
    decisions = []
    for count in range(10_000):
        decision = decide(known, questions(scores), RULE, seconds)
        if count % every == 0:
            decisions.append(decision)
        free = [(run.technique, run.seed) for run in decision.wanted
                if (run.technique, run.seed) not in going]
        going += free[:int(generator.integers(1, 5)) - len(going)] if len(going) < 4 else []
        if not going:
            return [*decisions, decision]
        name, seed = going.pop(int(generator.integers(len(going))))
        known[name][seed] = scores[name][seed]
    raise AssertionError("it never ends")


def kinds(decision: Decision) -> dict[tuple[str, str], str]:
    return {pair: verdict.kind if verdict.kind != "different" else
            "better" if verdict.evidence.difference > 0 else "worse"
            for pair, verdict in decision.verdicts.items()}


@pytest.mark.parametrize("orders", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_orders_of_workers__agree_with_the_full_store(stored, orders):
    scores, seconds = stored
    whole = kinds(decide(scores, questions(scores), RULE))
    for seed in range(orders):
        *early, last = replay(scores, seconds, np.random.default_rng(seed), every=7)
        assert kinds(last) == whole
        for decision in early:
            spoken = {pair: kind for pair, kind in kinds(decision).items() if kind != "open"}
            assert spoken.items() <= whole.items()


def test_nothing_is_claimed_that_twenty_seeds_deny(stored):
    """The same test at all 20 seeds, planned and without a correction, the loosest to deny by."""
    scores, _ = stored
    decision = decide(scores, questions(scores), RULE)
    fixed = compare({name: stacked(rows, 20) for name, rows in scores.items()}, questions(scores), 0.0)
    assert any(verdict.resolved for verdict in decision.verdicts.values())
    for pair, verdict in decision.verdicts.items():
        found, low_high = fixed[pair], fixed[pair].interval(0.05)
        if verdict.kind == "different":
            assert found.difference * verdict.evidence.difference > 0
        if verdict.kind == "equal":
            assert max(low_high) > -RULE.margin and min(low_high) < RULE.margin
            assert abs(found.difference) < RULE.margin


def test_it_costs_less_than_twenty_seeds_for_as_many_answers(stored):
    scores, seconds = stored
    decision = decide(scores, questions(scores), RULE)
    spent = sum(seconds[name] * count for name, count in decision.used.items())
    fixed = compare({name: stacked(rows, 20) for name, rows in scores.items()}, questions(scores), 0.0)
    level = 0.05 / len(fixed)
    answered = sum(found.p_differs <= level or found.p_equal(RULE.margin) <= level
                   for found in fixed.values())
    resolved = sum(verdict.resolved for verdict in decision.verdicts.values())
    print(f"{resolved} of {len(fixed)} resolved in {spent:.0f} s, {answered} with 20 seeds in "
          f"{20 * sum(seconds.values()):.0f} s")
    assert spent <= 0.7 * 20 * sum(seconds.values())
    assert resolved >= 0.85 * answered
