"""Training batches of examples of like length, so that little is padded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

STRETCH = 50
"""Batches that are sorted together, at most."""
STRETCHES = 4
"""Pools per epoch, at least: so small sets keep most of their mixture."""


class Buckets:
    """Rearranges the order of an epoch into batches of like length.

    The order is cut into stretches of at most 50 batches and at least four an epoch. A stretch is
    sorted by length (equal lengths stay in drawn, that is random, order) and cut into batches,
    and these are shuffled. The examples that fill no batch stay last, as they were drawn. An epoch
    of fewer than eight batches stays as it is.

    What stays random: which examples a stretch has, which of equal length share a batch, and the
    order of batches. What does not: a batch's examples are alike in length and in what goes with
    it, so gradients differ more from batch to batch; and an example that is drawn twice, as by
    `Balanced`, is more often drawn into the same batch. An epoch has the same examples and
    as many updates, and no more padding than before: of all ways to share a stretch out into
    equal batches, sorting has the least.
    Sources: Khomenko et al. (2016), https://arxiv.org/abs/1708.05604; Morishita et al. (2017),
    https://arxiv.org/abs/1706.05765 (sorted training batches, and what they do to the result)

    Args:
        lengths: of the training examples (N,).
        batch_size: examples of an update, over all devices and accumulated batches.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size

    def arrange(self, order: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """The same positions (M,) in another order, which follows from seed and epoch alone."""
        if -(-len(order) // self.batch_size) < 2 * STRETCHES:
            return order
        whole = len(order) // self.batch_size
        generator = np.random.default_rng([seed, epoch, STRETCH])  # not the stream of the order
        drawn = order[:whole * self.batch_size].reshape(whole, self.batch_size)
        stretches = np.array_split(drawn, max(STRETCHES, -(-whole // STRETCH)))
        arranged = [generator.permutation(self._sorted(stretch)) for stretch in stretches]
        return np.concatenate([*(batches.ravel() for batches in arranged),
                               order[whole * self.batch_size:]])

    def _sorted(self, stretch: np.ndarray) -> np.ndarray:
        """Batches (b, B) of rising length."""
        flat = stretch.ravel()
        return flat[np.argsort(self.lengths[flat], kind="stable")].reshape(stretch.shape)
