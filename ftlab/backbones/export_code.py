"""The parts of a run as programs without ftlab read them: data, and lines of Python.

A backbone says how another library builds its network (`PlainNetwork`, `Origin`), a data module how
raw examples become inputs (`PlainExamples`), a task what the outputs mean (`PlainOutputs`). The
lines of an export are theirs, one after another: network, outputs, examples. They may use `torch`
and `folder`, where the export lies, and share these names:

- `model`, and `compute(**inputs)`, its raw outputs as `TaskModel.comparable` has them;
- of a detector `detect(**inputs)`: boxes (M, 4) in pixels of the input, labels from 0 and scores
  (M,) of one image, best first;
- `tell(outputs)`: the predictions of a batch as the task's records have them, or with their scores;
- `predict(examples)`: the same of raw examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from ftlab.backbones.preprocessing import Preprocessing


@dataclass(frozen=True)
class CodeLines:
    """Python code.

    Attributes:
        code: without imports.
        imports: lines `import x` and `from x import y`.
        packages: to be installed, besides torch and safetensors.
    """

    code: str
    imports: Sequence[str] = ()
    packages: Sequence[str] = ()


@dataclass(frozen=True)
class Origin:
    """The network that a backbone starts from.

    Attributes:
        source: a hub id, a local folder or file, or `package:NAME/PATH`.
        revision: of a hub id.
    """

    source: str
    revision: str | None


@dataclass(frozen=True)
class PlainNetwork:
    """A network as a library of its own builds it.

    Attributes:
        library: its name.
        name: of the network there.
        build: defines `model`, with weights at random.
        state: its weights, by `model`'s names.
        call: defines `compute` or `detect`, or both.
        settings: what `config.json` says of it, besides library, name and outputs.
        preprocessing: what `call` takes, where it is not the backbone's own.
    """

    library: str
    name: str
    build: CodeLines
    state: dict[str, Tensor]
    call: str
    settings: dict[str, Any] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None


@dataclass(frozen=True)
class PlainOutputs:
    """The meaning of raw outputs.

    Attributes:
        lines: defines `tell`.
        scores: whether it gives predictions and scores, not predictions alone.
    """

    lines: CodeLines
    scores: bool = False


@dataclass(frozen=True)
class PlainExamples:
    """How raw examples become predictions.

    Attributes:
        lines: defines `predict`.
        takes: what it takes, for people: `texts`, `images`.
        column: of a table that holds them.
        max_length: tokens of a text, where each example is one that is encoded by itself.
        cut_at: tokens of an example, where longer ones are cut.
        cut_from: side that loses them.
        notes: what the lines leave to their user.
    """

    lines: CodeLines
    takes: str
    column: str
    max_length: int | None = None
    cut_at: int | None = None
    cut_from: Literal["left", "right"] = "right"
    notes: Sequence[str] = ()
