"""One trial of a sweep: a fit of which only the best epoch is wanted."""

from __future__ import annotations

from collections.abc import Callable

from ftlab.training import costs, run_state, stages
from ftlab.training.adapt import load
from ftlab.training.callbacks import BestEpoch
from ftlab.training.evaluate import validate
from ftlab.training.event_log import Report
from ftlab.training.fit import fit
from ftlab.training.run import Run


def search(run: Run, report: Report, stop: Callable[[], bool] = lambda: False) -> dict[str, float]:
    """Fit once for a sweep: no checkpoint, nothing measured but the fit, the test split untouched.

    Args:
        run: as for `execute`; nothing is written to its directory.
        report: takes the events; one of `metrics` with the key `epoch` follows each validation.
        stop: asked after each validation by the first process; all ranks follow its answer.

    Returns:
        The best epoch's `val/...`, `cost/...` of the fit, and `pruned` (0 or 1). In DDP only the
        first process returns something.

    Raises:
        GuardFailed: the result would be wrong.
    """
    with run_state.removed(run):
        stages.learn(run, report)
        memory = load(run, report)
        trainer, best, measured = fit(run, memory, report, stop)
    if not trainer.is_global_zero:
        return {}
    model = run.technique.model
    if not run.technique.trains:
        device = trainer.strategy.root_device
        metrics, _ = validate(run, model.to(device), trainer, "validation", report)
        best.scores = {f"val/{name}": value for name, value in metrics.items()}
    return trial_metrics(run, best, measured)


def trial_metrics(run: Run, best: BestEpoch, measured: dict[str, float]) -> dict[str, float]:
    """The result of a trial after its fit."""
    counts = costs.parameter_counts(run.technique.model, run.technique.trained)
    results = best.scores | measured | counts
    return results | {"best_epoch": best.epoch, "pruned": float(best.pruned)}
