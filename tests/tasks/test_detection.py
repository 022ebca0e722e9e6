import contextlib
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ftlab.errors import InputError
from ftlab.tasks.boxes import Box, precision_recall, same_boxes
from ftlab.tasks.detection import Detection
from ftlab.training.evaluate import write_predictions

CLASSES = ["a", "b", "c"]


def boxes(generator: np.random.Generator, count: int) -> torch.Tensor:
    corner = generator.uniform(0, 60, (count, 2))
    return torch.tensor(np.hstack([corner, corner + generator.uniform(5, 40, (count, 2))])).float()


def scene(seed: int, images: int = 12) -> tuple[list[dict], list[dict]]:
    """Targets, and detections that are near some of them."""
    draw = np.random.default_rng(seed)
    targets, found = [], []
    for _ in range(images):
        count = draw.integers(0, 5)
        target = {"boxes": boxes(draw, count), "labels": torch.tensor(draw.integers(0, 2, count)),
                  "ignored": torch.tensor(draw.random(count) < 0.15)}
        near = target["boxes"] + torch.tensor(draw.normal(0, 3, (count, 4))).float()
        near[:, 2:] = torch.maximum(near[:, 2:], near[:, :2] + 1)
        extra = boxes(draw, draw.integers(0, 4))
        labels = torch.cat([target["labels"], torch.tensor(draw.integers(0, 2, len(extra)))])
        scores = torch.tensor(draw.permutation(len(labels)) + draw.random()).float() / 10
        found.append({"boxes": torch.cat([near, extra]), "labels": labels, "scores": scores})
        targets.append(target)
    return found, targets


