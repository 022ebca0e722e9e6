"""Raw examples from a table, a folder of class folders, a package or a hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ftlab.backbones.source import resolve_path
from ftlab.data import hub
from ftlab.data.examples import Examples, SplitName
from ftlab.data.faults import gathered
from ftlab.data.folder_files import check_files
from ftlab.data.named_files import named_file
from ftlab.data.tables import EXTENSIONS, Column, all_columns, read_table
from ftlab.data.utf8 import Cleaner, note_replaced, read_decoded
from ftlab.errors import InputError
from ftlab.tasks.class_names import is_blank, is_missing
from ftlab.tasks.texts import text_of

Modality = Literal["text", "image"]

_FILES: dict[Modality, tuple[str, ...]] = {
    "text": (".txt", ".text", ".md", ""),
    "image": (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"),
}


def read(source: str, split: SplitName, modality: Modality, column: Column,
         label: Column, pair: Column | None = None,
         called: tuple[str, str] = ("text", "label")) -> tuple[Examples, list[str]]:
    """All examples of a source, and notes on them for users.

    Texts come as strings, pairs of them as tuples, images as a `Path` or as the file's bytes. Ids are the path from the
    folder, or `<file stem>:<row>` with rows from 1.

    Args:
        source: a table or a folder as `ftlab.backbones.source.resolve_path` finds it, or
            `hf:NAME[:CONFIG[:SPLIT]]`.
        split: which split it is wanted for; chooses within a hub's data set.
        modality: what the column holds.
        column: the text or image; not needed for a folder.
        label: the label; not needed for a folder, whose folders are the labels.
        pair: the second text, where an example has two.
        called: the data module's arguments that name the text's column and the label's.

    Raises:
        InputError: with the place and the mend.
    """
    columns = (column, label) if pair is None else (column, pair, label)
    if source.startswith(hub.PREFIX):
        stem, rows = hub.read_hub(source, split, columns)
        base, replaced = Path(), 0
    else:
        path = resolve_path(source)
        if path.is_dir():
            _refuse_pairs(pair, source)
            return _read_folder(path, modality, source)
        stem, base = path.stem, path.parent
        rows, replaced = read_table(path, columns)
    ids = [f"{stem}:{number}" for number in range(1, len(rows) + 1)]
    labels = [_label(row[-1], f"{source}, row {number}", called[1])
              for number, row in enumerate(rows, 1)]
    inputs = _inputs(rows, modality, base, source, called[0])
    return Examples(ids, inputs, labels), note_replaced(replaced, len(rows), "rows", source)


def read_new(source: str, modality: Modality, column: Column, label: Column,
             pair: Column | None = None, called: str = "text",
             split: SplitName = "test") -> Examples:
    """All examples of a source to predict, each with what the source says of it.

    A label is None where its cell is empty, where the table has no such column, and of files that
    lie in no class folder. A file of the modality is one example.

    Args:
        source: as in `read`, or a file.
        modality: what the column holds.
        column: the text or image.
        label: the label, if there is one.
        pair: the second text, where an example has two.
        called: the data module's argument that names the text's column.
        split: chooses within a hub's data set.

    Raises:
        InputError: with the place and the mend.
    """
    columns = (column, label) if pair is None else (column, pair, label)
    if source.startswith(hub.PREFIX):
        stem, rows = hub.read_hub(source, split, columns, (label,))
        base, replaced = Path(), 0
    else:
        path = resolve_path(source)
        if path.is_dir() or path.suffix.lower() in _FILES[modality]:
            _refuse_pairs(pair, source)
            return _new_files(path, modality, source)
        stem, base = path.stem, path.parent
        rows, replaced = read_table(path, columns, (label,))
    return Examples([f"{stem}:{number}" for number in range(1, len(rows) + 1)],
                    _inputs(rows, modality, base, source, called),
                    [None if is_blank(row[-1]) else row[-1] for row in rows],
                    columns=columns_of(source, isinstance(column, int), split),
                    notes=note_replaced(replaced, len(rows), "rows", source))


def read_inputs(source: str, split: SplitName, modality: Modality, column: Column,
                label: Column | None) -> Examples:
    """All examples of a source of which nothing is learned but the inputs.

    Labels are kept for strata where they can be classes: each of two examples at least.

    Args:
        source: as in `read_new`.
        split: likewise.
        modality: likewise.
        column: likewise.
        label: the column of classes, if there is one; None for no strata in any case.
    """
    nothing: Column = "label" if isinstance(column, str) else column
    examples = read_new(source, modality, column, nothing if label is None else label, split=split)
    counts = Counter(map(str, examples.labels))
    kept = label is not None and min(counts.values(), default=0) > 1
    return Examples(examples.ids, examples.inputs, examples.labels if kept else [None] * len(examples),
                    notes=examples.notes)


def columns_of(source: str, by_number: bool, split: SplitName = "test") -> dict[str, list[Any]]:
    """Every column of a table or of a hub's split, for `Examples.columns`."""
    if source.startswith(hub.PREFIX):
        return hub.all_columns(source, split)
    return all_columns(resolve_path(source), by_number)


