"""The runs of a study that adds seeds until its comparisons are decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ftlab.statistics.multiple_testing import Pair
from ftlab.statistics.verdict import Decision, to_come
from ftlab.studies.decisions import decided, rule_of
from ftlab.studies.display import Display, clock
from ftlab.studies.plan import PlannedCell
from ftlab.studies.seeds import UntilDecided
from ftlab.studies.study import Study
from ftlab.studies.study_tasks import StudyTasks
from ftlab.studies.verdict_words import first_look, words
from ftlab.tracking.cell_metric import CellMetric, Contributions, measured
from ftlab.tracking.metric_facts import lookup, named
from ftlab.tracking.records import CellRecord, RunRecord
from ftlab.tracking.tracker import Tracker

RunPlace = tuple[str, int]
"""A cell's id and a seed."""


@dataclass
class _Group:
    """The cells of one backbone and data set.

    Attributes:
        cells: ids by technique, in the study's order.
        metric: compared, with its facts.
        higher_is_better: of the metric.
        said: verdicts that were shown.
    """

    title: str
    cells: dict[str, str]
    metric: str
    higher_is_better: bool
    decision: Decision | None = None
    said: dict[Pair, str] = field(default_factory=dict)


class AddingSeeds:
    """The scores of a study's cells so far, and the runs that would tell more.

    Args:
        study: with `until`.
        cells: that run, by id.
        tracker: of the store, which alone is asked what is known.
        display: shows verdicts as they come.
    """

    def __init__(self, study: Study, until: UntilDecided, cells: Mapping[str, PlannedCell],
                 tracker: Tracker, display: Display) -> None:
        self.study, self.until, self.tracker, self.display = study, until, tracker, display
        self.cells, self.tasks = cells, StudyTasks(study)
        self.metrics = {cell_id: CellMetric(planned.cell.key, {}) for cell_id, planned in cells.items()}
        self.seconds: dict[str, list[float]] = {cell_id: [] for cell_id in cells}
        self.failed: dict[str, str] = {}
        self.groups: dict[tuple[str, str], _Group] = {}
        self.noted = False
        for cell_id, planned in cells.items():
            key = planned.cell.key
            metric = named(study.report, planned.facts)
            facts = lookup(metric, planned.facts)
            group = self.groups.setdefault((key.dataset, key.backbone), _Group(
                f"{key.dataset} from {key.backbone}: ", {}, metric,
                facts is None or facts.higher_is_better))
            group.cells[key.technique] = cell_id

    def begin(self, records: Iterable[CellRecord]) -> list[RunPlace]:
        """Take what the store holds of the cells; the runs that decisions wait for."""
        for record in records:
            if record.cell_id in self.metrics:
                self.take(record.cell_id, record.finished)
        return self.wanted()

    def take(self, cell_id: str, runs: Iterable[RunRecord]) -> None:
        """Take finished runs of a cell as the store has them."""
        known = self.metrics[cell_id]
        group = self.groups[known.key.dataset, known.key.backbone]
        new = tuple(run for run in runs if run.status == "FINISHED" and run.seed not in known.values)
        record = CellRecord(cell_id, known.key, (), new)
        read = measured(record, group.metric, self.tracker, self._contributions(known.key.dataset))
        self.metrics[cell_id] = replace(
            known, values={**known.values, **read.values}, examples={**known.examples, **read.examples},
            clustered=max(known.clustered, read.clustered))
        self.seconds[cell_id] += [run.seconds for run in new if run.seconds is not None]
        for run in new:
            if run.seed not in read.values:
                self.failed[cell_id] = f"seed {run.seed} has no finite {group.metric}"

    def _contributions(self, dataset: str) -> Contributions:
        return self.tasks[dataset].contributions

    def wanted(self) -> list[RunPlace]:
        """The runs that decisions wait for, over all data sets: the most telling a second first."""
        runs = []
        for group in self.groups.values():
            group.decision = self._decide(group)
            runs += [(run.early, -run.gain, run.seed, group.cells[run.technique])
                     for run in group.decision.wanted]
        runs.sort(key=lambda run: run[:3])  # stable: techniques stay in the study's order
        self._say()
        return [(cell_id, self.until.numbers[place]) for *_, place, cell_id in runs]

    def _decide(self, group: _Group) -> Decision:
        cells = {name: self.metrics[cell_id] for name, cell_id in group.cells.items()}
        failed = {name: self.failed[cell_id] for name, cell_id in group.cells.items()
                  if cell_id in self.failed}
        return decided(cells, self.until, group.metric, self.study.baseline, self._cost(group), failed,
                       self._overlap(group))

    def _overlap(self, group: _Group) -> float:
        """Share of the examples in each training set, where seeds draw it; nearly the same for all."""
        return max((draw.training_share for cell_id in group.cells.values()
                    for draw in self.cells[cell_id].draws.values()), default=0.0)

    def _cost(self, group: _Group) -> dict[str, float]:
        """Mean seconds of a run, by technique; of those that have one."""
        return {name: max(sum(self.seconds[c]) / len(self.seconds[c]), 1e-3)
                for name, c in group.cells.items() if self.seconds[c]}

    def _say(self) -> None:
        """Show new verdicts; after the first look what can be expected at all, and how long it takes."""
        several = len(self.groups) > 1
        decisions = {place: group.decision for place, group in self.groups.items() if group.decision}
        if not self.noted and decisions and all(decision.seeds for decision in decisions.values()):
            self.noted = True
            self._say_first(decisions)
        for group in self.groups.values():
            for pair, verdict in (group.decision.verdicts if group.decision else {}).items():
                if verdict.kind != "open" and group.said.get(pair) != verdict.kind:
                    group.said[pair] = verdict.kind
                    text = words(pair, verdict, group.metric, group.higher_is_better)
                    self.display.say(f"{group.title if several else ''}{text}")

    def _say_first(self, decisions: Mapping[tuple[str, str], Decision]) -> None:
        seconds = 0.0
        for place, decision in decisions.items():
            group = self.groups[place]
            rule = rule_of(self.until, group.metric, self._overlap(group))
            seconds += to_come(decision, rule, self._cost(group))
            if text := first_look(decision, rule, group.metric):
                self.display.say(f"{group.title if len(decisions) > 1 else ''}{text}")
            elif decision.seeds:
                self.display.say(f"{group.metric} is not compared by example: the seeds alone decide")
        if seconds:
            self.display.say(f"about {clock(seconds)} of runs are expected until all is decided, with at "
                             f"most {self.until.most} seeds")
