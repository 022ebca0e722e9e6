from __future__ import annotations

import numpy as np

from ftlab.statistics.seed_summary import Range
from ftlab.statistics.transferability.base import Array, Codes, Score, centred

DISTORTION = 1e-4


class TransRate(Score):
    """Information between features and classes, as bits that coding the features by class saves.

    Huang, Huang, Rong, Yang, Wei (2022), https://arxiv.org/abs/2106.09362: the coding rate of all
    features less that of each class's, in nats, at a distortion of 1e-4. It grows with the scale
    and the number of features: compare backbones of like width.
    """

    name = "TransRate"

    def measure(self, rows: Array, labels: Codes) -> float:
        rows = centred(rows)
        parts = [rows[labels == code] for code in range(labels.max() + 1)]
        within = sum(len(part) / len(rows) * _rate(part) for part in parts)
        return max(_rate(rows) - within, 0.0)  # less is rounding

    def limits(self, width: int, classes: int) -> Range:
        return 0.0, np.inf


def _rate(rows: Array) -> float:
    """Half of log det(I + F'F / (n distortion))."""
    narrow = rows if rows.shape[0] >= rows.shape[1] else rows.T
    whole = np.eye(narrow.shape[1]) + narrow.T @ narrow / (len(rows) * DISTORTION)
    return float(0.5 * np.linalg.slogdet(whole)[1])
