"""Sentences of words with a tag each: CoNLL columns, and tables with lists of words and tags."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlab.data.utf8 import Cleaner, note_replaced, read_decoded
from ftlab.errors import InputError
from ftlab.tasks.class_names import class_name, is_blank, is_missing
from ftlab.tasks.texts import text_of

_DOCUMENT = "-DOCSTART-"


@dataclass(frozen=True)
class Sentence:
    """Words and their tags.

    Attributes:
        name: stable, `<file stem>:<line of the first word>` or `<file stem>:<row>`.
        words, tags: equally many, or no tags.
        places: of each word, for messages.
    """

    name: str
    words: list[str]
    tags: list[str]
    places: Sequence[str]


def read_conll(path: Path, word: int, tag: int,
               optional: bool = False) -> tuple[list[Sentence], list[str]]:
    """The sentences of a file with a word a line and a blank line between sentences.

    Columns are separated by tabs where a line has one, else by spaces. Skipped are `-DOCSTART-`
    lines (CoNLL 2003, https://aclanthology.org/W03-0419), and as comments (CoNLL-U,
    https://universaldependencies.org/format.html) lines that begin with `#` and have another
    number of columns than the first line that does not.

    Args:
        path: of the file.
        word: number of the word's column; negative numbers count from the last.
        tag: number of the tag's column.
        optional: whether sentences may have no tags: no such column, or nothing in it.

    Returns:
        The sentences, and notes for users: comments skipped, a stray byte replaced that is
        not UTF-8.

    Raises:
        InputError: with the line; a lacking column, another number of columns than before; or
            bytes of another encoding.
    """
    text = re.sub("\r\n?", "\n", read_decoded(path))
    table = [_columns(line) for line in text.split("\n")]
    width = next((len(columns) for columns in table if not _between(columns)
                  and not columns[0].startswith("#")), 0)
    sentences: list[Sentence] = []
    rows: list[tuple[int, str, str]] = []
    comments = 0
    cleaner = Cleaner()
    for number, columns in enumerate([*table, [""]], 1):
        if _between(columns):
            if rows:
                sentences.append(_sentence(path, rows))
            rows = []
            continue
        if columns[0].startswith("#") and len(columns) != (width or len(columns)):
            comments += 1
            continue
        width = width or len(columns)
        lacking = optional and _lacks(columns, word, tag)
        _check(columns, width, word, None if lacking else tag, f"{path.name}, line {number}")
        rows.append((number, *cleaner((columns[word], "" if lacking else columns[tag]))))
    if not sentences:
        raise InputError(f"{path} has no sentences", "give a file with a word and its tag a line")
    notes = note_replaced(cleaner.replaced("words", path), cleaner.rows, "words", path.name)
    if comments:
        notes.append(f"{comments} lines in {path.name} begin with # and have other columns than "
                     "the rest; skipped as comments")
    return sentences, notes


def _between(columns: Sequence[str]) -> bool:
    """Return whether a line is blank or begins a document, and so ends a sentence."""
    return not any(map(str.strip, columns)) or columns[0] == _DOCUMENT


def _columns(line: str) -> list[str]:
    if "\t" in line:
        return line.split("\t")
    return re.split(" +", line.strip(" "))  # str.split() would part words at no-break spaces


def _lacks(columns: Sequence[str], word: int, tag: int) -> bool:
    """Return whether a line has no tag."""
    width = len(columns)
    return (not -width <= tag < width or word % width == tag % width or not columns[tag].strip())


def _check(columns: Sequence[str], width: int, word: int, tag: int | None, place: str) -> None:
    if len(columns) != width:
        raise InputError(f"{place}: {len(columns)} columns instead of {width}",
                         "mend the line; sentences are separated by a blank line")
    for name, column in (("word", word), ("tag", tag)):
        if column is None:
            continue
        if not -width <= column < width:
            raise InputError(f"{place}: no column {column} for the {name}",
                             f"the file's columns are 0 to {width - 1}")
        if not columns[column].strip():
            raise InputError(f"{place}: the {name} is empty", "mend the line")
    if tag is not None and word % width == tag % width:
        raise InputError(f"{place}: word and tag are the same column {word % width} of {width}",
                         "name other columns with word: and tag:")


def _sentence(path: Path, rows: Sequence[tuple[int, str, str]]) -> Sentence:
    tagged = any(tag for _, _, tag in rows)
    for number, word, tag in rows:
        if tagged and not tag:
            raise InputError(f"{path.name}, line {number}: {word!r} has no tag, and other words of "
                             "its sentence have", "give it one, or take theirs away")
    return Sentence(f"{path.stem}:{rows[0][0]}", [word for _, word, _ in rows],
                    [tag for _, _, tag in rows] if tagged else [],
                    [f"{path.name}, line {number}" for number, _, _ in rows])


def from_rows(stem: str, source: str, rows: Sequence[tuple[Any, Any]],
              optional: bool = False) -> list[Sentence]:
    """The sentences of a table whose cells are lists of words and of tags.

    Args:
        stem: what ids begin with.
        source: for messages.
        rows: words and tags of each sentence.
        optional: whether a sentence may have no tags.

    Raises:
        InputError: with the row; a cell that is not a list, a word that is not a text, or lists of
            unequal length.
    """
    sentences = []
    for number, (words, tags) in enumerate(rows, 1):
        place = f"{source}, row {number}"
        bare = optional and (tags == [] or is_blank(tags))
        for name, cell in (("words", words), ("tags", words if bare else tags)):
            if is_missing(cell):
                raise InputError(f"{place}: the {name} are missing",
                                 "fill them in or remove the sentence")
            if not isinstance(cell, list):
                raise InputError(f"{place}: the {name} are not a list of texts",
                                 'write {"tokens": ["EU", ...], "tags": ["B-ORG", ...]}')
        tags = [] if bare else tags
        if not words or (not bare and len(words) != len(tags)):
            raise InputError(f"{place}: {len(words)} words and {len(tags)} tags",
                             "give every word one tag, and remove empty sentences")
        places = [f"{place}, word {i}" for i in range(1, len(words) + 1)]
        sentences.append(Sentence(
            f"{stem}:{number}",
            [text_of(word, at, "word") for word, at in zip(words, places, strict=True)],
            [class_name(tag, f"{at}: the tag") for tag, at in zip(tags, places, strict=not bare)],
            places))
    return sentences
