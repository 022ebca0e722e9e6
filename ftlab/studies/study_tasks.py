"""Tasks of a study's data sets, built when they are first looked up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ftlab.studies.components import task_of
from ftlab.studies.study import Study

if TYPE_CHECKING:
    from ftlab.tasks.base import Task


class StudyTasks(Mapping[str, "Task"]):
    """Tasks by data set, before they have seen data.

    Building one imports PyTorch, which takes seconds; the store's facts about metrics do not.
    """

    def __init__(self, study: Study) -> None:
        self._components = {cell.key.dataset: cell.data for cell in study.cells}
        self._built: dict[str, Task] = {}

    def __getitem__(self, dataset: str) -> Task:
        if dataset not in self._built:
            self._built[dataset] = task_of(self._components[dataset])
        return self._built[dataset]

    def __contains__(self, dataset: object) -> bool:
        return dataset in self._components

    def __iter__(self) -> Iterator[str]:
        return iter(self._components)

    def __len__(self) -> int:
        return len(self._components)