def pycocotools(found: list[dict], targets: list[dict]) -> COCOeval:
    truth: dict = {"images": [{"id": i} for i in range(len(targets))], "annotations": [],
                   "categories": [{"id": i} for i in range(len(CLASSES))]}
    for image, target in enumerate(targets):
        for box, label, ignored in zip(*(target[n].tolist() for n in ("boxes", "labels", "ignored")),
                                       strict=True):
            width, height = box[2] - box[0], box[3] - box[1]
            truth["annotations"].append({
                "id": len(truth["annotations"]) + 1, "image_id": image, "category_id": label,
                "bbox": [*box[:2], width, height], "area": width * height, "iscrowd": int(ignored)})
    results = [{"image_id": image, "category_id": label, "score": score,
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
               for image, each in enumerate(found)
               for box, label, score in zip(*(each[n].tolist() for n in ("boxes", "labels", "scores")),
                                            strict=True)]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.fixture
def task() -> Detection:
    task = Detection()
    task.fit([[Box(name, (0, 0, 1, 1)) for name in CLASSES]])
    return task


@pytest.mark.parametrize("seed", range(4))
def test_metrics__equal_pycocotools(task: Detection, seed: int) -> None:
    found, targets = scene(seed)
    metrics = task.collection()
    for i in range(0, len(found), 5):
        metrics.update(found[i:i + 5], targets[i:i + 5])
    ours = task.scalars({**metrics.compute(), "loss": torch.tensor(1.5)})
    reference = pycocotools(found, targets)
    expected = dict(zip(("map", "map_50", "map_75"), reference.stats[:3], strict=True))
    assert {n: ours[n] for n in expected} == pytest.approx(expected, abs=1e-5)
    assert ours["mar_100"] == pytest.approx(reference.stats[8], abs=1e-5)
    precision = reference.eval["precision"][:, :, :, 0, -1]
    for i, name in enumerate(CLASSES[:2]):
        assert ours[f"map/{name}"] == pytest.approx(precision[:, :, i].mean(), abs=1e-5)
        assert ours[f"map_50/{name}"] == pytest.approx(precision[0, :, i].mean(), abs=1e-5)
    assert "map/c" not in ours, "no objects of it"
    assert ours["loss"] == 1.5


@pytest.mark.parametrize("seed", range(3))
def test_curve__equals_pycocotools(task: Detection, seed: int) -> None:
    found, targets = scene(seed)
    records = task.records(found, targets)
    reference = pycocotools(found, targets).eval["precision"]
    for i, name in enumerate(CLASSES[:2]):
        curve = precision_recall(records, name)
        envelope = np.maximum.accumulate(curve.precision[::-1])[::-1]
        at = np.searchsorted(curve.recall, np.linspace(0, 1, 101), side="left")
        sampled = np.append(envelope, 0.0)[np.minimum(at, len(envelope))]
        assert sampled == pytest.approx(reference[0, :, i, 0, -1], abs=1e-6)


def test_metrics__of_one_class() -> None:
    task = Detection()
    task.fit([[Box("a", (0, 0, 1, 1))]])
    found, targets = scene(0)
    for rows in (found, targets):
        for row in rows:
            row["labels"] = torch.zeros_like(row["labels"])
    metrics = task.collection()
    metrics.update(found, targets)
    ours = task.scalars(metrics.compute())
    assert ours["map/a"] == pytest.approx(ours["map"], abs=1e-6)
    assert ours["map"] == pytest.approx(pycocotools(found, targets).stats[0], abs=1e-5)


@pytest.mark.parametrize("detections", [0, 1])
def test_metrics__without_objects_are_undefined(task: Detection, detections: int) -> None:
    """COCO's own answer is -1, which a mean or a table would take for a score."""
    found = {"boxes": torch.tensor([[0, 0, 9, 9.0]] * detections).reshape(-1, 4),
             "labels": torch.zeros(detections, dtype=torch.long),
             "scores": torch.ones(detections)}
    metrics = task.collection()
    metrics.update([found], [task.encode([], "image")])
    ours = task.scalars(metrics.compute())
    assert ours.keys() == {"map", "map_50", "map_75", "mar_100"}
    assert all(np.isnan(value) for value in ours.values())


def test_curve__ignored_objects_count_neither_way(task: Detection) -> None:
    target = {"boxes": torch.tensor([[0, 0, 9, 9], [20, 20, 29, 29.0]]),
              "labels": torch.tensor([0, 0]), "ignored": torch.tensor([True, False])}
    found = {"boxes": target["boxes"], "labels": target["labels"], "scores": torch.tensor([0.9, 0.8])}
    curve = precision_recall(task.records([found], [target]), "a")
    assert (curve.precision.tolist(), curve.recall.tolist(), curve.objects) == ([1.0], [1.0], 1)


@given(scale=st.tuples(st.floats(0.5, 4), st.floats(0.5, 4)))
@settings(max_examples=20, deadline=None)
def test_records__are_in_the_file_s_pixels(scale: tuple[float, float]) -> None:
    task = Detection()
    task.fit([[Box("a", (0, 0, 1, 1))]])
    target = task.encode([Box("a", (2, 4, 10, 20))], "image")
    target["scale"] = torch.tensor(scale)
    found = {"boxes": target["boxes"], "labels": target["labels"], "scores": torch.tensor([0.5])}
    rows = task.records([found], [target])
    expected = [2 * scale[0], 4 * scale[1], 10 * scale[0], 20 * scale[1]]
    assert rows["target"][0][0]["box"] == pytest.approx(expected, rel=1e-5)
    assert rows["prediction"][0][0]["box"] == pytest.approx(expected, rel=1e-5)
    assert rows["scores"] == [[0.5]]


@pytest.mark.parametrize("detections", [0, 2])
def test_records__are_parquet(task: Detection, tmp_path: Path, detections: int) -> None:
    empty = task.encode([], "image")
    found = {"boxes": torch.ones(detections, 4), "labels": torch.zeros(detections, dtype=torch.long),
             "scores": torch.ones(detections)}
    write_predictions(tmp_path / "x.parquet", {"id": ["1"], **task.records([found], [empty])})
    read = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert read[0]["target"] == []
    assert len(read[0]["prediction"]) == len(read[0]["scores"]) == detections


def test_encode__refuses_a_class_that_train_lacks(task: Detection) -> None:
    with pytest.raises(InputError, match=r"test split, 7, object 2: class 'd' does not occur") as e:
        task.encode([Box("a", (0, 0, 1, 1)), Box("d", (0, 0, 1, 1))], "test split, 7")
    assert "a, b, c" in e.value.mend


def test_encode__an_ignored_class_is_left_out(task: Detection) -> None:
    assert task.encode([Box("d", (0, 0, 1, 1), ignored=True)], "x")["boxes"].shape == (0, 4)


def test_fit__needs_an_object() -> None:
    with pytest.raises(InputError, match="no training image has an object"):
        Detection().fit([[], [Box("a", (0, 0, 1, 1), ignored=True)]])


@pytest.mark.parametrize(("name", "better"), [("map", True), ("map_50", True), ("loss", False),
                                              ("map_50/a", True), ("mar_100", True)])
def test_direction(task: Detection, name: str, better: bool) -> None:
    assert task.higher_is_better(name) is Detection().higher_is_better(name) is better


@pytest.mark.parametrize("name", ["map_5", "map_50/d", "accuracy"])
def test_direction__unknown(task: Detection, name: str) -> None:
    with pytest.raises(InputError, match="unknown metric"):
        task.higher_is_better(name)


def test_figure__has_a_line_a_class(task: Detection) -> None:
    figure = task.figures(task.records(*scene(0)))["precision_recall"]
    assert [line.get_label().split(" (")[0] for line in figure.axes[0].lines] == CLASSES


def test_same_boxes__in_any_order_within_a_tolerance() -> None:
    def record(*found: tuple[str, float, float]) -> dict:
        return {"prediction": [{"label": label, "box": [x, 0.0, x + 100.0, 50.0]}
                               for label, x, _ in found], "scores": [score for *_, score in found]}

    known = record(("red", 0.0, 0.9), ("red", 0.04, 0.9), ("blue", 0.0, 0.9))
    assert same_boxes(record(("blue", 0.0, 0.9), ("red", 0.05, 0.9), ("red", 0.0, 0.9)), known, 1e-3)
    assert not same_boxes(record(("blue", 0.0, 0.9), ("blue", 0.0, 0.9), ("red", 0.0, 0.9)), known, 1e-3)
    assert not same_boxes(record(("red", 0.0, 0.9), ("red", 0.5, 0.9), ("blue", 0.0, 0.9)), known, 1e-3)
    assert not same_boxes(record(("red", 0.0, 0.9), ("red", 0.04, 0.8), ("blue", 0.0, 0.9)), known, 1e-3)
    assert not same_boxes(record(("red", 0.0, 0.9), ("blue", 0.0, 0.9)), known, 1e-3)
    assert same_boxes(record(), record(), 1e-3)
    # two are like one of ours: each is counted once
    assert not same_boxes(record(("red", 0.0, 0.9), ("red", 0.0, 0.9)),
                          record(("red", 0.0, 0.9), ("red", 9.0, 0.9)), 1e-3)
