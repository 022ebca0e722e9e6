"""Several labels an example, as files write them: lists of names, or a 0 or 1 for each label."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ftlab.errors import InputError
from ftlab.tasks.class_names import class_name
from ftlab.tasks.spelling import key

Form = Literal["names", "positions", "keys"]
"""Ways in which labels are written.

- `names`: the names of the labels that an example has;
- `positions`: a list with a 0 or 1 for each label, in one order;
- `keys`: a mapping with a 0 or 1 for each label's name.
"""

MEND = ("write lists of names, as [politics, economy], or a 0 or 1 for every label, all of one "
        "length, and name them with the task's labels: [...]")
_SEPARATORS = ("|", ",", ";", "\t", "\n", "/", "+", "&", " ")
_SURE = 5  # of them part labels wherever a part recurs; the others stand in names too
_FLAGS = {"0": False, "1": True, "false": False, "true": True}
_FLAG = r"(?:[01](?:\.0*)?|[Tt]rue|[Ff]alse)"
_PLAIN_FLAGS = re.compile(rf"{_FLAG}(?:\s*[,;\s]\s*{_FLAG})+")
_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
_CALL = re.compile(r"(?:\w+\.)*(?:array|tensor|set|frozenset)\((.*?)(?:,\s*(?:dtype|device)=.*)?\)", re.DOTALL)
_RUN = re.compile(r"[01]{2,}")
_BRACKETS = {"[": "]", "(": ")", "{": "}"}


@dataclass(frozen=True)
class LabelList:
    """One example's raw label, read.

    Attributes:
        names: the parts of a list or text, or a mapping's keys.
        flags: the 0 or 1 of each, where all parts are such; None in other lists.
        keyed: the flags stand under names.
        doubtful: numbers that can be no names: one occurs twice, or is a fraction.
    """

    names: list[str]
    flags: list[bool] | None = None
    keyed: bool = False
    doubtful: bool = False

    def has_form(self, form: Form, width: int) -> bool:
        """Return whether it can be read so, with `width` labels by position."""
        if form == "names":
            return not self.keyed and not self.doubtful
        return (self.flags is not None and self.keyed == (form == "keys")
                and (self.keyed or len(self.flags) == width))


def read_label(label: Any, separator: str, nothing: str | None, where: str) -> LabelList:
    """Read a raw label.

    Args:
        label: a list, tuple or array of names or of 0 and 1; a mapping from names to 0 and 1; or
            a text with names between separators, or that writes one of the others.
        separator: between the names of a text.
        nothing: the text of an example without labels.
        where: for messages.

    Raises:
        InputError: a label that is missing, empty or of another type.
    """
    if hasattr(label, "tolist"):  # of an array or tensor
        label = label.tolist()
    if isinstance(label, str) and label != nothing:
        label = _unwrapped(label, separator, where)
    if _is_map(label):
        label = dict(label)
    if isinstance(label, Mapping):
        return _keyed(label, where)
    if isinstance(label, list | tuple):
        if any(isinstance(part, list | tuple | Mapping) for part in label):
            raise InputError(f"{where}: label {label!r} has a list in a list", MEND)
        return _listed([class_name(part, f"{where}: a label") for part in label], label, where)
    text = class_name(label, where)
    parts = [] if text == nothing else [part.strip() for part in text.split(separator)]
    if "" in parts:
        raise InputError(f"{where}: {label!r} has an empty label in it",
                         f"put one {separator!r} between two labels and none at an end")
    return _listed(parts, parts, where)


def form_of(labels: Sequence[LabelList]) -> tuple[Form, int]:
    """The form of training labels, and how many labels there are by position.

    A label that has another form than the rest is left to be met where its place is known.

    Raises:
        InputError: all are a single 0 or 1, or a row of digits, which may be names or not.
    """
    if sum(label.keyed for label in labels) * 2 > len(labels):
        return "keys", 0
    flagged = [label.flags for label in labels if label.flags is not None and not label.keyed]
    others = sum(label.flags is None and bool(label.names) for label in labels)
    # a 0 or 1 for each label repeats one of them soon, and a list of names none
    repeats = any(label.doubtful and label.flags is not None for label in labels)
    if labels and not flagged and all(_RUN.fullmatch("|".join(label.names)) for label in labels):
        runs = {name for label in labels for name in label.names}
        if len(set(map(len, runs))) == 1 and any(run[0] == "0" for run in runs):
            raise InputError(f"every training label is a row of 0 and 1 such as {min(runs)!r}: a "
                             "code, or a digit for each label", MEND)
    widths = Counter(map(len, flagged))
    vectors = len(flagged) > others if repeats else others == 0 and len(widths) == 1
    if not flagged or not vectors:
        return "names", 0
    [(width, _)] = widths.most_common(1)
    if width < 2:
        raise InputError("every training label is a single 0 or 1: the name of a label, or whether "
                         "the only one is there", "take the task Classification, or give each "
                         "example the names of its labels")
    return "positions", width


def check_separator(labels: Sequence[LabelList], separator: str) -> None:
    """Refuse names where no example has several, and a separator other than the task's parts them.

    Raises:
        InputError: names the other one.
    """
    if any(len(label.names) > 1 for label in labels):
        return
    texts = {name for label in labels for name in label.names}
    for place, mark in enumerate(_SEPARATORS):
        parts = {text: {part.strip() for part in text.split(mark)} for text in texts}
        often = Counter(part for split in parts.values() for part in split)
        inner = {part for split in parts.values() if len(split) > 1 for part in split}
        recurring = [part for part in inner if often[part] > 1]
        if "" not in inner and recurring and (place < _SURE or len(recurring) == len(inner)):
            raise InputError(
                f"no training label has the separator {separator!r} in it, and {mark!r} parts "
                f"{next(text for text in sorted(texts) if mark in text)!r} into labels that "
                "other examples have too",
                f"set the task's separator: {mark!r}; or, if each of them is one label, name all "
                "with labels: [...]")


def _keyed(label: Mapping[Any, Any], where: str) -> LabelList:
    names = [class_name(name, f"{where}: a label") for name in label]
    flags = [_FLAGS.get(key(class_name(flag, f"{where}: the 0 or 1 of {name!r}")))
             for name, flag in label.items()]
    for name, flag, value in zip(names, flags, label.values(), strict=True):
        if flag is None:
            raise InputError(f"{where}: label {name!r} is {value!r}, which is neither 0 nor 1",
                             MEND)
    return LabelList(names, [bool(flag) for flag in flags], keyed=True)


def _listed(parts: Sequence[str], label: Sequence[Any], where: str) -> LabelList:
    names = [part.strip() for part in parts]
    flags = [_FLAGS.get(key(name)) for name in names]
    read = [flag for flag in flags if flag is not None]
    whole = bool(names) and len(read) == len(flags)
    texts = any(isinstance(part, str) for part in label)
    twice = len(set(map(key, names))) < len(names)
    parted = any("." in key(name) for name in names)
    return LabelList(names, read if whole else None,
                     doubtful=(whole and twice) or (not texts and (twice or parted)))


def _is_map(label: Any) -> bool:
    """Return whether it is one of Parquet's maps, which come as pairs."""
    return isinstance(label, list) and bool(label) and all(
        isinstance(pair, tuple) and len(pair) == 2 for pair in label)


