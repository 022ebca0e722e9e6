"""Segmentation held to scikit-learn, torchmetrics, pycocotools and plain PyTorch."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score
from torch import nn
from torchmetrics.classification import MulticlassJaccardIndex

from ftlab.errors import InputError
from ftlab.tasks.class_mask import ClassMask
from ftlab.tasks.losses.cross_entropy import CrossEntropy
from ftlab.tasks.losses.dice import Dice
from ftlab.tasks.losses.focal import Focal
from ftlab.tasks.losses.weighted_cross_entropy import WeightedCrossEntropy
from ftlab.tasks.segmentation import Segmentation
from ftlab.tasks.segmentation_metrics import class_counts

NAMES = ("sky", "tree", "road", "car")
IGNORED = 255


def masks(seed: int = 0, count: int = 5, classes: int = 3) -> list[np.ndarray]:
    """Masks of sizes of their own, of the first classes alone, a tenth of the pixels ignored."""
    draw = np.random.default_rng(seed)
    found = []
    for i in range(count):
        mask = draw.integers(0, classes, (9 + i, 12), np.uint8)
        mask[draw.random(mask.shape) < 0.1] = IGNORED
        found.append(mask)
    return found


def batch(seed: int = 0) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits on a coarse grid, and masks."""
    target = [torch.from_numpy(mask) for mask in masks(seed)]
    logits = torch.randn(len(target), len(NAMES), 5, 6, generator=torch.Generator().manual_seed(seed))
    logits[:, 3] -= 20  # a class in neither masks nor predictions
    return logits, target


def fitted(**settings) -> Segmentation:
    task = Segmentation(**settings)
    task.fit([ClassMask.of(NAMES, mask) for mask in masks(classes=4)])
    return task


