"""The techniques that fit a study's backbones and data, and why the others do not."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ftlab.backbones.base import Backbone
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.studies.components import build, component_of, schema
from ftlab.studies.discover import members
from ftlab.studies.plan import Plan, pairs
from ftlab.studies.study import Study
from ftlab.techniques.base import Technique
from ftlab.training import batches
from ftlab.training.trainer_settings import TrainerSettings


@dataclass(frozen=True)
class Fit:
    """Where a technique fits.

    Attributes:
        name: of the technique.
        fits: on all pairs of backbone and data set, on a part of them, on none; `?` where it has no
            defaults to try it with.
        reason: why not.
        on: pairs to which the reason belongs; empty where the study has one pair alone.
    """

    name: str
    fits: Literal["yes", "part", "no", "?"]
    reason: str = ""
    on: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f" on {', '.join(self.on)}" if self.on else ""
        return f"{self.fits:<4} {self.name}{where}{': ' if self.reason else ''}{self.reason}"


def suitable(study: Study) -> Iterator[Fit]:
    """Each technique with the pairs of backbone and data set that it fits, by default.

    A technique that wraps another one is tried around the study's first that trains.

    Args:
        study: checked; its data are read, its networks built without weights.

    Raises:
        InputError: data or weights cannot be read.
    """
    tried: dict[str, dict[str, str]] = {}
    makers, lacking = _makers(members(Technique, study.allow), study)
    count = 0
    for backbone, data, cells in pairs(study, Plan(study)):
        title = f"{cells[0].key.dataset} from {cells[0].key.backbone}"
        count += 1
        for name, make in makers.items():
            tried.setdefault(name, {})[title] = _refusal(make, backbone, data)
    for name, refusals in tried.items():
        fits = [title for title, reason in refusals.items() if not reason]
        if len(fits) == count:
            yield Fit(name, "yes")
            continue
        for reason in dict.fromkeys(filter(None, refusals.values())):
            where = [title for title, other in refusals.items() if other == reason]
            yield Fit(name, "part" if fits else "no", reason, () if count == 1 else tuple(where))
    for name, needed in lacking.items():
        yield Fit(name, "?", f"needs {', '.join(needed)}")


def _makers(classes: Mapping[str, type], study: Study
            ) -> tuple[dict[str, Callable[[], Technique]], dict[str, Sequence[str]]]:
    """What makes each technique with its defaults, and what those lack that cannot be made so."""
    inner = next((cell.technique for cell in study.cells if build(cell.technique).trains), None)
    makers: dict[str, Callable[[], Technique]] = {}
    lacking: dict[str, Sequence[str]] = {}
    for name, cls in classes.items():
        wanted = {key: parameter for key, parameter in schema(cls).items()
                  if parameter.default is inspect.Parameter.empty}
        around = [key for key, parameter in wanted.items()
                  if component_of(parameter) is Technique and inner is not None]
        if wanted.keys() - set(around):
            lacking[name] = sorted(wanted.keys() - set(around))
            continue

        def make(cls: Any = cls, around: Sequence[str] = around) -> Technique:
            made: Technique = cls(**{key: build(inner) for key in around})  # type: ignore[arg-type]  # there is one
            return made

        makers[name] = make
    return makers, lacking


def _refusal(make: Callable[[], Technique], backbone: Backbone, data: DataModule) -> str:
    """Why a technique does not fit; empty where it does."""
    try:
        technique = make()
        data = batches.with_streams(data, technique, TrainerSettings())
        technique.prepare(data)
        technique.bind(backbone.build(data.task, technique.output_type, meta=True), data.task)
    except (Incompatible, ValueError) as error:
        return error.what if isinstance(error, Incompatible) else str(error)
    return ""
