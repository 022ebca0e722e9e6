import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from ftlab.backbones.preprocessing import (
    AudioPreprocessing,
    ImagePreprocessing,
    TextPreprocessing,
)
from ftlab.data import image_store
from ftlab.data.image import ImageClassification
from ftlab.data.image_augment import ImageAugment, seeded
from ftlab.data.image_dataset import FitSize
from ftlab.errors import Incompatible, InputError
from ftlab.tasks.classification import Classification

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


class Pixels:
    preprocessing = ImagePreprocessing("pixels", (8, 8), MEAN, STD)


class Fixed:
    preprocessing = ImagePreprocessing("pixels", (8, 8), MEAN, STD, fixed_size=True)


class Words:
    preprocessing = TextPreprocessing(lambda texts, longest: ([], 0), lambda rows: {}, 9)


class Sound:
    preprocessing = AudioPreprocessing(16000, lambda waves: {}, 1.0)


@pytest.fixture
def folder(tmp_path):
    """24 noise images of 8x8, two classes."""
    random = np.random.default_rng(0)
    for i in range(24):
        path = tmp_path / "images" / ("ab"[i % 2]) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def connected(folder, seed=0, **settings):
    data = ImageClassification(str(folder), **settings)
    data.connect(Pixels(), seed)
    return data


def pixels(loader, epoch=0):
    loader.sampler.set_epoch(epoch)
    return torch.cat([batch["inputs"]["pixels"] for batch in loader])


def test_eval_loader__pixels_normalised_and_targets_right(folder):
    data = connected(folder, batch_size=5)
    for split in ("train", "validation", "test"):
        seen = []
        for batch in data.eval_loader(split):
            for image, target, i in zip(batch["inputs"]["pixels"], batch["target"],
                                        batch["index"].tolist(), strict=True):
                seen.append(i)
                raw = np.asarray(Image.open(folder / data.splits[split].ids[i])) / 255
                expected = (raw - MEAN) / STD
                np.testing.assert_allclose(image.permute(1, 2, 0), expected, atol=1e-6)
                assert data.splits[split].labels[i] == "ab"[target]
        assert sorted(seen) == list(range(len(data.splits[split])))


def test_memory__decoding_on_access_is_the_same(folder, monkeypatch):
    kept = next(iter(connected(folder).train_dataloader()))
    monkeypatch.setattr(image_store, "IN_MEMORY", 500)
    data = connected(folder)
    files = data.splits["train"].inputs
    assert data._images.of("train") is files
    again = next(iter(data.train_dataloader()))
    assert torch.equal(kept["inputs"]["pixels"], again["inputs"]["pixels"])


@pytest.mark.parametrize("policy", ["standard", "trivial", "randaugment"])
def test_augment__follows_seed_epoch_and_example_alone(folder, policy):
    settings = {"augment": ImageAugment(policy, mix="mixup"), "batch_size": 5}
    before = torch.get_rng_state()
    plain = pixels(connected(folder, **settings).train_dataloader())
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(7)
    assert torch.equal(plain, pixels(connected(folder, **settings).train_dataloader()))
    assert torch.equal(plain, pixels(connected(folder, workers=2, **settings).train_dataloader()))
    assert not torch.equal(plain, pixels(connected(folder, **settings).train_dataloader(), 1))
    assert plain.shape[1:] == (3, 8, 8)


def test_augment__new_each_epoch(folder):
    data = connected(folder, augment=ImageAugment("standard", mix="mixup", alpha=1.0))
    rows = data.dataset("train", training=True)
    collate = data.collate(training=True)
    first = [rows[i] for i in range(len(rows))]
    rows.set_epoch(1)
    assert all(not torch.equal(a.input, rows[i].input) for i, a in enumerate(first))
    mixed, again, later = (collate([row._replace(epoch=epoch) for row in first])["target"]
                           for epoch in (0, 0, 1))
    assert torch.equal(mixed, again) and not torch.equal(mixed, later)


def test_augment__evaluation_and_none_stay_plain(folder):
    data, plain = connected(folder, augment=ImageAugment("trivial")), connected(folder)
    for split in ("train", "validation"):
        for a, b in zip(data.eval_loader(split), plain.eval_loader(split), strict=True):
            assert torch.equal(a["inputs"]["pixels"], b["inputs"]["pixels"])
    none = connected(folder, augment=ImageAugment("none")).train_dataloader()
    assert torch.equal(pixels(none), pixels(plain.train_dataloader()))


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mix__targets_are_the_shares_of_the_images(folder, mix):
    data = connected(folder, augment=ImageAugment("none", mix=mix, alpha=1.0), batch_size=16)
    batch = next(iter(data.train_dataloader()))
    plain = next(iter(connected(folder, batch_size=16).train_dataloader()))
    target, images = batch["target"], batch["inputs"]["pixels"]
    assert target.shape == (16, 2) and target.is_floating_point()
    torch.testing.assert_close(target.sum(1), torch.ones(16))
    onehot = torch.nn.functional.one_hot(plain["target"], 2).float()
    different = (onehot != onehot.roll(1, 0)).any(1)
    share = target[different][0][plain["target"][different][0]]
    torch.testing.assert_close(target, share * onehot + (1 - share) * onehot.roll(1, 0))
    original = plain["inputs"]["pixels"]
    if mix == "mixup":
        torch.testing.assert_close(images, share * original + (1 - share) * original.roll(1, 0))
    else:
        own = (images == original).all(1).float().mean((1, 2))
        torch.testing.assert_close(own, share.expand(16), atol=1e-6, rtol=0)
    assert torch.isfinite(data.task.loss(torch.zeros(16, 2), batch))
    assert next(iter(data.val_dataloader()))["target"].ndim == 1


