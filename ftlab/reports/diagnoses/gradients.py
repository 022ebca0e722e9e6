"""Gradients that vanish on their way back through the blocks, or explode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from ftlab.reports.diagnoses.base import (
    Diagnosis,
    Finding,
    RunHistory,
    StudyHistory,
    seeds_of,
)

NORM, ZEROS, BURST = "train/grad_norm/", "train/grad_zeros/", "train/grad_burst/"
VANISHED = 1e-3
"""Share of a norm that is left behind thirteen blocks that each pass on six tenths."""
NOTHING = 1e-6
"""Share of the head's norm below which even the block next to the output gets nothing."""
SKIPPED = 10
"""One logged step of so many may have been left out."""
EXPLODED = 100.0
"""A norm in units of what was usual before."""


class Gradients(Diagnosis):
    """Some blocks get no signal, or all get too much."""

    title: ClassVar[str] = "Vanishing or exploding gradients"
    rule: ClassVar[str] = (
        "On the way back from the output, in the order in which the backward pass reaches the blocks, "
        "the first whose gradient norm in the last epoch is below a thousandth of that of the block "
        "next to the output, which is left where each of 13 blocks hands on six tenths, or below a "
        "millionth of the head's (what an adapter adds may be of another kind than a head and have "
        "a far smaller gradient, in every block alike); or the first whose norm (before "
        "clipping) was once more than a hundred times its own median until then, and than its median "
        "of the first epoch; or the norm of all gradients is no number, or after the first epoch more "
        "than a hundred times that epoch's largest, when the new head made them largest.")

    def find(self, observed: StudyHistory) -> list[Finding]:
        findings = []
        for cell in observed.cells:
            faint = [run for run in cell.finished if _faint(run)]
            if faint:
                findings.append(Finding(
                    "warning", cell.key.title, seeds_of(faint),
                    _sentences([(_faint(run)[0], -_left(run), _vanished(run)) for run in faint]),
                    "a higher rate for these blocks (DiscriminativeLR), precision 32-true or "
                    "bf16-mixed, normalisation before what was added"))
            wild = [run for run in cell.runs if _burst(run) or _exploded(run)]
            if wild:
                seen = [(_burst(run), 0.0, _burst(run)) if _burst(run) else
                        (next(iter(_bursts(run))), max(_bursts(run).values()), _exploded(run))
                        for run in wild]
                findings.append(Finding(
                    "warning", cell.key.title, seeds_of(wild), _sentences(seen),
                    "gradient_clip of the trainer, a lower learning rate, a longer warm-up"))
        return findings


def _sentences(found: Sequence[tuple[str, float, str]]) -> str:
    """The weightiest sentence of each kind, in a row."""
    worst: dict[str, tuple[float, str]] = {}
    for kind, weight, text in found:
        worst[kind] = max((weight, text), worst.get(kind, (weight, text)))
    return "; ".join(text for _, text in worst.values())


def _backwards(run: RunHistory, kind: str) -> dict[str, float]:
    """A metric of the blocks that train, the one next to the output first."""
    found = {name.removeprefix(kind): value for name, value in run.metrics.items()
             if name.startswith(kind) and math.isfinite(value)}
    order = {name: place for place, name in enumerate(run.blocks)}  # what has no place is no block
    return {name: found[name] for name in sorted(found.keys() & order, key=lambda n: -order[n])}


def _faint(run: RunHistory) -> list[str]:
    """Blocks whose gradient is nothing beside that of the one next to the output."""
    norms = _backwards(run, NORM)
    head, block = [*norms.values(), 0.0, 0.0][:2]
    return [name for name, norm in norms.items() if norm < max(VANISHED * block, NOTHING * head)]


def _left(run: RunHistory) -> float:
    """Share of the first norm on the way back that the faintest block has."""
    norms = _backwards(run, NORM).values()
    return min(norms) / next(iter(norms))


def _vanished(run: RunHistory) -> str:
    (first, *further), norms = _faint(run), _backwards(run, NORM)
    zeros = run.metrics.get(ZEROS + first)
    share = "" if zeros is None else f", {100 * zeros:.0f}% of it exact zeros"
    more = f", and in {len(further)} more behind it" if further else ""
    return (f"gradients vanish in {first}, the first on the way back from the output: norm "
            f"{norms[first]:.2g} beside {next(iter(norms.values())):.2g} in {next(iter(norms))}"
            f"{share}{more}")


def _bursts(run: RunHistory) -> dict[str, float]:
    """Largest norms in units of the usual one, of blocks that burst."""
    return {name: times for name, times in _backwards(run, BURST).items() if times > EXPLODED}


def _exploded(run: RunHistory) -> str:
    """Name the first block on the way back that burst; empty where none did."""
    bursts = _bursts(run)
    if not bursts:
        return ""
    first = next(iter(bursts))
    more = f", and in {len(bursts) - 1} more" if len(bursts) > 1 else ""
    return (f"gradients explode in {first}, the first on the way back from the output: norm "
            f"{bursts[first]:.3g} times its own median{more}")


def _burst(run: RunHistory) -> str:
    """Describe gradients that burst as a whole; empty where they did not."""
    norms = run.steps("train/grad_norm")
    broken = [step for step, norm in norms if not math.isfinite(norm)]
    ends = run.steps("train/epoch_loss")
    # half precision finds its scale by some steps that it leaves out
    if broken and (not ends or broken[-1] > ends[0][0] or SKIPPED * len(broken) > len(norms)):
        return f"no finite gradient norm at step {broken[0]}"
    norms = [(step, norm) for step, norm in norms if math.isfinite(norm)]
    if not ends or not norms:
        return ""
    first = max((norm for step, norm in norms if step <= ends[0][0]), default=math.inf)
    step, most = max(norms, key=lambda pair: pair[1])
    if most <= EXPLODED * first:
        return ""
    where = f"; {exploded}" if (exploded := _exploded(run)) else ""
    return f"gradient norm {most:.3g} at step {step}, at most {first:.3g} in the first epoch{where}"
