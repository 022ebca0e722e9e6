"""A user's `pipeline(...)` over an exported folder answers what `ftlab predict` answers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import transformers as hf
from exported import restored
from PIL import Image

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.image import ImageClassification
from ftlab.exports.export import write_model
from ftlab.exports.predictions import predictions_of

SIZES = [(53, 37), (37, 53), (40, 40), (31, 90), (201, 150), (150, 201), (7, 5), (5, 7),
         (64, 33), (33, 64), (48, 47), (49, 200)]  # width, height
NETWORKS = [("vit", None), ("resnet", None), ("resnet", 40), ("swin", 48), ("convnext", None),
            ("convnext", 36), ("tiny_clip", None)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 of odd sizes and two classes, one of them on its side."""
    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    exif = Image.Exif()
    for number, size in enumerate(2 * SIZES):
        path = folder / ("ab"[number % 2]) / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        exif[0x0112] = 6 if number == 3 else 1
        small = Image.fromarray(noise.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(path, exif=exif)
    return folder


@pytest.mark.parametrize(("network", "image_size"), NETWORKS)
def test_pipeline__answers_as_predict_does(
    network: str, image_size: int | None, pictures: Path, tmp_path: Path,
    save: Callable[[str], Path], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(network) if network.startswith("tiny") else save(network)
    found = restored(lambda: (HuggingFace(str(folder)), ImageClassification(
        str(pictures), test=str(pictures), image_size=image_size, batch_size=8)),
        "FullFineTuning", tmp_path)
    (tmp_path / "export").mkdir()
    write_model(found, tmp_path / "export")

    told = predictions_of(found).columns
    classify = hf.pipeline("image-classification", str(tmp_path / "export"), top_k=None)
    answers = classify([str(pictures / name) for name in told["id"]], batch_size=4)
    assert len(answers) == 24
    assert [each[0]["label"] for each in answers] == told["prediction"]
    for name in "ab":
        scores = [next(a["score"] for a in each if a["label"] == name) for each in answers]
        np.testing.assert_allclose(scores, told[f"score {name}"], atol=1e-5)
        assert np.ptp(scores) > 1e-3
