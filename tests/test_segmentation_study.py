"""Segmentation from a study file to its table, predictions and refusals, as a user has it."""

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from pycocotools import mask as coco
from segmentation import CLASSES
from sklearn.metrics import f1_score, jaccard_score
from torch import nn
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

UNRENDERED = True


TECHNIQUES = {"full": {"class_path": "FullFineTuning", "init_args": {"lr": 5e-3}},
              "lora": {"class_path": "LoRA", "init_args": {"lr": 1e-2}},
              "probe": {"class_path": "LinearProbe", "init_args": {"lr": 1e-2}}}
LRASPP = {"class_path": "TorchvisionSegmenter", "init_args": {
    "name": "lraspp_mobilenet_v3_large", "weights": None, "image_size": 64}}


def study(folder: Path, scenes: Path, backbone: dict, techniques: Collection[str], epochs: int) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({
        "name": "scenes", "backbones": {"net": backbone},
        "datasets": {"shapes": {"class_path": "SemanticSegmentation", "init_args": {
            "train": str(scenes), "classes": CLASSES, "batch_size": 4,
            "task": {"class_path": "Segmentation", "init_args": {"loss": {
                "class_path": "WeightedCrossEntropy", "init_args": {"power": 0.5}}}}}}},
        "techniques": {name: TECHNIQUES[name] for name in techniques}, "seeds": [0],
        "trainer": {"max_epochs": epochs, "accelerator": "cpu"}}))
    return path


@pytest.fixture
def segformer(segmenter_folder: Callable[[str], Path]) -> dict:
    return {"class_path": "HuggingFace", "init_args": {"source": str(segmenter_folder("segformer"))}}


@pytest.mark.parametrize(("name", "techniques", "epochs"), [
    ("segformer", ["full"], 8),
    pytest.param("segformer", ["full", "probe", "lora"], 8, marks=pytest.mark.slow),
    pytest.param("lraspp", ["full", "probe", "lora"], 3, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
def test_study__from_yaml_to_table_and_masks(name: str, techniques: list[str], epochs: int, scenes: Path,
                                             segformer: dict, here: Callable, tmp_path: Path) -> None:
    path = study(tmp_path, scenes, LRASPP if name == "lraspp" else segformer, techniques, epochs)
    code, output, errors = here("run", path)
    assert code == 0, output + errors
    rows = pd.read_csv(tmp_path / "results" / "scenes" / "runs.csv")
    assert len(rows) == len(techniques) and (rows["status"] == "FINISHED").all()
    for _, row in rows.iterrows():
        records = records_of(tmp_path, row["run_id"])
        true, predicted = [], []
        for record in records:
            mask = np.array(Image.open(scenes / "masks" / record["id"]))
            chosen = mask_of(record, mask.shape)
            true.append(mask[mask < 255])
            predicted.append(chosen[mask < 255])
        true, predicted = np.concatenate(true), np.concatenate(predicted)
        present = np.union1d(true, predicted)
        assert row["test/mean_iou"] == pytest.approx(
            jaccard_score(true, predicted, labels=present, average="macro"), abs=1e-5)
        assert row["test/dice_macro"] == pytest.approx(
            f1_score(true, predicted, labels=present, average="macro"), abs=1e-5)
        assert row["test/pixel_accuracy"] == pytest.approx((true == predicted).mean(), abs=1e-5)
        assert len(records) == 6
    full = rows[rows["technique"] == "full"].iloc[0]
    # the statistics of a random MobileNetV3's norms have no time to follow: it trains, and is measured
    assert full["test/mean_iou"] > (0.2 if name == "lraspp" else 0.75)  # all background: 0.28
    table = (tmp_path / "results" / "scenes" / "table.md").read_text()
    assert techniques[-1] in table and "mean\\_iou" in table

    code, output, errors = here("predict", full["run_id"], scenes / "images", "--out", "new.csv")
    assert code == 0, output + errors
    new = pd.read_csv(tmp_path / "new.csv")
    assert list(new) == ["id", "path", "label", "height", "width", "counts"]
    assert new["id"].nunique() == 32
    for record in records_of(tmp_path, full["run_id"]):
        again = new[new["id"] == record["id"]]
        assert {one["label"]: one["counts"] for one in record["prediction"]} == \
            dict(zip(again["label"], again["counts"].str.removeprefix("'"), strict=True))

    code, output, errors = here("export", full["run_id"], "--out", "exported")
    if name == "lraspp":
        assert code == 2 and "TorchvisionSegmenter" in errors and not (tmp_path / "exported").exists()
        return
    assert code == 0, output + errors
    loads_as_transformers_does(tmp_path / "exported", scenes, records_of(tmp_path, full["run_id"]))


def loads_as_transformers_does(folder: Path, scenes: Path, records: list[dict]) -> None:
    """The exported folder gives the run's masks, by transformers' own image processor."""
    network = AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    assert list(network.config.id2label.values()) == CLASSES
    for record in records:
        image = Image.open(scenes / "images" / record["id"])
        with torch.no_grad():
            logits = network(**processor(image, return_tensors="pt")).logits
        mask = nn.functional.interpolate(logits, image.size[::-1], mode="bilinear")[0].argmax(dim=0)
        assert (mask.numpy() == mask_of(record, mask.shape)).mean() > 0.995


def mask_of(record: dict, shape: tuple[int, ...]) -> np.ndarray:
    """The predicted places of an image, by pycocotools."""
    chosen = np.full(shape, -1)
    for one in record["prediction"]:
        chosen[coco.decode({"size": one["size"], "counts": one["counts"]}) == 1] = CLASSES.index(one["label"])
    return chosen


def records_of(folder: Path, run: str) -> list[dict]:
    return pq.read_table(folder / "mlartifacts" / run / "artifacts" / "predictions" / "test.parquet").to_pylist()


def test_check__says_which_mask_is_wrong(scenes: Path, segformer: dict, here: Callable, tmp_path: Path) -> None:
    path = study(tmp_path, scenes, segformer, ["full"], 1)
    assert here("check", path)[0] == 0
    options = ["--set", "datasets.shapes.init_args.classes=[background, disc]"]
    code, output, errors = here("check", path, *options)
    assert code == 2
    assert "masks/" in output + errors and "the value 2 is none of the 2 classes" in output + errors
    code, output, errors = here("check", path, "--set", "select_by=val/mean_iuo")
    assert code == 2 and "did you mean 'mean_iou'?" in output + errors
