"""A data set's task as reports ask for it: built for the examples' contributions, not before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ftlab.studies.check_cache import remembered
from ftlab.studies.components import Component, task_of
from ftlab.studies.study import Study

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ftlab.tasks.base import Task


def known_tasks(study: Study) -> dict[str, KnownTask]:
    """The tasks of a study's data sets, by name."""
    components = {cell.key.dataset: cell.data for cell in study.cells}
    return {name: KnownTask(component) for name, component in components.items()}


class KnownTask:
    """What a task says before it has seen data.

    Args:
        data: the checked data module.
    """

    def __init__(self, data: Component) -> None:
        self._data = data
        task = data["init_args"].get("task")
        named = (data["class_path"], task["class_path"] if task else "")
        self._ours = all(name.startswith("ftlab.") for name in named)

    @property
    def one_class(self) -> bool:
        """See `Task.one_class`."""
        return self._asked("one_class", lambda: self._task.one_class)

    def higher_is_better(self, metric: str) -> bool:
        """See `Task.higher_is_better`.

        Raises:
            InputError: there is no such metric.
        """
        return self._asked(("higher_is_better", metric),
                           lambda: self._task.higher_is_better(metric))

    def contributions(self, metric: str,
                      records: Mapping[str, Sequence[Any]]) -> NDArray[np.float64] | None:
        """See `Task.contributions`."""
        return self._task.contributions(metric, records)

    def _asked(self, what: object, answer: Callable[[], bool]) -> bool:
        if not self._ours:  # code of others' packages is not watched for changes
            return answer()
        return bool(remembered((what, self._data["init_args"]["task"]), answer))

    @cached_property
    def _task(self) -> Task:
        task: Task = task_of(self._data)
        return task
