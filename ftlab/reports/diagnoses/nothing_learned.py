"""The predictions are no better than guesses."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from scipy import stats

from ftlab.reports.diagnoses.base import (
    Diagnosis,
    Finding,
    RunHistory,
    StudyHistory,
    seeds_of,
)
from ftlab.reports.guesses import most_frequent
from ftlab.statistics.clusters import CLUSTER, effective_size
from ftlab.wording import listed

LEVEL = 0.05


@dataclass(frozen=True)
class Guess:
    """A run against guesses.

    Attributes:
        right, examples: of the test split.
        chance: share that is right by chance, for one who names each class as often as the run.
        largest: share of the most frequent class.
        name: of that class.
        size: independent examples that say as much as these, in clusters, do.
    """

    right: int
    examples: int
    chance: float
    largest: float
    name: str
    size: int

    @property
    def by_chance(self) -> bool:
        """True where chance explains the right answers."""
        return not self._more_than(self.chance)

    @property
    def constant_as_good(self) -> bool:
        """True where always naming the most frequent class is as good."""
        return not self._more_than(self.largest)

    def _more_than(self, share: float) -> bool:
        if share >= 1:
            return False
        right = round(self.right / self.examples * self.size)
        return bool(stats.binomtest(right, self.size, share, alternative="greater").pvalue <= LEVEL)


class NothingLearned(Diagnosis):
    """A number in the table that a constant would reach."""

    title: ClassVar[str] = "Nothing learned"
    rule: ClassVar[str] = (
        "A binomial test on the test predictions of a seed does not find more of them right (at "
        "5%) than by chance, for one who names each class as often as the run does; or, where "
        "accuracy is compared, than by always naming the most frequent class.")

    def find(self, observed: StudyHistory) -> list[Finding]:
        findings = []
        accuracy = observed.metric.rpartition("/")[2] == "accuracy"
        for cell in observed.cells:
            weighed = [(run, guess) for run in cell.finished if (guess := weigh(run)) is not None]
            lost = [pair for pair in weighed if pair[1].by_chance]
            if lost:
                findings.append(Finding(
                    "problem", cell.key.title, seeds_of([run for run, _ in lost]),
                    listed([_described(guess, guess.chance) for _, guess in lost]) + " by chance",
                    "a higher learning rate, more epochs, or look whether labels and inputs "
                    "belong together"))
            poor = [pair for pair in weighed
                    if accuracy and pair[1].constant_as_good and not pair[1].by_chance]
            if poor:
                findings.append(Finding(
                    "warning", cell.key.title, seeds_of([run for run, _ in poor]),
                    listed([_described(guess, guess.largest) for _, guess in poor])
                    + f" by always naming {poor[0][1].name}",
                    "report test/f1_macro or test/balanced_accuracy, which count every class alike, "
                    "or train longer"))
        return findings


def weigh(run: RunHistory) -> Guess | None:
    """Count a run's predictions; None where it has none."""
    if run.named is None or not len(run.named["target"]):
        return None
    targets, predicted = list(run.named["target"]), list(run.named["prediction"])
    n = len(targets)
    counts, named = Counter(targets), Counter(predicted)
    name, largest = most_frequent(targets)
    chance = sum(count * named[label] for label, count in counts.items()) / n**2
    right = [a == b for a, b in zip(targets, predicted, strict=True)]
    size = effective_size(right, run.named.get(CLUSTER)) or n  # of one cluster: what it learned of that
    return Guess(sum(right), n, chance, largest, name, max(1, round(size)))


def _described(guess: Guess, share: float) -> str:
    return f"{guess.right} of {guess.examples} right against {share * guess.examples:.1f}"
