from __future__ import annotations

from typing import ClassVar

import numpy as np

from ftlab.statistics.seed_summary import Range
from ftlab.statistics.transferability.base import Array, Codes, Reads, Score
from ftlab.statistics.transferability.dummy_labels import expected_likelihood


class LEEP(Score):
    """Log likelihood of the classes, predicted from the checkpoint's own classes alone.

    Nguyen, Hassner, Seeger, Archambeau (2020), https://arxiv.org/abs/2002.12462. The predictor
    knows how often a class goes with each class of the checkpoint, P(y | z), and nothing else of
    an example than the probabilities of z.
    """

    name = "LEEP"
    reads: ClassVar[Reads] = "probabilities"

    def measure(self, rows: Array, labels: Codes) -> float:
        return expected_likelihood(rows, labels)

    def limits(self, width: int, classes: int) -> Range:
        return -np.inf, 0.0
