"""Labelled boxes, and how detections are matched to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment


@dataclass(frozen=True)
class Box:
    """One object of an image.

    Attributes:
        label: the class's name.
        corners: x1, y1, x2, y2 in pixels of the image, from its upper left corner.
        ignored: neither trained on nor counted: a crowd in COCO, a difficult object in VOC. Both
            are scored by COCO's rule for crowds; VOC's own would excuse fewer detections.
    """

    label: str
    corners: tuple[float, float, float, float]
    ignored: bool = False


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision (M,) and recall (M,) of one class as the score falls; `objects` there are."""

    precision: np.ndarray
    recall: np.ndarray
    objects: int


def overlaps(a: np.ndarray, b: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes; of a crowd, over the area of `a` alone, as in COCO.

    Args:
        a: (N, 4), x1 y1 x2 y2.
        b: (M, 4), likewise.
        crowd: which of `b` are crowds (M,), bool.

    Returns:
        (N, M).
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    area_a, area_b = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b))
    union = area_a[:, None] + area_b[None, :] - shared
    return shared / np.maximum(np.where(crowd[None, :], area_a[:, None], union), 1e-12)


def precision_recall(records: Mapping[str, Sequence[Any]], label: str,
                     overlap: float = 0.5) -> PrecisionRecall:
    """The curve of one class, with COCO's matching: best score first, each object once.

    Args:
        records: columns `target`, `prediction`, `scores` as `Detection.records` writes them.
        label: the class.
        overlap: intersection over union from which a detection finds an object.
    """
    scores: list[float] = []
    hits: list[bool | None] = []
    objects = 0
    for target, prediction, score in zip(*(records[name] for name in
                                           ("target", "prediction", "scores")), strict=True):
        true = [box for box in target if box["label"] == label]
        # wanted objects first, so that an ignored one is only found where no wanted one is
        true.sort(key=lambda box: box["ignored"])
        ranked = sorted((-s, i) for i, s in enumerate(score) if prediction[i]["label"] == label)
        objects += sum(not box["ignored"] for box in true)
        order = [i for _, i in ranked]
        scores += [score[i] for i in order]
        hits += _match([prediction[i]["box"] for i in order], true, overlap)
    order_all = np.argsort([-s for s in scores], kind="stable")
    counted = np.array([hits[i] for i in order_all if hits[i] is not None], dtype=float)
    correct = np.cumsum(counted)
    return PrecisionRecall(correct / np.maximum(1, np.arange(1, len(counted) + 1)),
                           correct / max(1, objects), objects)


def _match(boxes: Sequence[Any], true: Sequence[Mapping[str, Any]],
           overlap: float) -> list[bool | None]:
    """True for each box that finds an object; None where it finds an ignored one alone."""
    if not true or not boxes:
        return [False] * len(boxes)
    ignored = np.array([box["ignored"] for box in true])
    table = overlaps(np.array(boxes, dtype=float), np.array([one["box"] for one in true], float),
                     ignored)
    free = np.ones(len(true), dtype=bool)
    results: list[bool | None] = []
    for row in table:
        able = free & (row >= overlap)
        choice = np.where(able & ~ignored, row, 0.0)
        if choice.any():
            best = int(len(row) - 1 - choice[::-1].argmax())  # COCO takes the last of equals
            free[best] = False
            results.append(True)
        else:
            results.append(None if able.any() else False)
    return results


def same_boxes(given: Mapping[str, Any], expected: Mapping[str, Any], tolerance: float) -> bool:
    """Compare the detections in two records of an image, in any order.

    Args:
        given: `prediction` and perhaps `scores`, as `Detection.records` writes them of an image.
        expected: likewise.
        tolerance: of scores; of corners relative to the largest of the image's, where above 1.
    """
    if expected["prediction"] is None:
        return False
    rows = [_rows(record) for record in (given, expected)]
    if len(rows[0]) != len(rows[1]):
        return False
    if not len(rows[0]):
        return True
    scale = np.ones(rows[0].shape[1])
    scale[:4] = max(1.0, float(np.abs(rows[1][:, :4]).max()))
    labels = [np.array([box["label"] for box in record["prediction"]])
              for record in (given, expected)]
    same = labels[0][:, None] == labels[1][None, :]
    same &= (np.abs(rows[0][:, None] - rows[1][None]) / scale <= tolerance).all(axis=2)
    ones, others = linear_sum_assignment(same, maximize=True)
    return bool(same[ones, others].all())


def _rows(record: Mapping[str, Any]) -> np.ndarray:
    """Corners and, where there are any, scores of the detections of an image (M, 4 or 5)."""
    boxes = np.array([box["box"] for box in record["prediction"]], dtype=float).reshape(-1, 4)
    if "scores" not in record:
        return boxes
    return np.column_stack([boxes, np.array(record["scores"], dtype=float)])
