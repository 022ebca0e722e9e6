from __future__ import annotations

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.techniques.base import Technique
from ftlab.techniques.membership import membership
from ftlab.techniques.wrapper import Wrapper


class MembershipInference(Wrapper):
    """Change nothing, and measure how well losses tell training examples from others (a wrapper).

    The score is the area under the ROC curve of the guess that an example with a low loss has
    been trained on: 0.5 is chance, and above it the model gives its training examples away. The
    others are the test split, which must be drawn as the training split is, or the score tells
    their difference. Take it as the row to which `DifferentiallyPrivate`, which brings the same
    score, is compared. It finds leaks, and a score near 0.5 is no proof that there are none.

    Yeom, Giacomelli, Fredrikson, Jha (2018), https://arxiv.org/abs/1709.01604

    Args:
        technique: what adapts the model.
    """

    def __init__(self, technique: Technique) -> None:
        super().__init__(technique)

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)
        if not data.task.of_examples:
            raise Incompatible("MembershipInference reads the loss of each example, which the task "
                               f"{type(data.task).__name__} does not have",
                               "leave it out for this task")

    def audit(self, model: TaskModel, data: DataModule) -> dict[str, float]:
        return self.technique.audit(model, data) | membership(model, data)