def _unwrapped(text: str, separator: str, where: str) -> Any:
    """A list or mapping that a text writes, as `[1, 0]`, `['a', 'b']` or `1,0,1`; else the text."""
    bare = text.strip()
    if call := _CALL.fullmatch(bare):
        bare = call[1].strip() or "[]"
    if separator not in bare and _PLAIN_FLAGS.fullmatch(bare):
        return re.split(r"[,;\s]+", bare)
    if len(bare) < 2 or _BRACKETS.get(bare[0]) != bare[-1]:
        return text
    inner = bare[1:-1].strip()
    if _PLAIN_FLAGS.fullmatch(inner):  # [1 0 1] of NumPy
        return re.split(r"[,;\s]+", inner)
    if bare[0] == "[" and re.search(r"(?:^|\s)\.\.\.(?:\s|,|$)", inner):
        raise InputError(f"{where}: label {text[:40]!r} was cut when it was written: it has ... in it",
                         "write all of it, for instance with .tolist()")
    quoted = _QUOTED.findall(inner)
    if len(quoted) > 1 and not _QUOTED.sub("", inner).strip():  # ['a' 'b'] of NumPy
        return [part[1:-1] for part in quoted]
    for reader in (json.loads, ast.literal_eval):
        try:
            value = reader(bare)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, set):
            return sorted(value, key=str)
        if isinstance(value, list | tuple | Mapping):
            return value
    if bare[0] != "[":
        return text
    return [part.strip() for part in inner.split("," if "," in inner else separator)]
