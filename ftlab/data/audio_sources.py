"""Recordings with what was said or what they are, and who speaks: from a table or a folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ftlab.backbones.source import resolve_path
from ftlab.data import hub
from ftlab.data.audio_decode import EXTENSIONS
from ftlab.data.examples import SPLITS, Examples, SplitName
from ftlab.data.faults import gathered
from ftlab.data.folder_files import check_files
from ftlab.data.named_files import named_file
from ftlab.data.sources import columns_of
from ftlab.data.tables import Column, read_table
from ftlab.data.utf8 import note_replaced, read_whole
from ftlab.errors import InputError
from ftlab.tasks.class_names import class_name, is_blank, is_missing
from ftlab.tasks.spelling import key
from ftlab.tasks.texts import text_of

_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Speakers:
    """The speakers of validation and of test, who are in no other split.

    A split for which none is named is carved from the training examples, or read from a source of
    its own.

    Args:
        validation: names of speakers.
        test: names of speakers.
    """

    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.validation and not self.test:
            raise ValueError("speakers must name some for validation, for test or for both")
        if both := set(self.validation) & set(self.test):
            raise ValueError(f"speakers are in validation and in test: {', '.join(sorted(both))}")

    def check_sources(self, sources: Mapping[SplitName, str | None]) -> None:
        """Refuse speakers for a split that has a source of its own.

        Raises:
            ValueError: with the split.
        """
        for split in self.splits()[1:]:
            if sources[split] is not None:
                raise ValueError(f"{split} is given twice, as a source and in speakers")

    def splits(self) -> tuple[SplitName, ...]:
        """The splits that the training source brings."""
        named: dict[SplitName, tuple[str, ...]] = {"validation": self.validation,
                                                   "test": self.test}
        return ("train", *(name for name, speakers in named.items() if speakers))

    def choose(self, examples: Examples, speakers: Sequence[str], split: SplitName,
               source: str) -> Examples:
        """The examples of one split.

        Raises:
            InputError: a named speaker is not there, or nobody is left to train on.
        """
        if split not in SPLITS:  # all of whoever speaks in it
            return examples
        names = list(map(key, speakers))
        for name in (*self.validation, *self.test):
            if key(name) not in names:
                some = ", ".join(sorted(set(speakers))[:20])
                raise InputError(f"{source} has no speaker {name!r}", f"it has: {some}")
        held_out = set(map(key, (*self.validation, *self.test)))
        wanted = set(names) - held_out if split == "train" else set(map(key, getattr(self, split)))
        if not wanted:
            raise InputError(f"{source}: speakers leaves nobody to train on",
                             "name fewer speakers for validation and test")
        return examples.take([i for i, name in enumerate(names) if name in wanted])


@dataclass(frozen=True)
class AudioSource:
    """How a source's recordings are described.

    Attributes:
        audio: the column of the recording's path.
        label: the column, or the pattern's field, of the transcript or class.
        speaker: the column or field of the speaker; None where it is not asked for.
        pattern: of the names of a folder's files, as `{label}_{speaker}_{index}`.
        bare: what a folder without pattern has: a `.txt` file beside each recording, or a folder
            for each class.
    """

    audio: Column
    label: Column
    speaker: Column | None
    pattern: str | None
    bare: Literal["transcripts", "classes"]

    def read(self, source: str, split: SplitName) -> tuple[Examples, list[str], list[str]]:
        """All examples of a source, the speaker of each (if asked for), and notes.

        Ids are the path from the folder, or `<file stem>:<row>` with rows from 1.

        Raises:
            InputError: with the place and the mend.
        """
        if not source.startswith(hub.PREFIX) and (path := resolve_path(source)).is_dir():
            files, notes = _files(path, source)
            if self.pattern is not None:
                return (*self._from_names(path, files, self.pattern), notes)
            if self.speaker is not None:
                raise InputError(f"{source}: a folder says who speaks by its files' names alone",
                                 "give pattern, for instance '{label}_{speaker}_{index}'")
            return self._bare(path, files), [], notes
        return self._table(source, split)

    def read_new(self, source: str, split: SplitName = "test") -> Examples:
        """All recordings of a source to predict, whoever speaks, with what it says of each.

        A label is None where its cell is empty, where the table has no such column, and of a file
        or folder that says none.

        Raises:
            InputError: with the place and the mend.
        """
        if not source.startswith(hub.PREFIX):
            path = resolve_path(source)
            if path.is_dir() or path.suffix.lower() in EXTENSIONS:
                return self._new_files(path, source)
        examples, _, notes = replace(self, speaker=None)._table(source, split, optional=True)
        examples.notes = notes
        examples.columns = columns_of(source, isinstance(self.audio, int), split)
        return examples

    def _new_files(self, path: Path, source: str) -> Examples:
        files, notes = _files(path, source) if path.is_dir() else ([path], [])
        if path.is_dir() and self._says(path, files):
            examples, _, _ = replace(self, speaker=None).read(source, "test")
        else:
            ids = _ids(path, files) if path.is_dir() else [path.name]
            examples = Examples(ids, list(files), [None] * len(files))
        examples.columns, examples.notes = {"path": list(map(str, files))}, notes
        return examples

    def _says(self, folder: Path, files: Sequence[Path]) -> bool:
        """Return whether a folder gives a label for any of its files."""
        if self.pattern is not None:
            return any(_expression(self.pattern).fullmatch(path.stem) for path in files)
        if self.bare == "classes":
            return any(path.parent != folder for path in files)
        return any(path.with_suffix(".txt").is_file() for path in files)

    def _table(self, source: str, split: SplitName,
               optional: bool = False) -> tuple[Examples, list[str], list[str]]:
        columns = [self.audio, self.label, *([] if self.speaker is None else [self.speaker])]
        lacking = [self.label] if optional else []
        if source.startswith(hub.PREFIX):
            stem, rows = hub.read_hub(source, split, columns, lacking)
            base, replaced = Path(), 0
        else:
            path = resolve_path(source)
            stem, base = path.stem, path.parent
            rows, replaced = read_table(path, columns, lacking)
        placed = [(row, f"{source}, row {number}") for number, row in enumerate(rows, 1)]
        labels = [None if optional and is_blank(row[1]) else _present(row[1], place, self.called)
                  for row, place in placed]
        return (Examples([f"{stem}:{number}" for number in range(1, len(rows) + 1)],
                         gathered("rows", lambda row: _audio(row[0][0], base, row[1]), placed),
                         labels),
                [class_name(row[2], f"{place}: the speaker") for row, place in placed
                 if len(row) > 2],
                note_replaced(replaced, len(rows), "rows", source))

    @property
    def called(self) -> str:
        """The label, in messages."""
        return "transcript" if self.bare == "transcripts" else "label"

    def _from_names(self, folder: Path, files: Sequence[Path],
                    pattern: str) -> tuple[Examples, list[str]]:
        expression = _expression(pattern)
        for field in (self.label, self.speaker):
            if field is not None and field not in expression.groupindex:
                raise InputError(f"pattern {pattern!r} has no field {{{field}}}",
                                 "name the field in the pattern, or the pattern's field instead")
        fields: list[Mapping[str, str]] = []
        for path in files:
            match = expression.fullmatch(path.stem)
            if match is None:
                raise InputError(f"{path}: its name does not fit the pattern {pattern!r}",
                                 "mend the pattern, or rename or remove the file")
            fields.append(match.groupdict())
        speakers = [] if self.speaker is None else [fields_of_row[str(self.speaker)] for fields_of_row in fields]
        return Examples(_ids(folder, files), list(files),
                        [fields_of_row[str(self.label)] for fields_of_row in fields]), speakers

    def _bare(self, folder: Path, files: Sequence[Path]) -> Examples:
        if self.bare == "classes":
            for path in files:
                if path.parent == folder:
                    raise InputError(f"{path} is in no class folder", "put the files of each class "
                                     "into a folder named after it, or give pattern")
            return Examples(_ids(folder, files), list(files), [path.parent.name for path in files])
        return Examples(_ids(folder, files), list(files), [_sidecar(path) for path in files])


def _expression(pattern: str) -> re.Pattern[str]:
    """`{label}_{speaker}` as a regular expression over file names without their ending."""
    names = _FIELD.findall(pattern)
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"pattern {pattern!r} has {{{repeated[0]}}} twice", "give each field once")
    if wrong := [name for name in names if not name.isidentifier()]:
        raise InputError(f"pattern {pattern!r}: {{{wrong[0]}}} is no name of a field",
                         "begin it with a letter, as in {label}_{speaker}_{index}")
    parts = _FIELD.split(pattern)
    return re.compile("".join(f"(?P<{part}>.+?)" if i % 2 else re.escape(part)
                              for i, part in enumerate(parts)))


def _files(folder: Path, source: str) -> tuple[list[Path], list[str]]:
    visible = sorted(path for path in folder.rglob("*") if path.is_file()
                     and not any(part.startswith((".", "__"))
                                 for part in path.relative_to(folder).parts))
    files = [path for path in visible if path.suffix.lower() in EXTENSIONS]
    if not files:
        raise InputError(f"{folder} has no audio files ({', '.join(EXTENSIONS)})",
                         "name a folder or a table of audio files")
    check_files(visible, folder)
    skipped = sum(path.suffix.lower() not in (*EXTENSIONS, ".txt") for path in visible)
    notes = [f"{skipped} files in {source} are no audio files; skipped"] if skipped else []
    return files, notes


def _ids(folder: Path, files: Sequence[Path]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files]


def _sidecar(path: Path) -> str:
    text = path.with_suffix(".txt")
    if not text.is_file():
        raise InputError(f"{path} has no transcript: there is no {text.name} beside it",
                         "add it, give pattern, or name a table instead of a folder")
    return text_of(read_whole(text).strip(), str(text), "transcript")


def _present(value: Any, place: str, called: str) -> Any:
    if is_blank(value):
        raise InputError(f"{place}: the {called} is missing", "fill it in or remove the example")
    return value


def _audio(cell: Any, base: Path, place: str) -> Path | bytes:
    """A path from the table's folder, or encoded sound as `datasets` stores it."""
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return cell
    if not isinstance(cell, str) or not cell:
        what = "a missing value" if is_missing(cell) else type(cell).__name__
        raise InputError(f"{place}: {what} instead of a recording's path",
                         "name the recording's column with audio:")
    return named_file(cell, base, place, "recording")
