"""The answer of `--dry-run`: cells, what trains, what is computed once, and about how long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rich.console import Group
from rich.padding import Padding
from rich.table import Table

from ftlab.activity import doing
from ftlab.backbones import cache_folder
from ftlab.backbones.base import Backbone
from ftlab.data.base import DataModule
from ftlab.studies.components import build
from ftlab.studies.decisions import questions
from ftlab.studies.display import clock
from ftlab.studies.memory_estimate import MemoryEstimate, memory_of
from ftlab.studies.plan import Plan, PlannedCell, lacking, plan
from ftlab.studies.runtime_estimate import RuntimeEstimate, foresee
from ftlab.studies.study import Study
from ftlab.studies.verdict_words import foretold_margin
from ftlab.terminal import plain_text
from ftlab.tracking.metric_range import is_percent
from ftlab.wording import counted


@dataclass
class Estimate:
    """A plan with what each cell's runs take, about."""

    plan: Plan
    foreseen: dict[str, RuntimeEstimate] = field(default_factory=dict)
    memory: dict[str, MemoryEstimate] = field(default_factory=dict)

    @property
    def plain_seconds(self) -> float:
        """The seconds of all runs, one after another, with nothing cached."""
        once = sum(runtime.plain_seconds for runtime in self.foreseen.values())
        return once * len(self.plan.study.seeds)

    @property
    def total_seconds(self) -> float:
        """The same with stacks, and with the caches, each made once."""
        return self.seconds_of(self._each(len(self.plan.study.seeds)))

    def _each(self, seeds: int) -> dict[str, int]:
        return {planned.cell.key.config: seeds for planned in self.plan.cells}

    def seconds_of(self, runs: Mapping[str, int]) -> float:
        """The same for so many runs of each cell, by its hash."""
        made: list[PlannedCell] = []
        total = 0.0
        for planned in self.plan.cells:
            here = self.foreseen[planned.cell.key.config]
            total += here.cached_seconds * runs[planned.cell.key.config]
            if here.cache is not None and not any(planned.shares_prefix(other) for other in made):
                made.append(planned)
                total += here.cache.build * max(1, len(planned.draws))
        return total

    def rich(self) -> Group:
        """For the terminal: the cells, what the machine makes of them, what is computed once."""
        parts: list[object] = [self._table()]
        if hardware := list(self._hardware()):
            parts += ["Hardware:", *map(_indented, hardware)]
        if retained := list(self._retained()):
            parts += ["Retained, measured after each run and once before:", *map(_indented, retained)]
        if until := list(self._until()):
            parts += ["Until decided:", *map(_indented, until)]
        if self.memory:
            parts += ["Memory of training, without shortcuts:", *map(_indented, self._memory())]
        parts.append("Computed once:")
        for planned in self.plan.cells:
            here = self.foreseen[planned.cell.key.config]
            first, *others = _shortcuts(planned, here)
            parts.append(_indented(f"{planned.cell.key.title}: {first}"))
            parts += [_indented(line, 4) for line in others]
        return Group(*parts)  # type: ignore[arg-type]  # all are renderable

    def _until(self) -> Iterator[str]:
        """Lines on what may be decided at all, and on how much is spent at least and at most."""
        study = self.plan.study
        if (until := study.until) is None:
            return
        cells = len(self.plan.cells)
        yield (f"{cells * until.first} runs at first, about {clock(self.seconds_of(self._each(until.first)))}; at most "
               f"{cells * until.most}, about {clock(self.total_seconds)}")
        unit = " points" if is_percent(study.report) else ""
        yield f"equal are techniques that differ by less than {until.margin:g}{unit}"
        for (dataset, backbone), planned in self._groups().items():
            pairs = questions([each.cell.key.technique for each in planned], study.baseline)
            split = "validation" if study.report.startswith("val/") else "test"
            examples = int(planned[0].data_profile.get(split, {}).get("examples", 0))
            if text := foretold_margin(examples, len(pairs), study.report):
                yield f"{dataset} from {backbone}: {text}"

    def _groups(self) -> dict[tuple[str, str], list[PlannedCell]]:
        groups: dict[tuple[str, str], list[PlannedCell]] = {}
        for planned in self.plan.cells:
            key = planned.cell.key
            groups.setdefault((key.dataset, key.backbone), []).append(planned)
        return groups

    def _table(self) -> Table:
        study, cells = self.plan.study, self.plan.cells
        runs = len(cells) * len(study.seeds)
        least = f"{study.until.first} to " if study.until else ""
        most = "at most " if study.until else ""
        table = Table(
            title=f"{study.name}: {len(cells)} cells x {least}{len(study.seeds)} seeds = {most}{runs} runs",
            caption=f"about {clock(self.total_seconds)} (without shortcuts "
            f"{clock(self.plain_seconds)}{self._untimed()}) and {self.plan.bytes / 1e6:,.0f} MB in all; "
            "nothing was run or written",
        )
        # where there is one of them, the title of each line below has it
        named = [name for name in ("dataset", "backbone")
                 if len({getattr(planned.cell.key, name) for planned in cells}) > 1]
        for column in ("technique", *named):
            table.add_column(column)
        for column in ("trainable", "% of all", "time a run", "plain", "disk a run"):
            table.add_column(column, justify="right")
        for planned in cells:
            key, here = planned.cell.key, self.foreseen[planned.cell.key.config]
            table.add_row(
                key.technique,
                *(getattr(key, name) for name in named),
                f"{planned.trainable:,}",
                f"{100 * planned.trainable / planned.total:.3g}",
                clock(here.cached_seconds) if not here.untimed else "not timed",
                clock(here.plain_seconds) if not here.untimed else "not timed",
                f"{planned.checkpoint_bytes / 1e6:,.1f} MB",
            )
        return table

    def _untimed(self) -> str:
        count = sum(bool(here.untimed) for here in self.foreseen.values())
        return f"; {counted(count, 'cell')} not timed" if count else ""

    def _memory(self) -> Iterator[str]:
        """A line for each cell: what it needs, and what would make it fit."""
        for planned in self.plan.cells:
            if (here := self.memory.get(planned.cell.key.config)) is not None:
                yield f"{planned.cell.key.title}: {here.text()}"

    def _retained(self) -> Iterator[str]:
        """The data sets on which forgetting is measured, and how long each takes a run at most."""
        seconds: dict[str, list[float]] = {}
        for here in self.foreseen.values():
            for name, each in here.retained.items():
                seconds.setdefault(name, []).append(each)
        for name, all_cells in seconds.items():
            yield f"{name}: up to {clock(max(all_cells))} a run; nothing where the backbone stays frozen"

    def _hardware(self) -> Iterator[str]:
        """The decisions, once per backbone; with the techniques, where not all have them."""
        for backbone in dict.fromkeys(planned.cell.key.backbone for planned in self.plan.cells):
            cells = [planned.cell.key for planned in self.plan.cells
                     if planned.cell.key.backbone == backbone]
            techniques_by_text: dict[str, list[str]] = {}
            for key in cells:
                for text in self.foreseen[key.config].hardware:
                    techniques_by_text.setdefault(text, []).append(key.technique)
            for text, techniques in techniques_by_text.items():
                some = f" ({', '.join(dict.fromkeys(techniques))})"
                yield f"{backbone}: {text}{some if len(techniques) < len(cells) else ''}"


