from __future__ import annotations

from typing import ClassVar

import numpy as np

from ftlab.statistics.seed_summary import Range
from ftlab.statistics.transferability.base import Array, Codes, Reads, Score


class NCE(Score):
    """Negative conditional entropy of the classes, given the class that the checkpoint predicts.

    Tran, Nguyen, Hassner (2019), https://arxiv.org/abs/1908.08142.
    """

    name = "NCE"
    reads: ClassVar[Reads] = "probabilities"

    def measure(self, rows: Array, labels: Codes) -> float:
        joint = np.zeros((labels.max() + 1, rows.shape[1]))
        np.add.at(joint, (labels, rows.argmax(axis=1)), 1.0)
        there = joint > 0
        given = joint / np.maximum(joint.sum(axis=0), 1.0)
        return float((joint[there] * np.log(given[there])).sum() / len(labels))

    def limits(self, width: int, classes: int) -> Range:
        return -float(np.log(classes)), 0.0
