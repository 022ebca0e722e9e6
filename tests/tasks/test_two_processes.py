"""Every task's metrics in two processes with unequal numbers of examples, held against one."""

import multiprocessing
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from ftlab.tasks.base import Task
from ftlab.tasks.boxes import Box
from ftlab.tasks.classification import Classification
from ftlab.tasks.detection import Detection
from ftlab.tasks.language_modelling import LanguageModelling
from ftlab.tasks.multi_label import MultiLabel
from ftlab.tasks.regression import Regression
from ftlab.tasks.sequence_to_sequence import SequenceToSequence
from ftlab.tasks.tagging import Tagging
from ftlab.tasks.transcription import Transcription

COUNT = 7  # one process has four, the other three: two batches against two, then one more
OURS = ["a cat sat", "on the mat", "a dog", "it saw", "the cat and the dog", "a mat", "no"]
THEIRS = ["a cat sat on", "the mat", "a dog", "he saw it", "the dog and the cat", "a", "yes"]
Batches = Callable[[Sequence[int]], tuple[Any, Any]]


def fitted(task: Task, labels: Sequence[Any]) -> Task:
    task.fit(labels)
    return task


def cases() -> list[tuple[Task, Batches]]:
    """A task, and what gives predictions and target of some examples."""
    torch.manual_seed(0)
    three, four, number = torch.randn(COUNT, 3), torch.randn(COUNT, 4), torch.randn(COUNT)
    classes, several = torch.randint(0, 3, (COUNT,)), torch.randint(0, 2, (COUNT, 4)).float()
    tags, words = torch.randn(COUNT, 2, 5), torch.tensor([[0, 1]] * COUNT)
    gold = torch.randint(0, 5, (COUNT, 2)).tolist()

    def tensors(values: torch.Tensor, target: torch.Tensor) -> Batches:
        return lambda some: (values[list(some)], target[list(some)])

    def texts(wrap: Callable[[list[str]], Any] = list) -> Batches:
        return lambda some: (wrap([OURS[i] for i in some]), {"text": [THEIRS[i] for i in some]})

    return [
        (fitted(Classification(), "abc"), tensors(three, classes)),
        (fitted(MultiLabel(), ["a|b|c|d"]), tensors(four, several)),
        (fitted(Regression(), [1, 2, 3]), tensors(number, number + torch.randn(COUNT))),
        (fitted(Tagging(), [["B-X", "B-Y"]]),
         lambda some: (tags[list(some)],
                       {"words": words[list(some)], "tags": [gold[i] for i in some]})),
        (fitted(LanguageModelling(), ["a"]), texts(lambda found: {"text": found})),
        (SequenceToSequence(), texts()),
        (Transcription(), texts()),
        (fitted(Detection(), [[Box("a", (0, 0, 1, 1)), Box("b", (0, 0, 1, 1))]]), scenes()),
    ]


def scenes() -> Batches:
    """Images of an object and 0 to 2 detections, all of one score: COCO breaks ties by order."""
    box = torch.tensor([[0.0, 0, 20, 20]])
    found, targets = [], []
    for image in range(COUNT):
        hits = image in (0, 1, 5)  # the others miss, and one image has no detection
        shifts = torch.tensor([[0.0], [50.0]][:1 + image % 2] if hits else [[50.0]] * (image != 4))
        boxes = box + shifts.reshape(-1, 1)
        labels = torch.zeros(len(boxes), dtype=torch.long)
        found.append({"boxes": boxes, "labels": labels, "scores": torch.full(labels.shape, 0.5)})
        targets.append({"boxes": box, "labels": torch.tensor([image // 6]),
                        "ignored": torch.tensor([False])})
    return lambda some: ([found[i] for i in some], [targets[i] for i in some])


def measured(rank: int, world: int) -> list[dict[str, float]]:
    """Metrics of every task, over the examples of one of `world` processes."""
    own = range(rank, COUNT, world)
    results = []
    for task, batches in cases():
        metrics = task.collection()
        for start in range(0, len(own), 2):
            metrics.update(*batches(own[start:start + 2]))
        results.append(task.scalars({**metrics.compute(), "loss": torch.tensor(1.0)}))
    return results


def one_of_two(rank: int, store: str, pipe: Connection) -> None:
    distributed.init_process_group("gloo", store=distributed.FileStore(store, 2), rank=rank,
                                   world_size=2, timeout=timedelta(seconds=300))
    pipe.send(measured(rank, 2))
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore::UserWarning")  # of metrics undefined on so few examples
def test_metrics__of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    pipes, processes = [], []
    for rank in range(2):
        ours, theirs = context.Pipe(duplex=False)
        arguments = (rank, str(tmp_path / "store"), theirs)
        processes.append(context.Process(target=one_of_two, args=arguments, daemon=True))
        processes[-1].start()
        pipes.append(ours)
    expected = measured(0, 1)
    for process, pipe in zip(processes, pipes, strict=True):
        process.join(60)
        assert process.exitcode == 0, "an error, or they wait for each other"
        for (task, _), one, two in zip(cases(), expected, pipe.recv(), strict=True):
            assert two == pytest.approx(one, rel=1e-5, nan_ok=True), type(task).__name__
