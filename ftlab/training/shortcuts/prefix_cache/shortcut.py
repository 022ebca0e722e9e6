"""Cached rows of a run's frozen blocks, where a cache exists or pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from ftlab.backbones import cache_folder
from ftlab.backbones.forward_trace import NotReplayable
from ftlab.data.examples import SplitName
from ftlab.training.evaluate import placing
from ftlab.training.event_log import ALIVE, Report
from ftlab.training.shortcuts.base import Fitting, NotApplicable, Shortcut, ShortcutPlan
from ftlab.training.shortcuts.prefix_cache import activation_files
from ftlab.training.shortcuts.prefix_cache.cache_estimate import Forecast
from ftlab.training.shortcuts.prefix_cache.prefix_source import PrefixSource, why_not

SPARE = 1_000_000_000  # bytes of the disk that a cache leaves free


class PrefixCache(Shortcut):
    """Compute the frozen prefix once, or read what another run has computed."""

    step = "inputs"
    refusal = "the frozen prefix is not cached: "

    def applies(self, fitting: Fitting) -> ShortcutPlan:
        if reason := why_not(fitting.run):
            raise NotApplicable(reason)
        try:
            return ShortcutPlan(_cached(fitting))
        except (NotReplayable, NotApplicable) as error:
            reason = str(error)
        except OSError as error:
            reason = f"{activation_files.folder()}: {error.strerror or error}"
        fitting.run.technique.train()
        raise NotApplicable(reason)


def _cached(fitting: Fitting) -> str:
    """Let the run's batches bring cached rows; returns what was done."""
    run, report, device = fitting.run, fitting.report, fitting.device
    model, data = run.technique.model, run.data
    model.to(device)
    source = PrefixSource(run, fitting.guard.before, placing(fitting.trainer, device),
                          fitting.trainer.precision_plugin.forward_context)
    names = source.names(fitting.splits)
    keys = {name: source.key(name) for name in names}
    forecast = ""
    if not all(activation_files.path_of(key).exists() for key in keys.values()):
        forecast = f"; {_worth_making(source, fitting.splits, report)}"
    opened, made = {}, 0
    for name, split in names.items():
        opened[name], here = activation_files.obtain(
            keys[name], len(data.splits[split]), partial(source.record, name, report),
            lambda: report(ALIVE))
        made += here
    run.data = data.with_cached(opened, blank_inputs=not source.prefix.reads_inputs)
    model.playing = source.prefix.playing
    run.technique.train()
    size = sum(file.bytes for file in opened.values())
    whence = {0: "read", len(names): "computed"}.get(made, "computed in part")
    return (f"prefix cache: {source.prefix.blocks} of {len(model.blocks)} blocks are frozen; what "
            f"they give was {whence} ({size / 1e6:,.1f} MB{forecast})")


def _worth_making(
    source: PrefixSource, splits: Sequence[SplitName], report: Report
) -> Forecast:
    """The cost and saving of making the files.

    Raises:
        NotApplicable: more than it saves, or more room than there is.
    """
    forecast = source.foresee(splits)
    report({"event": "forecast", **asdict(forecast)})
    room = min(cache_folder.limit(), activation_files.free() - SPARE)
    if forecast.bytes > room:
        raise NotApplicable(f"it would take {forecast.bytes / 1e6:,.0f} MB, and there is room for "
                            f"{max(0, room) / 1e6:,.0f}")
    if not forecast.pays:
        blocks = len(source.run.technique.model.blocks)
        raise NotApplicable(f"{source.prefix.blocks} of {blocks} blocks are frozen, but it would "
                            f"not pay: {forecast}")
    return forecast
