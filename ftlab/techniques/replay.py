from __future__ import annotations

from torch import Tensor

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.tasks.base import Task
from ftlab.techniques.base import Choice, Technique
from ftlab.techniques.wrapper import MOVES, READS_STREAM, Wrapper


class Replay(Wrapper):
    """Rehearse labelled examples of what was learned before, with each batch (a wrapper).

    Experience replay minimises (1 - part) * loss of the batch + part * loss of a batch from its
    memory, a stream. Take it where the model must keep what it could do and some examples of that
    are at hand; few are enough. The stream's `batch_size` says how many come along.

    Chaudhry, Rohrbach, Elhoseiny, Ajanthan, Dokania, Torr, Ranzato (2019),
    https://arxiv.org/abs/1902.10486

    Args:
        technique: what adapts the model.
        stream: name of the data set's stream (`beside`) with the memory's examples.
        part: of the memory in what is minimised, 0 or more and below 1; 0 is plain training.
    """

    search_space = {"part": Choice((0.1, 0.25, 0.5))}
    of_training = True
    does = frozenset({READS_STREAM})
    never_around = frozenset({MOVES})

    def __init__(self, technique: Technique, stream: str = "memory", part: float = 0.5) -> None:
        super().__init__(technique)
        if not 0 <= part < 1:
            raise ValueError(f"part must be 0 or more and below 1, got {part}")
        self.stream, self.part = stream, part
        self.streams = self.streams | {stream}

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)
        memory = data.beside.get(self.stream)
        if memory is not None and not memory.labelled:
            raise Incompatible(f"Replay learns from the labels of the stream {self.stream!r}, which "
                               "are not read", f"set beside: {{{self.stream}: {{labelled: true}}}}")

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        loss = self.technique.objective(model, task, batch)
        if not self.part:
            return loss
        memory = {**batch["beside"][self.stream], "beside": batch["beside"]}
        return (1 - self.part) * loss + self.part * self.technique.objective(model, task, memory)
