"""Seeds until decided against AdaStop and against 20 fixed seeds, fed with the same scores.

    python tests/benchmarks/until_decided.py [STUDIES]

AdaStop (Mathieu et al. 2023, https://arxiv.org/abs/2306.10882) compares agents of reinforcement
learning: permutation tests over seeds, not paired, of groups of seeds (here 5 times 4). It has no
margin: what it calls equal has not been told apart, which is no verdict here, so that differences
are counted on both sides, and verdicts of equality beside them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from adastop import MultipleAgentsComparator
from simulated_studies import SECONDS, Scenario, decided, scores
from statsmodels.stats.multitest import multipletests

from ftlab.statistics.until_decided import compare, stacked

MARGIN, MOST, GROUP = 0.02, 20, 4
HETERO = (0.036, 0.007, 0.03, 0.05, 0.051, 0.008, 0.01)
SCENARIOS = {
    "no difference, seeds scatter by 0.7 to 5.1 points": Scenario((0.85,) * 7, HETERO),
    "no difference, 0.7 points, 1,821 examples": Scenario((0.88,) * 7, (0.007,) * 7, 1821),
    "each 2 points from the baseline, 0.7 points, 1,821 examples": Scenario(
        (0.88, 0.90, 0.86, 0.90, 0.86, 0.90, 0.86), (0.007,) * 7, 1821),
    "a quickstart with default rates": Scenario(
        (0.830, 0.782, 0.833, 0.789, 0.793, 0.899, 0.882), (0.040, 0.010, 0.031, 0.085, 0.086, 0.010, 0.007)),
}


def ours(hits: np.ndarray) -> tuple[dict[int, int], int, float]:
    """Signs of claimed differences by technique, equalities, and seconds."""
    decision, seconds = decided(hits, MARGIN, MOST)
    signs = {int(a): int(np.sign(verdict.evidence.difference))
             for (a, _), verdict in decision.verdicts.items() if verdict.kind == "different"}
    return signs, sum(verdict.kind == "equal" for verdict in decision.verdicts.values()), seconds


def fixed(hits: np.ndarray) -> tuple[dict[int, int], int, float]:
    """20 seeds of every technique, the same test, Holm's correction of both families."""
    study = {name: stacked(rows, MOST) for name, rows in scores(hits).items()}
    found = compare(study, [(str(k), "0") for k in range(1, len(hits))], 0.0)
    differ = multipletests([each.p_differs for each in found.values()], method="holm")[0]
    equal = multipletests([each.p_equal(MARGIN) for each in found.values()], method="holm")[0]
    signs = {k: int(np.sign(each.difference)) for k, (each, differs) in enumerate(
        zip(found.values(), differ, strict=True), 1) if differs}
    return signs, int((equal & ~differ).sum()), MOST * sum(SECONDS[:len(hits)])


def adastop(hits: np.ndarray, beta: float) -> tuple[dict[int, int], int, float]:
    """AdaStop with the level 5% for any false claim, in groups of seeds."""
    values = hits.mean(axis=-1)
    pairs = np.array([(k, 0) for k in range(1, len(hits))])
    comparator = MultipleAgentsComparator(
        n=GROUP, K=MOST // GROUP, B=2000, comparisons=pairs, alpha=0.05, beta=beta, seed=0)
    names, seen = [str(k) for k in range(len(hits))], dict.fromkeys(range(len(hits)), 0)
    for look in range(1, MOST // GROUP + 1):
        active = set(np.ravel(comparator.current_comparisons).tolist()) if look > 1 else set(seen)
        for k in active:
            seen[k] = look * GROUP
        comparator.partial_compare({names[k]: values[k, :seen[k]] for k in seen}, verbose=False)
        if comparator.is_finished:
            break
    signs = {}
    for pair, decision in comparator.decisions.items():
        a, b = (int(part) for part in pair.strip("()[] ").replace(",", " ").split())
        if decision in ("larger", "smaller"):
            signs[a or b] = (1 if decision == "larger" else -1) * (1 if a else -1)
    return signs, 0, float(sum(SECONDS[k] * count for k, count in seen.items()))


def main(studies: int) -> None:
    """Print a table: any false difference, differences found, verdicts, seconds of runs."""
    ways = {"20 fixed seeds": fixed, "until decided": ours,
            "AdaStop": lambda hits: adastop(hits, 0.0),
            "AdaStop, early accept": lambda hits: adastop(hits, 0.05)}
    print(f"{studies} studies of 7 techniques against a baseline, at most {MOST} seeds; in percent")
    for title, scenario in SCENARIOS.items():
        print(f"\n{title}")
        print(f"{'':24}{'any false':>10}{'differences':>13}{'verdicts':>10}{'seconds':>9}{'a verdict':>11}")
        generator = np.random.default_rng(4)
        drawn = [scenario.draw(generator, MOST) for _ in range(studies)]
        for name, way in ways.items():
            false = found = equal = 0
            seconds, begin = 0.0, time.perf_counter()
            for hits in drawn:
                signs, equalities, took = way(hits)
                truth = {k: np.sign(round(scenario.means[k] - scenario.means[0], 9)) for k in signs}
                false += any(truth[k] != sign for k, sign in signs.items())
                found += sum(truth[k] == sign for k, sign in signs.items())
                equal += equalities
                seconds += took
            pairs = studies * (len(scenario.means) - 1)
            each = seconds / max(1, found + equal)
            print(f"{name:24}{100 * false / studies:10.1f}{100 * found / pairs:13.1f}"
                  f"{100 * (found + equal) / pairs:10.1f}{seconds / studies:9.0f}{each:9.0f} s"
                  f"   ({(time.perf_counter() - begin) / studies:.2f} s to compute)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