def test_mix__needs_one_class_an_example(folder):
    class Soft(Classification):
        @staticmethod
        def stack(targets):
            return torch.as_tensor(targets, dtype=torch.float32)

    data = connected(folder, augment=ImageAugment(mix="mixup"), task=Soft())
    with pytest.raises(InputError, match="one class an example"):
        next(iter(data.train_dataloader()))


@pytest.mark.parametrize(("shape", "size", "covering"), [
    ((20, 40), (8, 8), [8, 16]), ((40, 20), (8, 8), [16, 8]), ((300, 300), (224, 224), [224, 224]),
    ((8, 30), (8, 8), [8, 30]), ((6, 30), (8, 8), [8, 8]), ((5, 7), (8, 8), [8, 8]),
    ((30, 20), (6, 12), [18, 12]), ((187, 200), (3, 3), [3, 4])])
def test_fit_size__covers_and_crops_the_centre_or_resizes(shape, size, covering):
    image = torch.randint(256, (3, *shape), dtype=torch.uint8)
    mode = v2.InterpolationMode.BILINEAR
    reference = v2.Compose([v2.Resize(covering, mode, antialias=True), v2.CenterCrop(size)])
    assert torch.equal(FitSize(size, mode)(image), reference(image))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def replace(folder, data: bytes):
    (folder / "a/0.png").write_bytes(data)
    loaded = ImageClassification(str(folder))
    loaded.load()
    split = next(s for s, part in loaded.splits.items() if "a/0.png" in part.ids)
    pixels = loaded._images.of(split)[loaded.splits[split].ids.index("a/0.png")]
    return pixels.expand(3, -1, -1), loaded.notes


def test_decode__conversions_are_noted(folder):
    colour = Image.new("RGB", (4, 2), (200, 100, 50))
    grey, notes = replace(folder, encoded(Image.new("L", (4, 2), 77)))
    assert (grey == 77).all() and notes == [
        "1 of 24 images are grey, so their three channels are equal"]
    for mode in ("RGBA", "P"):
        image, notes = replace(folder, encoded(colour.convert(mode)))
        assert notes == [f"1 of 24 images are converted from {mode} to RGB"]
        if mode == "RGBA":
            assert image[:, 0, 0].tolist() == [200, 100, 50]
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image, notes = replace(folder, encoded(colour, exif=exif))
    assert image.shape == (3, 4, 2) and "EXIF" in notes[0]


@pytest.mark.parametrize(("make", "what"), [
    (lambda good: b"", "does not decode"),
    (lambda good: b"not an image", "does not decode"),
    (lambda good: good[: len(good) // 2], "does not decode"),
    (lambda good: encoded(Image.fromarray(np.full((4, 4), 40_000, np.uint16))), "8 bits")])
def test_load__damaged_image_is_named(folder, make, what):
    with pytest.raises(InputError, match=rf"0\.png.*{what}"):
        replace(folder, make((folder / "a/0.png").read_bytes()))


def test_table__hub_bytes_and_paths(folder, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")
    files = sorted(folder.glob("*/*.png"))
    (tmp_path / "list.csv").write_text("image,label\n" + "".join(
        f"images/{path.relative_to(folder)},{path.parent.name}\n" for path in files))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    datasets.Dataset.from_dict(
        {"image": [{"bytes": path.read_bytes(), "path": None} for path in files],
         "label": [path.parent.name for path in files]}, features).save_to_disk(tmp_path / "saved")
    a, b = connected(tmp_path / "list.csv"), connected(f"hf:{tmp_path / 'saved'}")
    assert [id.split(":")[1] for id in a.splits["train"].ids] == [
        id.split(":")[1] for id in b.splits["train"].ids]
    assert torch.equal(pixels(a.train_dataloader()), pixels(b.train_dataloader()))


def test_connect__sizes_and_what_does_not_fit(folder):
    data = connected(folder, image_size=5)
    assert next(iter(data.val_dataloader()))["inputs"]["pixels"].shape[1:] == (3, 5, 5)
    with pytest.raises(Incompatible, match="8x8 only"):
        data.connect(Fixed(), 0)
    with pytest.raises(Incompatible, match="yields images; Words reads texts"):
        ImageClassification("not/read/yet").connect(Words(), 0)
    with pytest.raises(Incompatible, match="yields images; Sound reads sound"):
        ImageClassification("not/read/yet").connect(Sound(), 0)


@pytest.mark.parametrize("arguments", [{"policy": "nope"}, {"mix": "nope"}, {"alpha": 0.0},
                                       {"min_area": 0.0}])
def test_augment__refuses_values_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ImageAugment(**arguments)
    with pytest.raises(ValueError, match="image_size"):
        ImageClassification("x", image_size=0)


def test_seeded__leaves_the_generator_as_it_was():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with seeded(1, 2):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded(1, 2):
        assert torch.equal(torch.rand(3), inside)


def test_elpv__classes_merged():
    grades = {"0.0": "intact", "0.3333333333333333": "intact", "0.6666666666666666": "defect",
              "1.0": "defect"}
    examples = ImageClassification("package:elpv_dataset/data/labels.csv", image=0, label=1,
                                   classes=grades)
    found = examples._read_splits()
    labels = [label for part in found.values() for label in part.labels]
    assert (labels.count("intact"), labels.count("defect")) == (1803, 821)


@pytest.mark.shared
def test_cifar10__as_a_folder(shared):
    data = ImageClassification(str(shared / "data/cifar10/test"))
    data.load()
    assert {name: len(part) for name, part in data.splits.items()} == {
        "train": 700, "validation": 100, "test": 200}
    assert data.task.outputs == 10 and not data.notes
