"""Paths in the cells of a table."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from ftlab.data.audio_classification import AudioClassification
from ftlab.data.image import ImageClassification
from ftlab.data.splits import Split
from ftlab.errors import InputError


def picture(path: Path) -> None:
    Image.new("RGB", (8, 8), (len(path.name), 90, 200)).save(path)


def sound(path: Path) -> None:
    soundfile.write(path, np.linspace(0, 0.5, 400 + len(path.name)), 8000)


KINDS = {"image": (ImageClassification, picture, ".png"),
         "audio": (AudioClassification, sound, ".wav")}


@pytest.fixture(params=KINDS)
def table(request: pytest.FixtureRequest, tmp_path: Path,
          monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], list[Path]]:
    """Reads a table that names files of a folder `my files`, and gives what was found."""
    module, write, ending = KINDS[request.param]
    (tmp_path / "my files").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("ä ö", "b", "c", "d", "~e", "f"):
        write(tmp_path / "my files" / f"{name}{ending}")

    def make(cells: list[str]) -> list[Path]:
        rows = [f'"{cell.format(end=ending, here=tmp_path)}",{"xy"[i % 2]}'
                for i, cell in enumerate(cells)]
        path = tmp_path / "table.csv"
        path.write_text(f"{request.param},label\n" + "\n".join(rows) + "\n", encoding="utf-8")
        examples = module(str(path), split=Split(validation=0.2, test=0.2)).read("train", str(path))
        return [found.relative_to(tmp_path) for found in examples.inputs]

    return make


def test_paths__as_people_write_them(table: Callable[[list[str]], list[Path]]) -> None:
    found = table(["my files/ä ö{end}", "{here}/my files/b{end}", "~/my files/c{end}",
                   "my files\\d{end}", "my files/~e{end}", ".\\my files\\f{end}"])
    assert [path.parts[-2:] for path in found] == [
        ("my files", f"{name}{found[0].suffix}") for name in ("ä ö", "b", "c", "d", "~e", "f")]


def test_cells_that_are_no_paths__are_refused_together(
    table: Callable[[list[str]], list[Path]]
) -> None:
    text = "a text of another column " * 40
    with pytest.raises(InputError, match="3 rows cannot be used") as error:
        table(["my files/b{end}", "~nobody/x{end}", text, "gone{end}"])
    assert "row 2: no such" in error.value.what and "~nobody" in error.value.what
    assert "row 3: no such" in error.value.what and len(error.value.what) < 1200
    assert "row 4: no such" in error.value.what
