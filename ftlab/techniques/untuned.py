from __future__ import annotations

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.techniques.base import Technique


class Untuned(Technique):
    """The pre-trained model as it is: what every kind of tuning has to beat.

    Radford, Kim, Xu, Brockman, McLeavey, Sutskever (2022), https://arxiv.org/abs/2212.04356, say
    of a speech model what it reaches on data that it was not tuned to.

    It goes with tasks that keep the pre-trained output layer. Where a task adds a head, the
    untuned model answers at random.
    """

    trains = False

    def __init__(self) -> None:
        super().__init__()

    def adapt(self, model: TaskModel) -> None:
        if model.has_random_head:
            raise Incompatible(
                "Untuned needs a pre-trained output layer, and this task's head is new and random",
                "leave it out, or take ZeroShot for texts and images")
        model.requires_grad_(False)
