"""Examples of another source in the test split's place, with labels or without."""

from __future__ import annotations

from typing import Any

from ftlab.data.base import DataModule
from ftlab.data.examples import Examples
from ftlab.data.utf8 import reading
from ftlab.errors import InputError


def put(data: DataModule, source: str) -> list[bool]:
    """Put a source's examples in the test split's place.

    What was learned from train (classes, means, tags) stays. Examples without labels get others in
    their place: a batch wants targets, which no prediction reads.

    Args:
        data: loaded, and not yet connected.
        source: as the module's `test`, or the same without labels.

    Returns:
        Of each example, whether it brings a label.

    Raises:
        InputError: the source is not readable as such; says why.
    """
    with reading(data.encoding):
        examples = data.read_new(source)
    data.note(*examples.notes)
    if not len(examples):
        raise InputError(f"{source} has no examples", "give a file or folder with some")
    labelled = [label is not None for label in examples.labels]
    places = [place for place, is_labelled in enumerate(labelled) if is_labelled]
    bare = [place for place, is_labelled in enumerate(labelled) if not is_labelled]
    targets = {**dict(zip(places, _targets(data, examples.take(places), source), strict=True)),
               **dict(zip(bare, _stand_ins(data, examples.take(bare), source), strict=True))}
    examples.labels = [targets[place][0] for place in range(len(examples))]
    examples.targets = [targets[place][1] for place in range(len(examples))]
    data.prepare("test", examples)
    data.splits["test"] = examples
    return labelled


def _targets(data: DataModule, examples: Examples, source: str) -> list[tuple[Any, Any]]:
    """Labels that are there, and what the task makes of them."""
    try:
        examples = data._renamed(examples, source)
        return [(label, data.task.encode(label, f"{source}, {place}"))
                for place, label in zip(examples.ids, examples.labels, strict=True)]
    except InputError as error:
        raise InputError(error.what, f"{error.mend}; or leave its label empty, to predict without"
                         ) from error


def _stand_ins(data: DataModule, examples: Examples, source: str) -> list[tuple[Any, Any]]:
    return [(label, data.task.encode(label, source)) for label in data.stand_ins(examples)]
