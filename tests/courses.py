"""Made-up runs: healthy ones, and ones with a single sickness each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ftlab.reports.comparison import Comparison, compare
from ftlab.reports.diagnoses.base import CellHistory, RunHistory, StudyHistory
from ftlab.tracking.cell_metric import CellMetric
from ftlab.tracking.records import CellKey

EPOCHS, STEPS = 6, 50  # of an epoch
BLOCKS = ("embeddings", "layer.0", "layer.1", "head")
TESTED = 400


def key(technique: str) -> CellKey:
    return CellKey("study", "minilm", "bbc", technique, "0")


def course(
    draw: np.random.Generator,
    seed: int,
    train: Sequence[float],
    validation: Sequence[float],
    accuracy: Sequence[float],
    right: float = 0.9,
) -> RunHistory:
    """A finished run with such losses and scores after its epochs, and their noise between.

    Args:
        draw: of the noise.
        seed: of the run.
        train, validation, accuracy: after each epoch.
        right: share of the test examples.
    """
    ends = [STEPS * (n + 1) for n in range(len(train))]
    steps = [step for step in range(10, ends[-1] + 1, 10)]
    rough = np.interp(steps, [0, *ends], [1.2 * train[0], *train])
    scores = [a + draw.normal(0, 0.004) for a in accuracy]
    best = int(np.argmax(scores))
    targets = draw.choice(["a", "b", "c"], TESTED).tolist()
    hit = draw.random(TESTED) < right
    said = [t if h else {"a": "b", "b": "c", "c": "a"}[t] for t, h in zip(targets, hit, strict=True)]
    after = ends[-1] + 1
    history: dict[str, list[tuple[int, float]]] = {
        "train/loss": list(zip(steps, rough * draw.gamma(20, 1 / 20, len(steps)), strict=True)),
        "train/grad_norm": list(zip(steps, draw.gamma(10, 0.2, len(steps)), strict=True)),
        "train/lr": [(step, 1e-3 * (1 - step / (ends[-1] + 10))) for step in steps],
        "train/epoch_loss": list(zip(ends, train, strict=True)),
        "val/loss": [*zip(ends, validation, strict=True), (after, validation[best])],
        "val/accuracy": [*zip(ends, scores, strict=True), (after, scores[best])],
    }
    metrics = {"best_epoch": best + 1.0, "val/accuracy": scores[best],
               "test/accuracy": float(np.mean(hit)),
               **{f"train/grad_norm/{name}": float(draw.uniform(0.1, 2)) for name in BLOCKS}}
    return RunHistory(seed, "FINISHED", "", metrics, history, "", {"target": targets,
                                                               "prediction": said}, BLOCKS)


def healthy(noise: int, right: float = 0.9) -> list[RunHistory]:
    """Three seeds that learn, level out, and generalise."""
    draw = np.random.default_rng(noise)
    return [course(draw, seed, [1.1, 0.6, 0.42, 0.36, 0.33, 0.32],
                   [0.8, 0.55, 0.46, 0.43, 0.425, 0.43],
                   [right - 0.2, right - 0.06, right - 0.01, right, right, right], right)
            for seed in range(3)]


def observed(cells: Mapping[str, Sequence[RunHistory]], **settings: Any) -> StudyHistory:
    """A study of these cells, with the comparison that their test scores give."""
    watched = tuple(CellHistory(key(name), tuple(runs)) for name, runs in cells.items())
    return StudyHistory(watched, (comparison(watched),), **settings)


def comparison(cells: Sequence[CellHistory]) -> Comparison:
    measured = [CellMetric(cell.key, {run.seed: run.metrics["test/accuracy"] for run in cell.finished})
                for cell in cells if len(cell.finished) == len(cell.runs)]
    return compare(("minilm", "bbc"), measured, True)


def with_metrics(run: RunHistory, **changes: float) -> RunHistory:
    return replace(run, metrics={**run.metrics, **{n.replace("__", "/"): v
                                                   for n, v in changes.items()}})


def with_history(run: RunHistory, metric: str,
                 change: Callable[[int, float], float]) -> RunHistory:
    """A run with other values of a metric.

    Args:
        run: it.
        metric: which.
        change: makes the new value of step and value.
    """
    points = [(step, change(step, value)) for step, value in run.history[metric]]
    return replace(run, history={**run.history, metric: points})
