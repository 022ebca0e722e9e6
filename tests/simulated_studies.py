"""Studies whose truth is known exactly: techniques x seeds x test examples of right and wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from ftlab.statistics.moderated import SeedScores
from ftlab.statistics.until_decided import decide
from ftlab.statistics.verdict import Decision, Rule

SECONDS = (13.8, 0.1, 3.5, 10.5, 7.7, 8.3, 8.8)
"""Of a run of the quickstart's techniques: full, probe, last2, bitfit, lora, ia3, adapter."""
DIFFICULTY, LIKING, NOISE = 1.0, 0.35, 0.8
"""Of an example: what all find hard, what one technique finds hard, and what one model does."""


@dataclass(frozen=True)
class Scenario:
    """A kind of study.

    Attributes:
        means: true accuracy of each technique, exactly; the first is the baseline.
        spreads: standard deviation of its seeds.
        examples: of the test set.
        correlation: of the seeds of two techniques.
        law: of the seeds: normal, t3, or collapse (a fifth of the seeds of the techniques in
            `collapsing` drop).
    """

    means: tuple[float, ...]
    spreads: tuple[float, ...]
    examples: int = 444
    correlation: float = 0.0
    law: str = "normal"
    collapsing: tuple[int, ...] = ()

    def draw(self, generator: np.random.Generator, seeds: int = 20) -> np.ndarray:
        """Hits (K, S, E) of one study."""
        count = len(self.means)
        luck = self._luck(generator, count, seeds)
        accuracy = np.array(self.means)[:, None] + np.array(self.spreads)[:, None] * luck
        accuracy = np.clip(accuracy, 0.02, 0.9995)
        width = np.sqrt(DIFFICULTY**2 + LIKING**2 + NOISE**2)
        skill = width * special.ndtri(accuracy)
        example = DIFFICULTY * generator.normal(size=self.examples)
        liking = LIKING * generator.normal(size=(count, 1, self.examples))
        noise = NOISE * generator.normal(size=(count, seeds, self.examples))
        return (skill[:, :, None] + example + liking + noise > 0).astype(float)

    def _luck(self, generator: np.random.Generator, count: int, seeds: int) -> np.ndarray:
        if self.law == "t3":
            return stats.t.rvs(3, size=(count, seeds), random_state=generator) / np.sqrt(3)
        shared = generator.normal(size=(1, seeds))
        own = generator.normal(size=(count, seeds))
        luck = np.sqrt(self.correlation) * shared + np.sqrt(1 - self.correlation) * own
        for name in self.collapsing:  # mean 0 and deviation 1: a fifth lies two deviations below
            fallen = generator.random(seeds) < 0.2
            luck[name] = np.where(fallen, -2.0, 0.5) + 0.05 * own[name]
        return luck


def scores(hits: np.ndarray, seeds: int | None = None) -> dict[str, dict[int, SeedScores]]:
    """One study's scores as `decide` takes them, of its first seeds."""
    return {str(k): {s: SeedScores(np.array([row.mean()]), row[None]) for s, row in
                     enumerate(table[:seeds])} for k, table in enumerate(hits)}


def decided(hits: np.ndarray, margin: float, most: int = 20) -> tuple[Decision, float]:
    """Verdicts against the first technique, and the seconds that they cost."""
    pairs = [(str(k), "0") for k in range(1, len(hits))]
    made = decide(scores(hits), pairs, Rule(margin, 3, most), seconds=seconds_of(len(hits)))
    return made, sum(SECONDS[int(name)] * count for name, count in made.used.items())


def seconds_of(count: int) -> dict[str, float]:
    """Of a run, by technique."""
    return {str(k): SECONDS[k] for k in range(count)}
