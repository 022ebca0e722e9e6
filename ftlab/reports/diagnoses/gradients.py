"""Gradients that vanish on their way back through the blocks, or explode."""

from __future__ import annotations

import math
from typing import ClassVar

from ftlab.reports.diagnoses.base import (
    Diagnosis,
    Finding,
    RunHistory,
    StudyHistory,
    seeds_of,
)
from ftlab.wording import listed

BLOCK = "train/grad_norm/"
VANISHED = 1e-4
"""Share of the largest block's norm that is left where each of 13 blocks passes less than half."""
EXPLODED = 100.0
"""A logged norm after the first epoch, in units of that epoch's largest."""


class Gradients(Diagnosis):
    """Some blocks get no signal, or all get too much."""

    title: ClassVar[str] = "Vanishing or exploding gradients"
    rule: ClassVar[str] = (
        "In the last epoch a block's gradient norm is below 1/10,000 of the largest block's, which "
        "is left where each of 13 blocks hands on less than half; or the norm of all gradients "
        "(before clipping) is no number, or after the first epoch more than a hundred times that "
        "epoch's largest, when the new head made them largest.")

    def find(self, observed: StudyHistory) -> list[Finding]:
        findings = []
        for cell in observed.cells:
            faint = [run for run in cell.finished if _faint(run)]
            if faint:
                names = dict.fromkeys(name for run in faint for name in _faint(run))
                least = min(run.metrics[BLOCK + name] for run in faint for name in _faint(run))
                most = max(value for run in faint for value in _blocks(run).values())
                findings.append(Finding(
                    "warning", cell.key.title, seeds_of(faint),
                    f"gradient norm {least:.2g} in {listed(list(names))}, {most:.2g} in the block "
                    "with the largest",
                    "a higher rate for these blocks (DiscriminativeLR), precision 32-true or "
                    "bf16-mixed, normalisation before what was added"))
            wild = [run for run in cell.runs if _burst(run)]
            if wild:
                findings.append(Finding(
                    "warning", cell.key.title, seeds_of(wild), listed([_burst(run) for run in wild]),
                    "gradient_clip of the trainer, a lower learning rate, a longer warm-up"))
        return findings


def _blocks(run: RunHistory) -> dict[str, float]:
    return {name.removeprefix(BLOCK): value for name, value in run.metrics.items()
            if name.startswith(BLOCK) and math.isfinite(value)}


def _faint(run: RunHistory) -> list[str]:
    norms = _blocks(run)
    largest = max(norms.values(), default=0.0)
    return [name for name, norm in norms.items() if norm < VANISHED * largest]


def _burst(run: RunHistory) -> str:
    """Describe gradients that burst; empty where none did."""
    norms = run.steps("train/grad_norm")
    broken = [step for step, norm in norms if not math.isfinite(norm)]
    if broken:
        return f"no finite gradient norm at step {broken[0]}"
    ends = run.steps("train/epoch_loss")
    if not ends or not norms:
        return ""
    first = max((norm for step, norm in norms if step <= ends[0][0]), default=math.inf)
    step, most = max(norms, key=lambda pair: pair[1])
    if most <= EXPLODED * first:
        return ""
    blocks = _blocks(run)
    where = f", in the last epoch largest in {max(blocks, key=lambda n: blocks[n])}" if blocks else ""
    return f"gradient norm {most:.3g} at step {step}, at most {first:.3g} in the first epoch{where}"
