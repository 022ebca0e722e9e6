from __future__ import annotations

from torch import Tensor

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.tasks.base import Task
from ftlab.techniques.base import LogUniform, Technique
from ftlab.techniques.wrapper import MOVES, Wrapper


class Replay(Wrapper):
    """Rehearse labelled examples of what was learned before, with each batch (a wrapper).

    Experience replay minimises the mean over the batch's examples and those of a stream, its
    memory. Take it where the model must keep what it could do and some examples of that are at
    hand: few are enough, a tenth of each batch for instance (the stream's `batch_size`).

    Chaudhry, Rohrbach, Elhoseiny, Ajanthan, Dokania, Torr, Ranzato (2019),
    https://arxiv.org/abs/1902.10486

    Args:
        technique: what adapts the model.
        stream: name of the data set's stream (`beside`) with the memory's examples.
        weight: of a memory's example, where one of the batch has 1; 0 is plain training.
    """

    search_space = {"weight": LogUniform(0.1, 10.0)}
    of_training = True
    never_around = frozenset({MOVES})

    def __init__(self, technique: Technique, stream: str = "memory", weight: float = 1.0) -> None:
        super().__init__(technique)
        if weight < 0:
            raise ValueError(f"weight must be 0 or more, got {weight}")
        self.stream, self.weight = stream, weight
        self.streams = self.streams | {stream}

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)
        memory = data.beside.get(self.stream)
        if memory is not None and not memory.labelled:
            raise Incompatible(f"Replay learns from the labels of the stream {self.stream!r}, which "
                               "are not read", f"set beside: {{{self.stream}: {{labelled: true}}}}")

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        loss = self.technique.objective(model, task, batch)
        memory = {**batch["beside"][self.stream], "beside": batch["beside"]}
        new, old = task.weight(batch), self.weight * task.weight(memory)
        if not old:
            return loss
        rehearsed = self.technique.objective(model, task, memory)
        return (new * loss + old * rehearsed) / (new + old)
