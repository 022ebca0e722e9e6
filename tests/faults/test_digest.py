"""No flipped bit, and no two, leave the digest of a tensor or of a cache's file as it was."""

import hashlib
import itertools
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ftlab.backbones import digest as digests_module
from ftlab.backbones.digest import DIGESTS, Damaged, digest, digests, mapped

ROW = 8 * 1024  # bytes


def flipped(data: Tensor, *bits: int) -> Tensor:
    """A copy of bytes with some bits, counted from the first byte's lowest, turned."""
    changed = data.clone()
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return changed


def noise(size: int) -> Tensor:
    return torch.randint(0, 256, (size,), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(size))


SIGNS = (0, 1, 31, 32, 62, 63)  # of a word: its ends, and those of its halves


@pytest.mark.parametrize(("content", "every"), [
    (255, False), *(pytest.param(value, True, marks=pytest.mark.slow) for value in (None, 0, 255))])
def test_every_single_and_every_double_flip_shows(
    content: int | None, every: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of two words: two rows and a rest of three bytes are 280 bits, 39,340 sets of flips."""
    monkeypatch.setattr(digests_module, "_WIDTH", 2)
    data = noise(35) if content is None else torch.full((35,), content, dtype=torch.uint8)
    whole = digest(data)
    bits = [bit for bit in range(280) if every or bit % 64 in SIGNS]
    for count in (1, 2):
        for flips in itertools.combinations(bits, count):
            assert digest(flipped(data, *flips)) != whole, flips


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_flips_show_in_whole_rows_and_behind_them(count: int) -> None:
    """Half of the pairs are top bits of two words, where odd factors see nothing."""
    data, draw = noise(3 * ROW + 13), random.Random(0)
    whole, bits = digest(data), 8 * len(data)
    for number in range(count):
        first, second = draw.sample(range(bits), 2)
        if number % 2:
            first, second = (8 * 8 * word + 63 for word in draw.sample(range(len(data) // 8), 2))
        assert digest(flipped(data, first)) != whole
        assert digest(flipped(data, first, second)) != whole


def test_it_is_the_hash_of_the_rest_the_size_and_the_sums() -> None:
    data = noise(2 * ROW + 5)
    words = [int.from_bytes(bytes(data[at : at + 8].tolist()), "little")
             for at in range(0, 2 * ROW, 8)]
    sums = [sum(words[:1024]), sum(words[1024:]),
            *(words[column] + words[1024 + column] for column in range(1024))]
    said = bytes(data[-5:].tolist()) + len(data).to_bytes(8, "little") + b"".join(
        (value % 2**64).to_bytes(8, "little") for value in sums)
    assert digest(data) == hashlib.blake2b(said, digest_size=16).hexdigest()


def test_it_is_of_the_bits_in_their_order() -> None:
    rows = noise(4 * ROW).view(4, ROW)
    for other in (rows[[1, 0, 2, 3]], rows.roll(8, 1), rows[:3], torch.cat([rows, 0 * rows[:1]])):
        assert digest(other) != digest(rows)
    assert digest(torch.tensor([0.0])) != digest(torch.tensor([-0.0]))
    assert digest(torch.zeros(2)) != digest(torch.zeros(3))


def test_it_is_the_same_wherever_a_tensor_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(700_001, generator=torch.Generator().manual_seed(0))
    whole = digest(values)
    assert digest(torch.cat([torch.zeros(1), values])[1:]) == whole  # begins within a word
    assert digest(torch.stack([values, values], 1)[:, 0]) == whole  # not contiguous
    assert digest(values.clone().requires_grad_()) == whole
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)  # other parts at a time
    assert digest(values) == whole
    assert digest(torch.tensor(3)) == digest(torch.tensor([3]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_it_is_the_same_on_a_gpu() -> None:
    for data in (noise(3 * ROW + 13), noise(5), torch.randn(1_000_003).bfloat16()):
        assert digest(data.cuda()) == digest(data)


def test_a_file_is_held_to_its_layout_too(tmp_path: Path) -> None:
    """Two bits make a shape of [2, 3] of [3, 2], which the bytes of a tensor do not show."""
    tensors = {"a": torch.arange(6).view(2, 3), "b": torch.ones(3)}
    path = tmp_path / "file.safetensors"
    save_file(tensors, path, {DIGESTS: digests(tensors)})
    assert mapped(path)["a"].equal(tensors["a"])
    content = path.read_bytes()
    for old, new in ((b'"shape":[2,3]', b'"shape":[3,2]'), (b'"dtype":"I64"', b'"dtype":"F64"')):
        assert old in content
        path.write_bytes(content.replace(old, new))
        with pytest.raises(Damaged, match=r"file\.safetensors: its digests are other ones"):
            mapped(path)


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_flip_in_a_file_goes_unseen(every: bool, tmp_path: Path) -> None:
    """Of the file's bits each alone, and 10,000 pairs; or some of them."""
    tensors = {"ids": torch.tensor([3, 7], dtype=torch.uint8), "ids.ends": torch.tensor([1, 2])}
    path, draw = tmp_path / "file.safetensors", random.Random(0)
    save_file(tensors, path, {DIGESTS: digests(tensors)})
    content = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    bits = range(8 * len(content))
    pairs = [draw.sample(bits, 2) for _ in range(10_000 if every else 200)]
    for flips in [*([bit] for bit in bits[:: 1 if every else 17]), *pairs]:
        path.write_bytes(bytes(flipped(content, *flips).numpy()))
        with pytest.raises(Damaged):
            mapped(path)


def test_a_file_of_an_earlier_ftlab_is_made_again_and_says_so(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "old", {"crc32": "1"})
    with pytest.raises(Damaged, match="it has no digests"):
        mapped(tmp_path / "old")
    with pytest.raises(FileNotFoundError):
        mapped(tmp_path / "none")
