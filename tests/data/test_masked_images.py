"""Masks over images: what is drawn, when anew, and which images a carved corpus has."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from masked import save_vit

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.torchvision import Torchvision
from ftlab.data.image import ImageClassification
from ftlab.data.image_augment import ImageAugment
from ftlab.data.masked_images import MaskedImages
from ftlab.data.patch_masking import PatchMasking
from ftlab.data.splits import Split, Subset
from ftlab.errors import Incompatible, InputError


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> HuggingFace:
    return HuggingFace(str(save_vit(tmp_path_factory.mktemp("vit"))))


def connected(shapes: Path, vit: HuggingFace, seed: int = 0, **settings: Any) -> MaskedImages:
    data = MaskedImages(str(shapes), batch_size=8, **{"masking": PatchMasking(size=8), **settings})
    data.connect(vit, seed)
    return data


@pytest.mark.parametrize(("share", "size", "patch", "count"), [
    (0.5, 32, 16, 25), (0.6, 32, 32, 30), (0.5, 16, 16, 98), (0.01, 32, 16, 1)])
def test_masks__shares_are_simmims(share: float, size: int, patch: int, count: int) -> None:
    """Rounded up, as in the authors' code; of whole squares, each equally often."""
    masks = PatchMasking(share, size).over((224, 224), patch)
    side, within = 224 // size, size // patch
    often = np.zeros(side**2)
    for number in range(200):
        squares = masks.draw(number)
        assert len(set(squares.tolist())) == count
        often[squares] += 1
        grid = masks.of_patches(squares).view(side, within, side, within)
        assert torch.equal(grid.all(dim=3).all(dim=1), grid.any(dim=3).any(dim=1)), "whole squares"
        assert torch.equal(grid[:, 0, :, 0].flatten().nonzero().flatten(), torch.from_numpy(squares))
    share_drawn = count / side**2
    bound = 5 * (share_drawn * (1 - share_drawn) / 200) ** 0.5
    assert np.abs(often / 200 - share_drawn).max() < bound


@pytest.mark.parametrize(("arguments", "says"), [
    ({"share": 0.0}, "share must be above 0"), ({"share": 1.0}, "share must be above 0"),
    ({"size": 0}, "size must be at least 1")])
def test_masking__impossible(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PatchMasking(**arguments)


def test_masking__squares_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="squares of 32 pixels do not divide images of 224x224") as found:
        PatchMasking().over((224, 224), 14)  # ViT-H/14
    assert found.value.mend == "set masking: {size: 28}"
    with pytest.raises(InputError, match="a visible and a hidden part") as found:
        PatchMasking(0.5, 32).over((32, 32), 8)
    assert found.value.mend == "set masking: {size: 16}"
    with pytest.raises(InputError, match="a visible and a hidden part") as found:
        PatchMasking(0.9, 16).over((32, 32), 16)
    assert "larger image_size" in found.value.mend
    with pytest.raises(InputError, match="need square images of whole patches") as found:
        PatchMasking().over((230, 230), 16)
    assert found.value.mend == "set image_size: 240"


@pytest.mark.parametrize("augment", [None, ImageAugment(min_area=0.67)])
def test_masks__are_drawn_anew_in_training_alone(shapes: Path, vit: HuggingFace,
                                                 augment: ImageAugment | None) -> None:
    made = [connected(shapes, vit, seed, augment=augment) for seed in (0, 0, 1)]

    def drawn(dataset: Any) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [dataset[i].input for i in range(8)]
        return torch.stack([image for image, _ in rows]), torch.stack([mask for _, mask in rows])

    first, same, other = (data.dataset("train", training=True) for data in made)
    images, masks = drawn(first)
    assert torch.equal(drawn(same)[1], masks)
    assert torch.equal(drawn(same)[0], images)
    assert not torch.equal(drawn(other)[1], masks)
    first.set_epoch(1)
    assert not torch.equal(drawn(first)[1], masks)
    assert torch.equal(drawn(first)[0], images) == (augment is None)
    fixed, fixed_other = (made[i].dataset("validation", training=False) for i in (0, 2))
    before = drawn(fixed)
    fixed.set_epoch(1)
    assert all(map(torch.equal, drawn(fixed), before))
    assert all(map(torch.equal, drawn(fixed_other), before))
    squares = [int(number) for number in fixed[3].target.split()]  # of one patch each
    assert before[1][3].nonzero().flatten().tolist() == squares
    assert len(squares) == 8