def _indented(text: str, spaces: int = 2) -> Padding:
    return Padding(plain_text(text), (0, 0, 0, spaces), expand=False)


def _shortcuts(planned: PlannedCell, here: RuntimeEstimate) -> Iterator[str]:
    """A cell's cache and its stack, a line each."""
    if here.untimed:
        yield f"not known: {here.untimed}"
        return
    if here.cache is None:
        yield f"nothing: {here.why_not}"
    else:
        yield (f"the outputs of {counted(planned.frozen_blocks, 'frozen block')}, "
               f"{here.cache.bytes / 1e6:,.0f} MB, save {clock(here.cache.saved)} in "
               f"{counted(here.cache.runs, 'run')}")
    if here.trainer:
        yield f"each head is trained by the Trainer: {here.trainer}"
    if here.heads is not None and here.heads.runs > 1:
        yield (f"{here.heads.runs} seeds train as one stack of heads, in "
               f"{clock(here.heads.together)}; one by one they would take "
               f"{clock(here.heads.runs * here.heads.alone)}")


def _untimed(planned: PlannedCell, memory: MemoryEstimate, backbone: Backbone) -> str:
    """The reason why no step of a cell can be timed here; empty where one can."""
    if not planned.backbone_fingerprint:
        return lacking(backbone)
    return "" if memory.fits else "it does not fit"


def estimate(study: Study) -> Estimate:
    """Plan a study, and time some steps of each cell; nothing is written, into caches neither.

    Raises:
        InputError: as `plan`.
    """
    with cache_folder.untouched():
        made = Estimate(plan(study, weightless=True))
        loaded: dict[str, tuple[DataModule, Backbone]] = {}
        for planned in made.plan.cells:
            doing(f"timing some steps of {planned.cell.key.title}")
            pair = f"{planned.cell.key.dataset}/{planned.cell.key.backbone}"
            if pair not in loaded:
                data = build(planned.cell.of_seed(study.seeds[0]).data)
                backbone = build(planned.cell.backbone)
                data = data if study.shortcuts else data.without_shortcuts()
                data.load()
                data.connect(backbone, seed=0)
                loaded[pair] = data, backbone
            memory = memory_of(study, planned, *loaded[pair], weights=bool(planned.backbone_fingerprint))
            made.memory[planned.cell.key.config] = memory
            if reason := _untimed(planned, memory, loaded[pair][1]):
                made.foreseen[planned.cell.key.config] = RuntimeEstimate(0.0, untimed=reason)
                continue
            sharing = sum(planned.shares_prefix(other) for other in made.plan.cells)
            made.foreseen[planned.cell.key.config] = foresee(
                study, planned, *loaded[pair], runs=max(1, sharing) * (1 if planned.draws else len(study.seeds)))
        return made
