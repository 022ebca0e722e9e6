"""The lines that load an exported model without ftlab, put together as the card shows them.

A card's code defines `compute(**inputs)`, the network's raw outputs for tensors, and mostly
`predict(examples)`, from raw examples to what the run's predictions hold. The same lines are
executed by `ftlab.exports.verify` before an export counts, and by MLflow, whose registered models
predict without ftlab by them, also where transformers has no pipeline (heads on pooled features,
torchvision, timm).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftlab.backbones.export_code import CodeLines, PlainExamples
from ftlab.tasks.base import Task


@dataclass
class LoadingCode:
    """Python code in the order in which it stands.

    Attributes:
        imports: lines; sorted and made unique when they are shown.
        network: defines `compute`.
        examples: defines `prepare` and `predict`; empty where there is none.
        column: of a table that holds what `predict` takes.
        gives_scores: whether `predict` returns predictions and scores, not predictions alone.
        score_names: of the columns of scores.
        packages: what has to be installed.
    """

    imports: set[str] = field(default_factory=lambda: {"import torch"})
    network: str = ""
    examples: str = ""
    column: str = ""
    gives_scores: bool = False
    score_names: list[str] = field(default_factory=list)
    packages: set[str] = field(default_factory=lambda: {"torch", "safetensors"})

    def add(self, lines: CodeLines) -> None:
        """Take over the imports and packages of lines."""
        self.imports |= set(lines.imports)
        self.packages |= set(lines.packages)

    def add_examples(self, task: Task, examples: PlainExamples | None) -> Sequence[str]:
        """Add what leads from raw examples to predictions, where the data module exports it.

        Returns:
            Notes for users of the lines.
        """
        if examples is None:
            return ()
        outputs = task.export_code()
        parts = [*([] if outputs is None else [outputs.lines]), examples.lines]
        for lines in parts:
            self.add(lines)
        self.examples = "\n\n".join(lines.code.strip() for lines in parts)
        self.column = examples.column
        if outputs is not None and outputs.scores:
            self.gives_scores = True
            # a score for each name, unless an example has several predictions
            self.score_names = list(task.names) if task.output_type == "vector" else []
        return examples.notes

    @property
    def body(self) -> str:
        """The lines that read `folder`."""
        return "\n\n".join(part for part in (self.network, self.examples) if part)

    @property
    def code(self) -> str:
        """The whole of it."""
        where = 'folder = "."  # where this file lies'
        return "\n\n".join([import_lines(self.imports), where, self.body]) + "\n"

    def run(self, folder: str) -> Mapping[str, Any]:
        """Execute it for a folder and return what it defines."""
        return executed(self.imports, self.body, {"folder": folder})


def executed(imports: Iterable[str], body: str, names: dict[str, Any]) -> dict[str, Any]:
    """Execute lines with `names` and return what they define."""
    code = f"{import_lines(imports)}\n\n{body}\n"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries' about each other
        exec(compile(code, "README.md", "exec"), names)  # noqa: S102  ours, literals by repr
    return names


def import_lines(imports: Iterable[str]) -> str:
    """Import lines, the standard library's `import x` first, each name of a module once."""
    plain = sorted({line for line in imports if line.startswith("import ")})
    froms: dict[str, set[str]] = {}
    for line in imports:
        if line.startswith("from "):
            module, _, name = line.removeprefix("from ").partition(" import ")
            froms.setdefault(module, set()).add(name)
    return "\n".join([*plain, *(f"from {module} import {', '.join(sorted(names))}"
                                for module, names in sorted(froms.items()))])
