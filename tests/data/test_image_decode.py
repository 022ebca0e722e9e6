import io
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ftlab.data.box_annotations import BoxCheck, read_coco
from ftlab.data.image_decode import decode_image, picture_size
from ftlab.errors import InputError

STORED = {  # what a file of each EXIF orientation holds, of the upright pixels (H, W, 3)
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2), 8: lambda a: np.rot90(a, -1)}
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True, "exact": True}, "TIFF": {},
            "JPEG": {"quality": 100, "subsampling": 0}}
GARBAGE = {"header": b"Exif\0\0garbage!", "cut": b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12"}


def pixels(height: int = 5, width: int = 9) -> np.ndarray:
    """Smooth, so that JPEG keeps it, and of no symmetry."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 20, columns * 12, rows * 10 + columns * 8], -1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decoded(data: bytes, path: Path) -> tuple[np.ndarray, Counter[str]]:
    """Pixels (H, W, 3) and notes; the size of the header is held to them."""
    path.write_bytes(data)
    notes: Counter[str] = Counter()
    image = decode_image(data, "it", notes)
    assert picture_size(path) == (image.shape[2], image.shape[1])
    return image.expand(3, -1, -1).permute(1, 2, 0).numpy(), notes


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("orientation", STORED)
def test_orientation__upright_pixels_and_their_size(kind, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](pixels())))
    image, _ = decoded(encoded(stored, kind, exif=exif, **LOSSLESS[kind]), tmp_path / "it")
    assert image.shape == (5, 9, 3)
    assert np.abs(image.astype(int) - pixels()).max() <= (3 if kind == "JPEG" else 0)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "PPM"])
def test_other_formats__size_of_the_decoded_picture(kind, tmp_path):
    image, _ = decoded(encoded(Image.fromarray(pixels()), kind), tmp_path / "it")
    assert image.shape == (5, 9, 3)


@pytest.mark.parametrize("kind", ["TGA", "JPEG2000", "AVIF", "DDS", "EPS", "ICO"])
def test_unlisted_formats__are_refused(kind, tmp_path):
    with pytest.raises(InputError, match=r"no known kind \(BMP, GIF, .*\)"):
        decoded(encoded(Image.fromarray(pixels()), kind), tmp_path / "it")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("damage", GARBAGE)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow's, when the test writes it
def test_unreadable_exif__picture_is_read_and_noted(kind, damage, tmp_path):
    data = encoded(Image.fromarray(pixels()), kind, exif=GARBAGE[damage], **LOSSLESS[kind])
    image, notes = decoded(data, tmp_path / "it")
    assert np.abs(image.astype(int) - pixels()).max() <= (3 if kind == "JPEG" else 0)
    assert notes == {"taken as they lie, since their EXIF data cannot be read": 1}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, when the test writes it
def test_exif__whatever_bytes_it_holds(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 1.5
    good, chance = exif.tobytes(), random.Random(0)
    turned, lying = np.rot90(pixels(), -1), pixels()
    for _ in range(200):
        block = bytearray(good)
        for _ in range(chance.choice((1, 2, 5))):
            block[chance.randrange(len(block))] = chance.randrange(256)
        data = encoded(Image.fromarray(lying), "PNG", exif=bytes(block))
        image, _ = decoded(data, tmp_path / "it")
        ways = [make(way) for way in (turned, lying) for make in STORED.values()]
        assert any(image.shape == way.shape and (image == way).all() for way in ways)


@pytest.mark.parametrize(("mode", "kind"), [
    ("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("P", "GIF"),
    ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF"), ("1", "TIFF"), ("PA", "TIFF")])
def test_mode__as_pillow_makes_it_rgb(mode, kind, tmp_path):
    source = Image.fromarray(pixels()).convert("RGBA")
    source.putalpha(Image.fromarray(pixels()[..., 0]))
    data = encoded(source.convert("P").convert("PA") if mode == "PA" else source.convert(mode),
                   kind, **({"transparency": 3} if (mode, kind) == ("P", "PNG") else {}))
    image, _ = decoded(data, tmp_path / "it")
    # RGBA first: Pillow warns where a palette has transparent colours
    expected = Image.open(io.BytesIO(data)).convert("RGBA" if mode == "P" else "RGB")
    assert (image == np.asarray(expected.convert("RGB"))).all()
    assert len(np.unique(image)) > 1


def test_sixteen_bits__never_clipped_to_white(tmp_path):
    grey = encoded(Image.fromarray(np.full((4, 4), 40_000, np.uint16)), "PNG")
    with pytest.raises(InputError, match="more than 8 bits"):
        decode_image(grey, "it", Counter())


def test_boxes__of_a_turned_tiff_lie_in_the_turned_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(pixels(20, 40), 1)))
    stored.save(tmp_path / "it.tif", exif=exif)
    (tmp_path / "it.json").write_text(
        '{"images": [{"id": 1, "file_name": "it.tif"}], "categories": [{"id": 1, "name": "cell"}],'
        ' "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [30, 5, 10, 15]}]}')
    (image,) = read_coco(tmp_path / "it.json", tmp_path, BoxCheck("refuse", Counter()))
    assert image.boxes[0].corners == (30, 5, 40, 20)
