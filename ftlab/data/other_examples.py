"""Examples of another source in the test split's place, with labels or without."""

from __future__ import annotations

from ftlab.data.base import DataModule
from ftlab.data.utf8 import reading


def put(data: DataModule, source: str) -> bool:
    """Put a source's examples in the test split's place.

    What was learned from train (classes, means, tags) stays. Examples without labels get one of
    train's, the shortest: a batch wants targets, which no prediction reads.

    Args:
        data: loaded, and not yet connected.
        source: as the module's `test`, or the same without labels.

    Returns:
        Whether the examples bring labels.

    Raises:
        InputError: the source is no such thing; says why.
    """
    with reading(data.encoding):
        examples = data.unlabelled(source)
        labelled = examples is None
        if examples is None:
            examples = data._renamed(data.read("test", source), source)
    if not labelled:
        stand_in = min(data.splits["train"].labels, key=lambda label: len(str(label)))
        examples.labels = [stand_in if label is None else label for label in examples.labels]
    examples.targets = [data.task.encode(label, f"{source}, {place}") for place, label
                        in zip(examples.ids, examples.labels, strict=True)]
    data.prepare("test", examples)
    data.splits["test"] = examples
    return labelled