def pixels(logits: torch.Tensor, target: list[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted places of all pixels that count, by plain PyTorch."""
    true, predicted = [], []
    for one, mask in zip(logits, target, strict=True):
        large = nn.functional.interpolate(one[None], mask.shape, mode="bilinear")[0]
        true.append(mask[mask != IGNORED].numpy())
        predicted.append(large.argmax(0)[mask != IGNORED].numpy())
    return np.concatenate(true), np.concatenate(predicted)


def measured(task: Segmentation, *batches: tuple[torch.Tensor, list[torch.Tensor]]) -> dict[str, float]:
    metrics = task.collection()
    for logits, target in batches:
        metrics.update(logits, target)
    return task.scalars(metrics.compute())


def test_metrics__equal_scikit_learn_and_torchmetrics() -> None:
    task, one, two = fitted(), batch(0), batch(1)
    found = measured(task, one, two)
    true, predicted = map(np.concatenate, zip(pixels(*one), pixels(*two), strict=True))
    present = [0, 1, 2]
    assert 3 not in true and 3 not in predicted
    iou = jaccard_score(true, predicted, labels=present, average=None)
    dice = f1_score(true, predicted, labels=present, average=None)
    expected = {"mean_iou": iou.mean(), "dice_macro": dice.mean(), "pixel_accuracy": (true == predicted).mean()}
    expected |= {f"iou/{NAMES[i]}": iou[i] for i in present} | {f"dice/{NAMES[i]}": dice[i] for i in present}
    assert found == pytest.approx(expected)
    theirs = MulticlassJaccardIndex(4, ignore_index=IGNORED)
    for logits, target in (one, two):
        for logit, mask in zip(logits, target, strict=True):
            large = nn.functional.interpolate(logit[None], mask.shape, mode="bilinear")
            theirs.update(large.argmax(1), mask[None].long())
    assert found["mean_iou"] == pytest.approx(float(theirs.compute()))


def test_records__are_each_image_s_part_of_the_confusion_matrix() -> None:
    task, (logits, target) = fitted(), batch()
    records = task.records(logits, target)
    whole = np.zeros((4, 4), int)
    for cells in records["scores"]:
        for cell in cells:
            whole[NAMES.index(cell["target"]), NAMES.index(cell["prediction"])] += cell["pixels"]
    assert (whole == confusion_matrix(*pixels(logits, target), labels=range(4))).all()
    assert [sum(one["pixels"] for one in row) for row in records["target"]] == \
        [int((mask != IGNORED).sum()) for mask in target]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
def test_records__predictions_are_masks_to_pycocotools() -> None:
    task, (logits, target) = fitted(), batch()
    for logit, mask, runs in zip(logits, target, task.records(logits, target)["prediction"], strict=True):
        large = nn.functional.interpolate(logit[None], mask.shape, mode="bilinear")[0].argmax(0).numpy()
        again = np.full(mask.shape, -1)
        for one in runs:
            again[coco.decode({"size": one["size"], "counts": one["counts"]}) == 1] = NAMES.index(one["label"])
        assert (again == large).all()


@pytest.mark.parametrize("metric", ["mean_iou", "dice_macro", "pixel_accuracy"])
def test_contributions__are_pseudovalues_of_leaving_an_image_out(metric: str) -> None:
    task, (logits, target) = fitted(), batch()
    found = task.contributions(metric, task.records(logits, target))
    assert found is not None
    n, whole = len(target), measured(task, (logits, target))[metric]
    for i in range(n):
        rest = [j for j in range(n) if j != i]
        without = measured(task, (logits[rest], [target[j] for j in rest]))[metric]
        assert found[i] == pytest.approx(n * whole - (n - 1) * without, abs=1e-4)


def test_class_counts__without_any_pixel_that_counts() -> None:
    assert class_counts([[], []]).shape == (2, 3, 0)


WEIGHTS = np.bincount(np.concatenate([m[m < 4] for m in masks(classes=4)]), minlength=4) ** -1.0


@pytest.mark.parametrize(("loss", "weight"), [
    (CrossEntropy(), None),
    (WeightedCrossEntropy(), torch.tensor(WEIGHTS / WEIGHTS.mean()).float()),
], ids=["plain", "weighted"])
def test_loss__is_torch_s_cross_entropy_over_the_pixels_that_count(loss, weight) -> None:
    logits, target = batch()
    size = (11, 12)
    target = [mask[:9].repeat(2, 1)[:11] for mask in target]
    large = nn.functional.interpolate(logits, size, mode="bilinear")
    expected = nn.functional.cross_entropy(large, torch.stack(target).long(), weight, ignore_index=IGNORED)
    assert float(fitted(loss=loss).loss(logits, {"target": target})) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("loss", [CrossEntropy(), WeightedCrossEntropy(), Focal(), Dice()],
                         ids=lambda loss: type(loss).__name__)
def test_loss__adds_up_over_batches(loss) -> None:
    task, (logits, target) = fitted(loss=loss), batch()
    target[1][:] = IGNORED
    whole = task.loss(logits, {"target": target})
    parts = [(logits[p], {"target": [target[i] for i in p]}) for p in ([0, 1], [2], [3, 4])]
    weights = [task.weight(part) for _, part in parts]
    total = sum(w * float(task.loss(*part)) for w, part in zip(weights, parts, strict=True)) / sum(weights)
    assert total == pytest.approx(float(whole), rel=1e-5)
    assert sum(weights) == pytest.approx(float(task.weights({"target": target}).sum()), rel=1e-6)


def test_loss__of_an_image_without_a_pixel_that_counts_is_nothing() -> None:
    for loss in (CrossEntropy(), Dice()):
        logits = torch.randn(1, 4, 5, 6, requires_grad=True)
        value = fitted(loss=loss).loss(logits, {"target": [torch.full((7, 8), IGNORED, dtype=torch.uint8)]})
        value.backward()
        assert float(value.detach()) == 0
        assert not logits.grad.any()


def test_loss__dice_is_of_each_image() -> None:
    logits, target = batch()
    task = fitted(loss=Dice(cross_entropy=0.0, smooth=1e-3))
    expected = []
    for logit, mask in zip(logits.numpy(), target, strict=True):
        large = nn.functional.interpolate(torch.tensor(logit)[None], mask.shape, mode="bilinear")[0]
        shares = large.softmax(0).numpy()[:, mask != IGNORED]
        true = np.eye(4)[mask[mask != IGNORED].numpy()].T
        overlap = (2 * (shares * true).sum(1) + 1e-3) / (shares.sum(1) + true.sum(1) + 1e-3)
        expected.append(1 - overlap.mean())
    assert float(task.loss(logits, {"target": target})) == pytest.approx(np.mean(expected), rel=1e-5)


def test_classes__of_masks_with_their_own_are_joined() -> None:
    task = Segmentation()
    two = [ClassMask.of(["0", "10"], np.array([[0, 1]], np.uint8)),
           ClassMask.of(["2", "10"], np.array([[1, 1, 0, IGNORED]], np.uint8))]
    task.fit(two)
    assert task.summary() == {"classes": ["0", "2", "10"], "train_pixels": {"0": 1, "2": 1, "10": 3}}
    assert task.encode(two[1], "").places.tolist() == [[2, 2, 1, IGNORED]]
    with pytest.raises(InputError, match=r"a.png: class '7' does not occur in train"):
        task.encode(ClassMask.of(["7"], np.zeros((1, 1), np.uint8)), "a.png")


def test_fit__refuses_what_cannot_be_learned() -> None:
    with pytest.raises(InputError, match=r"at least two classes in train, found only '0'"):
        Segmentation().fit([ClassMask.of(["0"], np.zeros((2, 2), np.uint8))])
    with pytest.raises(InputError, match=r"class 'b' has no pixel .* WeightedCrossEntropy"):
        Segmentation(WeightedCrossEntropy()).fit([ClassMask.of(["a", "b"], np.zeros((2, 2), np.uint8))])


def test_unmeasurable__says_what_is_absent() -> None:
    task = fitted()
    here = [task.encode(ClassMask.of(NAMES, np.zeros((2, 2), np.uint8)), "")]
    assert task.unmeasurable("mean_iou", here) == ""
    assert task.unmeasurable("iou/car", here) == "no example is of 'car'"
    assert "has a pixel that counts" in task.unmeasurable("mean_iou", [ClassMask.ignored(NAMES, (2, 2))])


def test_table__has_a_row_a_class() -> None:
    task, (logits, target) = fitted(), batch()
    records = task.records(logits, target)
    table = task.table({**records, "id": list("abcde")})
    assert list(table) == ["id", "label", "height", "width", "counts"]
    assert table["height"][:1] == [9] and len(table["id"]) == sum(map(len, records["prediction"]))


def test_mask__packs_and_says_the_same_of_the_same() -> None:
    places = masks()[0]
    one = ClassMask.of(NAMES, places)
    assert (one.places == places).all()
    assert str(one) == str(ClassMask.of(NAMES, places.copy()))
    places[0, 0] = (places[0, 0] + 1) % 3
    assert str(one) != str(ClassMask.of(NAMES, places))
