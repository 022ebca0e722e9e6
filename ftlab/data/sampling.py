"""How training examples are drawn, and in which order each rank of a DDP run sees them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

import numpy as np
from torch.utils.data import Sampler

from ftlab.data.bucketing import Buckets
from ftlab.errors import InputError
from ftlab.wording import listed


class Sampling(ABC):
    """How often each class is drawn in training.

    Args:
        column: whose values take the place of classes, one of the data set's `columns`.
    """

    column: str | None = None
    varies = False  # true where batches differ in size, and one may be empty

    def __init__(self, column: str | None = None) -> None:
        self.column = column

    @abstractmethod
    def class_probabilities(self, counts: Sequence[int]) -> np.ndarray:
        """Probability of each class (C,), from its number of training examples (C,)."""

    def strata(self, classes: Sequence[Hashable | None],
               columns: Mapping[str, Sequence[Hashable]]) -> Sequence[Hashable | None]:
        """The class of each example, or its value in `column`: it draws by that.

        Raises:
            InputError: there is no such column.
        """
        if self.column is None:
            return classes
        if self.column not in columns:
            there = f"it has: {listed([*columns])}" if columns else "it has none"
            raise InputError(f"sampling {type(self).__name__}: the data set has no column "
                             f"{self.column!r} in columns", f"{there}; add it as "
                             f"columns: {{{self.column}: COLUMN}}")
        return columns[self.column]

    def order(self, strata: Sequence[Hashable | None], seed: int, epoch: int) -> np.ndarray:
        """One epoch: as many positions as there are examples, drawn with replacement.

        Raises:
            InputError: the task has no classes.
        """
        if None in strata:
            raise InputError(f"sampling {type(self).__name__} needs a task with classes",
                             "use sampling: Natural")
        counts = Counter(strata)
        classes = self.class_probabilities(list(counts.values()))
        chance = {stratum: p / counts[stratum] for stratum, p in zip(counts, classes, strict=True)}
        chances = np.array([chance[stratum] for stratum in strata])
        generator = np.random.default_rng([seed, epoch])
        return generator.choice(len(strata), size=len(strata), p=chances / chances.sum())

    def plan(self, strata: Sequence[Hashable | None], size: int, seed: int,
             epoch: int) -> list[list[int]]:
        """The positions in each batch of an epoch, where a sampling composes whole batches."""
        raise NotImplementedError

    def batches(self, examples: int, size: int) -> int:
        """The number of batches in an epoch of a `plan`."""
        return max(1, examples // size)

    def length(self, strata: Sequence[Hashable | None], size: int) -> int:
        """The number of batches in an epoch of a `plan`; the most, where epochs differ."""
        return self.batches(len(strata), size)

    @property
    def plans(self) -> bool:
        """True where batches come from `plan`: then `order` has no use, and there are no buckets."""
        return type(self).plan is not Sampling.plan


class Natural(Sampling):
    """Every example once an epoch, in random order."""

    def __init__(self) -> None:
        super().__init__()

    def class_probabilities(self, counts: Sequence[int]) -> np.ndarray:
        return _normalised(np.asarray(counts, dtype=float))

    def order(self, strata: Sequence[Hashable | None], seed: int, epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, epoch]).permutation(len(strata))


class Balanced(Sampling):
    """Every class equally often (Kang et al. 2020, https://arxiv.org/abs/1910.09217)."""

    def class_probabilities(self, counts: Sequence[int]) -> np.ndarray:
        return _normalised(np.ones(len(counts)))


class SquareRoot(Sampling):
    """Classes in proportion to the square root of their size.

    Mahajan et al. (2018), https://arxiv.org/abs/1805.00932
    """

    def class_probabilities(self, counts: Sequence[int]) -> np.ndarray:
        return _normalised(np.sqrt(np.asarray(counts, dtype=float)))


class EffectiveNumber(Sampling):
    """Each example in inverse proportion to its class's effective number of examples.

    The effective number is E(n) = (1 - beta**n) / (1 - beta), so a class is drawn in proportion
    to n / E(n): beta 0 is the natural distribution, beta towards 1 the balanced one.
    Source: Cui, Jia, Lin, Song, Belongie (2019), https://arxiv.org/abs/1901.05555

    Args:
        beta: 0 <= beta < 1; the paper uses 0.9 to 0.9999.
        column: as in `Sampling`.
    """

    def __init__(self, beta: float = 0.999, column: str | None = None) -> None:
        super().__init__(column)
        if not 0 <= beta < 1:
            raise ValueError(f"beta must be at least 0 and below 1, got {beta}")
        self.beta = beta

    def class_probabilities(self, counts: Sequence[int]) -> np.ndarray:
        n = np.asarray(counts, dtype=float)
        # the factor 1 - beta cancels
        return _normalised(n / (1 - self.beta**n))


class PKSampling(Sampling):
    """Batches of P classes with K examples of each, for losses that compare a batch's examples.

    An epoch has as many batches as examples fill. The classes of a batch are drawn without
    replacement, and a class gives each of its examples once before any a second time.
    Source: Hermans, Beyer, Leibe (2017), https://arxiv.org/abs/1703.07737

    Args:
        classes: P, in a batch; K is the data set's `batch_size` / P.
        column: as in `Sampling`.
    """

    def __init__(self, classes: int = 4, column: str | None = None) -> None:
        super().__init__(column)
        if classes < 2:
            raise ValueError(f"classes must be at least 2, got {classes}")
        self.classes = classes

    def class_probabilities(self, counts: Sequence[int]) -> np.ndarray:
        return _normalised(np.ones(len(counts)))

    def plan(self, strata: Sequence[Hashable | None], size: int, seed: int,
             epoch: int) -> list[list[int]]:
        members: dict[Hashable, list[int]] = {}
        for position, stratum in enumerate(strata):
            members.setdefault(stratum, []).append(position)
        self._check(members, size)
        generator = np.random.default_rng([seed, epoch])
        names, each = list(members), size // self.classes
        waiting: dict[Hashable, list[int]] = {stratum: [] for stratum in members}
        batches: list[list[int]] = []
        for _ in range(self.batches(len(strata), size)):
            batch: list[int] = []
            for number in generator.permutation(len(names))[:self.classes]:
                queue, own = waiting[names[number]], members[names[number]]
                taken, queue[:each] = queue[:each], []
                while lacking := each - len(taken):  # no example twice, unless a class has too few
                    fresh = [i for i in generator.permutation(own).tolist()
                             if i not in taken or len(own) < each]
                    taken += fresh[:lacking]
                    queue[:] = fresh[lacking:]
                batch += taken
            batches.append(batch)
        return batches

    def _check(self, members: Mapping[Hashable, Sequence[int]], size: int) -> None:
        if len(members) < self.classes or None in members:
            raise InputError(f"sampling PKSampling wants {self.classes} classes in each batch, and "
                             f"the training examples have {len(members.keys() - {None})}",
                             "lower classes, or use sampling: Balanced")
        if size % self.classes:
            raise InputError(f"sampling PKSampling: batch_size {size} is not a multiple of "
                             f"classes {self.classes}", f"set batch_size: {4 * self.classes}")


class TrainSampler(Sampler[int]):
    """This rank's share of one global order, which follows from seed and epoch alone.

    Rank r takes positions r, r + world, ... With batches of b / world on each rank, every update has
    the b examples that one device would take for it. The order is padded from its own beginning, so
    that all ranks take as many steps; only an epoch's last update may have up to world - 1 more.

    Args:
        sampling: gives the global order.
        strata: class of each training example, or None.
        seed: of the run.
        rank: this process's number, from 0.
        world: number of processes.
        on_epoch: called with the epoch together with the sampler (augmentation follows it).
        buckets: rearrange the global order into batches of like length; None leaves it.
    """

    def __init__(self, sampling: Sampling, strata: Sequence[Hashable | None], seed: int,
                 rank: int = 0, world: int = 1,
                 on_epoch: Callable[[int], None] = lambda epoch: None,
                 buckets: Buckets | None = None) -> None:
        self._sampling = sampling
        self._strata = strata
        self._seed = seed
        self._rank = rank
        self._world = world
        self.on_epoch = on_epoch
        self._buckets = buckets
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch
        self.on_epoch(epoch)

    def __len__(self) -> int:
        return math.ceil(len(self._strata) / self._world)

    def __iter__(self) -> Iterator[int]:
        order = self._sampling.order(self._strata, self._seed, self.epoch)
        if self._buckets is not None:
            order = self._buckets.arrange(order, self._seed, self.epoch)
        padded = np.resize(order, len(self) * self._world)  # repeats from the beginning
        return iter(padded[self._rank::self._world].tolist())

    @property
    def plans(self) -> bool:
        """True where the sampling composes whole batches."""
        return self._sampling.plans

    def count(self, size: int) -> int:
        """The number of the epoch's batches of such a sampling."""
        return self._sampling.length(self._strata, size)

    def planned(self, size: int) -> list[list[int]]:
        """The epoch's batches of a sampling that composes them."""
        return self._sampling.plan(self._strata, size, self._seed, self.epoch)


class ExactEvalSampler(Sampler[int]):
    """Each position once over all ranks, without padding: ranks may differ by one in length.

    `DistributedSampler` repeats examples instead, which makes a metric wrong.

    Args:
        order: positions in the order of evaluation.
        rank: this process's number, from 0.
        world: number of processes.
    """

    def __init__(self, order: Sequence[int], rank: int = 0, world: int = 1) -> None:
        self._positions = list(order)[rank::world]

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[int]:
        return iter(self._positions)


def share_of_batch(batch_size: int, devices: int, where: str = "") -> int:
    """Examples of a batch that each of several devices takes.

    Args:
        batch_size: over all devices.
        devices: their number.
        where: what the batch is of, before the message.

    Raises:
        InputError: they cannot share it equally.
    """
    if batch_size % devices:
        less = batch_size // devices * devices
        raise InputError(f"{where}batch_size {batch_size} is of a batch over all devices, and {devices} "
                         "cannot share it equally",
                         f"set batch_size: {less or devices}, or another multiple of {devices}")
    return batch_size // devices


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Positions by falling length: little padding, and too little memory shows at once."""
    return sorted(range(len(lengths)), key=lambda i: -lengths[i])


def _normalised(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum()