def _new_files(path: Path, modality: Modality, source: str) -> Examples:
    """A file, or the files of a folder and of its folders, which are classes; others have none."""
    top = path if path.is_dir() else path.parent
    files, skipped = ([path], 0) if path.is_file() else _suitable([path, *_folders(path)], modality)
    if not files:
        raise InputError(f"{path} has no {modality} files", "name a folder or a table that has some")
    check_files(files, path)
    inputs: list[Any] = list(files)
    notes = _note_skipped(skipped, source, modality)
    if modality == "text":
        inputs, replaced = _read_texts(files, str(path))
        notes += replaced
    return Examples([file.relative_to(top).as_posix() for file in files], inputs,
                    [None if file.parent == top else file.parent.name for file in files],
                    columns={"path": list(map(str, files))}, notes=notes)


def _suitable(folders: Sequence[Path], modality: Modality) -> tuple[list[Path], int]:
    """The folders' visible files of a modality, and how many others there are."""
    visible = [path for folder in folders for path in sorted(folder.iterdir())
               if path.is_file() and not path.name.startswith(".")]
    files = [path for path in visible if path.suffix.lower() in _FILES[modality]]
    return files, len(visible) - len(files)


def _note_skipped(skipped: int, source: str, modality: Modality) -> list[str]:
    return [f"{skipped} files in {source} are no {modality} files; skipped"] if skipped else []


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir()
                  if path.is_dir() and not path.name.startswith((".", "__")))


def own_splits(source: str) -> Sequence[SplitName]:
    """The splits that a hub's data set names itself; nothing for other sources."""
    return hub.named_splits(source) if source.startswith(hub.PREFIX) else ()


def _read_folder(folder: Path, modality: Modality,
                 source: str) -> tuple[Examples, list[str]]:
    classes = _folders(folder)
    if not classes:
        raise InputError(f"{folder} has no class folders",
                         "put the files of each class into a folder named after it")
    for directory in classes:
        if not _suitable([directory], modality)[0]:
            nested = any(path.is_dir() for path in directory.iterdir())
            raise InputError(f"{directory} has no {modality} files",
                             f"name {directory} itself as the source" if nested
                             else "remove the folder or add files")
    files, skipped = _suitable(classes, modality)
    notes = _note_skipped(skipped, source, modality)
    check_files(files, folder)
    ids = [path.relative_to(folder).as_posix() for path in files]
    labels = [path.parent.name for path in files]
    if modality == "image":
        return Examples(ids, list(files), labels), notes
    texts, replaced = _read_texts(files, source)
    return Examples(ids, texts, labels), notes + replaced


def _read_texts(files: Sequence[Path], source: str) -> tuple[list[str], list[str]]:
    """The text of each file, and a note of a stray byte that was replaced."""
    cleaner = Cleaner()
    texts = [text_of(cleaner(read_decoded(path), path), str(path)) for path in files]
    replaced = cleaner.replaced("texts", source)
    return texts, note_replaced(replaced, len(texts), "texts", source)


def _refuse_pairs(pair: Column | None, source: str) -> None:
    if pair is not None:
        raise InputError(f"{source}: files of texts have no second text, which text_pair "
                         f"{pair!r} names", f"give a table ({', '.join(EXTENSIONS)})")


def _inputs(rows: Sequence[tuple[Any, ...]], modality: Modality, base: Path,
            source: str, called: str) -> list[Any]:
    """The cells of each row but its label, which is last."""
    return gathered("rows", lambda row, number: _input(row[:-1], modality, base,
                                                       f"{source}, row {number}", called),
                    rows, range(1, len(rows) + 1))


def _input(cells: tuple[Any, ...], modality: Modality, base: Path, place: str,
           called: str) -> Any:
    """Make an example's input of its cells: an image, a text, or two texts."""
    if modality == "image":
        return _image(cells[0], base, place)
    first = text_of(cells[0], place, called, called)
    return (first if len(cells) == 1 else
            (first, text_of(cells[1], place, "second text", "text_pair")))


def _label(value: Any, place: str, called: str) -> Any:
    if is_blank(value):
        raise InputError(f"{place}: the {called} is missing", "fill it in or remove the example")
    return value


def _image(cell: Any, base: Path, place: str) -> Path | bytes:
    """A path from the table's folder, or an encoded image as `datasets` stores it."""
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return cell
    if not isinstance(cell, str) or not cell:
        what = "a missing value" if is_missing(cell) else type(cell).__name__
        raise InputError(f"{place}: {what} instead of an image's path",
                         f"name the image's column with image: ({', '.join(EXTENSIONS)})")
    return named_file(cell, base, place, "image")
