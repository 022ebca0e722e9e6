"""Which examples are in which split, and which part of a split is used.

Both draw from a generator of their own over examples ordered by id, so that the result depends on
neither the run's seed nor the order of the rows. A study whose seeds draw the split gives each a
`draw`: other examples train and validate, and the test split stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ftlab.errors import InputError
from ftlab.wording import counted

_MEND_SMALL = "add examples, merge the class into another, or give the splits as files of their own"


@dataclass(frozen=True)
class Split:
    """Carves the splits that a data set does not bring from its training examples.

    Stratified: of each class, the rounded fraction, and at least one example.

    With a target domain, a value of the column `domain`, the other examples alone train, validate
    and test. The target's are carved in the same way: those of its training part are the stream
    `target`, without labels, those of its test part the test set `test.target`, and its validation
    part is left out, since nothing may be chosen by it.

    Args:
        validation: fraction for validation, above 0 and below 1.
        test: fraction for test, above 0 and below 1.
        seed: of the draw; it belongs to the data set, not to the run.
        target: the domain that the model is for; null where the examples are of one domain.
        source: the domain that trains; null for all but the target. The target itself gives what
            training on its labels reaches, on the same test set.
        draw: of train and validation, and of what `subset` keeps of them, anew; the test split is
            `seed`'s alone. Of each run that of its seed where a study's seeds draw the split
            (`seeds: {of: [training, split]}`); null for `seed`'s own.
    """

    validation: float = 0.1
    test: float = 0.2
    seed: int = 0
    target: str | None = None
    source: str | None = None
    draw: int | None = None

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if self.validation + self.test >= 1:
            raise ValueError("validation and test must leave something to train on, got "
                             f"{self.validation} and {self.test}")
        if self.source is not None and self.target is None:
            raise ValueError(f"source: {self.source} wants a target, the domain that the model is for")
        _check_seed(self.seed)
        _check_seed(self.draw or 0, "draw")

    def carve(self, strata: Sequence[Hashable | None], ids: Sequence[str],
              absent: Sequence[str], where: str) -> dict[str, list[int]]:
        """Positions of train and of each absent split, each in the order of the rows.

        Args:
            strata: class of each example, or None.
            ids: of each example.
            absent: which of `validation` and `test` to carve.
            where: the source, for messages.

        Raises:
            InputError: a class has too few examples to be in every split.
        """
        parts: dict[str, list[int]] = {"train": [], **{name: [] for name in absent}}
        # test first: another validation fraction keeps the test examples
        wanted = [name for name in ("test", "validation") if name in absent]
        for stratum, members in _shuffled(strata, ids, self.seed).items():
            start = 0
            for name in wanted:
                count = max(1, int(getattr(self, name) * len(members) + 0.5))
                parts[name] += members[start:start + count]
                start += count
            if start >= len(members):
                what = f"class {stratum!r}" if stratum is not None else "the data set"
                raise InputError(
                    f"{where}: {what} has {counted(len(members), 'example')}, too few to carve "
                    f"{' and '.join(wanted)} from", _MEND_SMALL)
            parts["train"] += members[start:]
        return {name: sorted(positions) for name, positions in parts.items()}

    def redrawn(self, parts: Mapping[str, Sequence[int]], strata: Sequence[Hashable | None],
                ids: Sequence[str]) -> dict[str, list[int]]:
        """Train and validation drawn anew from both, as many of each class, where there is a `draw`.

        Args:
            parts: from `carve`; a validation split that was not carved stays, and train with it.
            strata: class of each example, or None.
            ids: of each example.
        """
        if self.draw is None or "validation" not in parts:
            return {}
        pool = sorted([*parts["train"], *parts["validation"]])
        validating = Counter(strata[i] for i in parts["validation"])
        drawn = _shuffled([strata[i] for i in pool], [ids[i] for i in pool], (self.seed, self.draw))
        chosen = {pool[i] for stratum, members in drawn.items() for i in members[:validating[stratum]]}
        return {"train": [i for i in pool if i not in chosen], "validation": sorted(chosen)}


@dataclass(frozen=True)
class Subset:
    """The part of a split that is used.

    Args:
        shots: examples of each class (few-shot); of validation and test as many as there are, if fewer.
        limit: a stratified part: how many examples in all, or, with a decimal point, what
            fraction; every class keeps at least one.
        imbalance_ratio: makes a long tail: largest over smallest class, exponential between
            (Cui et al. 2019, https://arxiv.org/abs/1901.05555); after `limit`.
        splits: which splits it holds for.
        seed: of the draw; it belongs to the data set, not to the run.
    """

    shots: int | None = None
    limit: int | float | None = None
    imbalance_ratio: float | None = None
    splits: tuple[Literal["train", "validation", "test"], ...] = ("train",)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.shots is not None and self.shots < 1:
            raise ValueError(f"shots must be at least 1, got {self.shots}")
        if self.shots is not None and (self.limit is not None or self.imbalance_ratio is not None):
            raise ValueError("shots fixes the size of every class; leave out limit and "
                             "imbalance_ratio")
        if isinstance(self.limit, float) and not 0 < self.limit <= 1:
            raise ValueError(f"limit as a fraction must be above 0 and at most 1, got {self.limit}")
        if self.limit is not None and self.limit <= 0:
            raise ValueError(f"limit must be at least 1, got {self.limit}")
        if self.imbalance_ratio is not None and not self.imbalance_ratio >= 1:
            raise ValueError(f"imbalance_ratio must be at least 1, got {self.imbalance_ratio}")
        for split in self.splits:
            if split not in ("train", "validation", "test"):
                raise ValueError(f"splits must name train, validation or test, got {split!r}")
        _check_seed(self.seed)

    def positions(self, strata: Sequence[Hashable | None], ids: Sequence[str],
                  split: str, draw: int | None = None) -> list[int]:
        """Positions to keep of a split, in the order of the rows.

        Args:
            strata: class of each example, or None.
            ids: of each example.
            split: `train`, `validation` or `test`.
            draw: of `Split`, which test examples do not follow.

        Raises:
            InputError: a class has fewer examples than asked for, or there are no classes.
        """
        if split not in self.splits:
            return list(range(len(ids)))
        own = draw is None or split == "test"
        # 1: another stream than that of `Split.redrawn`
        groups = _shuffled(strata, ids, self.seed if own else (self.seed, draw or 0, 1))
        if None in groups and (self.shots is not None or self.imbalance_ratio is not None):
            raise InputError("shots and imbalance_ratio need a task with classes",
                             "use limit for a part of the examples")
        counts = {stratum: len(members) for stratum, members in groups.items()}
        if self.shots is not None:
            counts = self._few_shot(counts, split)
        if self.limit is not None:
            counts = stratified_counts(counts, self._size(len(ids)), split)
        if self.imbalance_ratio is not None:
            counts = long_tail_counts(counts, self.imbalance_ratio, split)
        # the first of each class: a smaller subset lies within a larger one
        return sorted(i for stratum, members in groups.items() for i in members[:counts[stratum]])

    def _size(self, available: int) -> int:
        if isinstance(self.limit, float):
            return max(1, int(self.limit * available + 0.5))
        return min(self.limit or available, available)

    def _few_shot(self, counts: dict[Hashable | None, int],
                  split: str) -> dict[Hashable | None, int]:
        assert self.shots is not None
        for stratum, count in counts.items():
            if count < self.shots and split == "train":
                raise InputError(
                    f"{split} split: class {stratum!r} has {counted(count, 'example')}, fewer than the "
                    f"{self.shots} shots asked for", f"set shots to {min(counts.values())} or less")
        return {stratum: min(count, self.shots) for stratum, count in counts.items()}


def stratified_counts(counts: dict[Hashable | None, int], size: int,
                      split: str) -> dict[Hashable | None, int]:
    """Class counts that sum to `size`, in proportion (largest remainder), none of them zero.

    Raises:
        InputError: `size` is below the number of classes.
    """
    if size < len(counts):
        raise InputError(f"{split} split: a limit of {size} cannot hold one example of each of "
                         f"{len(counts)} classes", f"set limit to {len(counts)} or more")
    shares = {stratum: size * count / sum(counts.values()) for stratum, count in counts.items()}
    kept = {stratum: max(1, int(share)) for stratum, share in shares.items()}
    while sum(kept.values()) < size:
        short = max(kept, key=lambda stratum: shares[stratum] - kept[stratum])
        kept[short] += 1
    while sum(kept.values()) > size:  # rare classes were given their one example
        over = max((stratum for stratum in kept if kept[stratum] > 1),
                   key=lambda stratum: kept[stratum] - shares[stratum])
        kept[over] -= 1
    return kept


def long_tail_counts(counts: dict[Hashable | None, int], ratio: float,
                     split: str) -> dict[Hashable | None, int]:
    """Class counts n_i = floor(n_0 * ratio**(-i / (C - 1))), the largest class first.

    n_0 is the largest that every class can fill; classes of equal size go by name.
    Source: Cui, Jia, Lin, Song, Belongie (2019), https://arxiv.org/abs/1901.05555

    Raises:
        InputError: the smallest class would be empty.
    """
    ranked = sorted(counts, key=lambda stratum: (-counts[stratum], str(stratum)))
    steps = max(1, len(ranked) - 1)
    profile = [ratio ** (-i / steps) for i in range(len(ranked))]
    head = min(counts[stratum] / part for stratum, part in zip(ranked, profile, strict=True))
    # 1e-9: 500 * 100**-1 is 5 and must not floor to 4
    tail = {stratum: int(head * part + 1e-9) for stratum, part in zip(ranked, profile, strict=True)}
    if min(tail.values()) < 1:
        raise InputError(
            f"{split} split: imbalance_ratio {ratio:g} leaves class {ranked[-1]!r} empty; the "
            f"largest class can have {counted(int(head), 'example')}",
            f"set imbalance_ratio to {int(head)} or less, or use more examples")
    return tail


def _shuffled(strata: Sequence[Hashable | None], ids: Sequence[str],
              seed: int | Sequence[int]) -> dict[Hashable | None, list[int]]:
    """Positions of each class in a random order that does not depend on the order of the rows."""
    generator = np.random.default_rng(seed)
    groups: dict[Hashable | None, list[int]] = {}
    for i in sorted(range(len(ids)), key=ids.__getitem__):
        groups.setdefault(strata[i], []).append(i)
    return {stratum: [groups[stratum][j] for j in generator.permutation(len(groups[stratum]))]
            for stratum in sorted(groups, key=str)}


def _check_seed(seed: int, name: str = "seed") -> None:
    if seed < 0:
        raise ValueError(f"{name} must be at least 0, got {seed}")