def test_images__are_the_classifiers(shapes: Path, vit: HuggingFace) -> None:
    settings: dict[str, Any] = {"split": Split(seed=3), "subset": Subset(shots=8)}
    corpus = connected(shapes, vit, **settings)
    labelled = ImageClassification(str(shapes), batch_size=8, **settings)
    labelled.connect(vit, 0)
    for split in ("train", "validation", "test"):
        assert corpus.splits[split].ids == labelled.splits[split].ids
    assert corpus.inputs("train", "test") == labelled.inputs("train", "test")
    batch, other = next(iter(corpus.val_dataloader())), next(iter(labelled.val_dataloader()))
    assert torch.equal(batch["inputs"]["pixel_values"], other["inputs"]["pixel_values"])
    assert batch["inputs"]["bool_masked_pos"].shape == (8, 16)


def test_folder__without_classes(shapes: Path, vit: HuggingFace) -> None:
    data = connected(shapes / "left", vit)
    assert sum(map(len, data.splits.values())) == 48


def test_images__that_reside_on_a_device_are_the_same(shapes: Path, vit: HuggingFace) -> None:
    device = torch.device("cpu")
    plain = next(iter(connected(shapes, vit).val_dataloader()))
    data = connected(shapes, vit)
    assert data.kept_images()
    for cache in data.kept_images():
        cache.reside(device)
    named = next(iter(data.val_dataloader()))
    assert torch.equal(named["inputs"]["pixel_values"].to(device), plain["inputs"]["pixel_values"])
    assert torch.equal(named["inputs"]["bool_masked_pos"], plain["inputs"]["bool_masked_pos"])
    assert data.dataset("validation", training=False).shape is None, "the loss reads the images"
    assert data.augment is not None
    assert data.views is None, "masks are new in each epoch, so that no prefix is cached"


def test_metrics__are_those_of_all_masked_pixels(shapes: Path, vit: HuggingFace) -> None:
    data = connected(shapes, vit)
    model, task = vit.build(data.task).eval(), data.task
    errors, records = [], {"target": [], "prediction": [], "scores": []}  # type: ignore[var-annotated]
    metrics = task.collection()
    for number, batch in enumerate(data.val_dataloader()):
        if number == 0:  # so that examples differ in weight
            batch["inputs"]["bool_masked_pos"][0] = False
            batch["inputs"]["bool_masked_pos"][0, 5] = True
            batch["target"]["masked"][0] = "5"
        with torch.no_grad():
            outputs = model(batch)
        images, masked = batch["inputs"]["pixel_values"], batch["inputs"]["bool_masked_pos"]
        parts = (outputs - images).unfold(2, 8, 8).unfold(3, 8, 8)  # (B, 3, 4, 4, 8, 8)
        errors.append(parts.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)[masked])
        losses, weights = task.losses(outputs, batch), task.weights(batch)
        torch.testing.assert_close(task.loss(outputs, batch), errors[-1].abs().mean())
        torch.testing.assert_close((losses * weights).sum() / weights.sum(), errors[-1].abs().mean())
        assert task.weight(batch) == weights.sum()
        predictions = task.predict(model, batch, outputs)
        metrics.update(predictions, batch["target"])
        for column, values in task.records(predictions, batch["target"]).items():
            records[column] += values
    wanted = {"l1": torch.cat(errors).abs().mean(), "mse": torch.cat(errors).square().mean()}
    for name, value in metrics.compute().items():
        torch.testing.assert_close(value, wanted[name])
        adds = task.contributions(name, records)
        assert adds is not None
        assert adds.mean() == pytest.approx(float(value), rel=1e-2)  # up to the jackknife's bias
    assert len(records["target"]) == len(data.splits["validation"])


def test_refusals(shapes: Path, vit: HuggingFace, backbone: Any) -> None:
    data = MaskedImages(str(shapes), image_size=32, masking=PatchMasking(size=8))
    for other in (backbone("resnet"), Torchvision("resnet18", weights=None)):
        with pytest.raises(Incompatible, match="reads images that are not cut into any") as found:
            data.connect(other, 0)
        assert "choose a ViT, DeiT or Swin" in found.value.mend
    with pytest.raises(Incompatible, match="MaskedImages yields images; HuggingFace reads texts"):
        data.connect(backbone("bert"), 0)
    with pytest.raises(InputError, match="squares of 32 pixels do not divide images of 32x32"):
        MaskedImages(str(shapes)).connect(vit, 0)
    for augment in (ImageAugment(mix="mixup"), ImageAugment(views=2)):
        with pytest.raises(ValueError, match="no mix and no views"):
            MaskedImages(str(shapes), augment=augment)
    with pytest.raises(Incompatible, match="predicts nothing of a new image"):
        data.check_predicts()
