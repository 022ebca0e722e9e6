"""The lines between raw examples and a network: a data module's and its task's, put together."""

from __future__ import annotations

from collections.abc import Sequence

from ftlab.backbones.export_code import PlainExamples
from ftlab.data.base import DataModule
from ftlab.exports.loading_code import LoadingCode


def add_examples(loading: LoadingCode, data: DataModule, examples: PlainExamples | None) -> Sequence[str]:
    """Add what leads from raw examples to predictions, where the data module says it.

    Returns:
        What a user has to know besides.
    """
    if examples is None:
        return ()
    outputs = data.task.outside()
    parts = [*([] if outputs is None else [outputs.lines]), examples.lines]
    for lines in parts:
        loading.add(lines)
    loading.examples = "\n\n".join(lines.code.strip() for lines in parts)
    loading.column = examples.column
    if outputs is not None and outputs.scores:
        loading.gives_scores = True
        # a score for each name, unless an example has several predictions
        loading.score_names = list(data.task.names) if data.task.form == "vector" else []
    return examples.notes
