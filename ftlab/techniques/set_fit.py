from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import linear, normalize

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.tasks.base import Task
from ftlab.tasks.losses.base import at_least_float32
from ftlab.techniques.base import LogUniform, Optimization, Technique
from ftlab.techniques.features import Features, require_linear_head, require_task
from ftlab.techniques.logistic_head import LOGISTIC, logistic_optimum
from ftlab.techniques.trained_tensors import holding

UNSEEN = 1e-3
"""Share of the head's gradient: too small for clipping to notice; Adam's steps are the same."""


class SetFit(Technique):
    """Train the backbone on pairs of examples, of one class or of two, and fit a logistic head.

    Take it with few examples a class (8 to 64), whose pairs are many. The loss of a pair is the
    squared difference of the cosine of its features and 1, or 0 for two classes; pairs are those
    of a batch, none twice, and both kinds count half, as where the rarer is oversampled. The
    epochs are the cap on pairs: one makes (batch size - 1) / 2 an example, for one pass of each.
    A batch should have several examples of each class: take a `batch_size` of a few times the
    number of classes. The head is put to its optimum on the training features before each
    validation, and what is measured and kept is the epoch's network with that head. The training
    loss that is shown is that of the pairs, and validation's that of the head. With several
    labels, examples that share one are a pair of one class.

    Tunstall, Reimers, Jo, Bates, Korat, Wasserblat, Pereg (2022), https://arxiv.org/abs/2209.11055

    Args:
        C: inverse strength of the head's penalty, above 0; null for the best of ten from 1e-4 to
            1e4 on validation, as of `LogisticRegression`. The paper's head has 1.
        lr: peak learning rate; the paper's is 2e-5.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(5e-6, 2e-4)}
    single_batches = True  # pairs across the parts of a batch would be lost

    data: DataModule

    def __init__(self, C: float | None = None, lr: float = 2e-5,  # noqa: N803  scikit-learn's own name
                 optim: Optimization = Optimization()) -> None:
        super().__init__(lr, optim)
        if C is not None and C <= 0:
            raise ValueError(f"C must be above 0, got {C}")
        self.C = C

    def prepare(self, data: DataModule) -> None:
        require_task(data, "SetFit", LOGISTIC, "take FullFineTuning, which needs no classes")
        if getattr(getattr(data, "augment", None), "mix", "none") != "none":
            raise Incompatible("SetFit pairs examples by class, and mixtures have several",
                               "set augment: {mix: none}")

    def adapt(self, model: TaskModel) -> None:
        require_linear_head(model, "SetFit")
        model.requires_grad_(True)

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.data = data

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        features = model.watched(batch).features
        loss = pair_loss(features, alike(batch["target"]))
        _, layer = require_linear_head(model, "SetFit")
        # the head follows on the same features, and moves nothing but itself
        head = task.loss(linear(features.detach(), layer.weight, layer.bias), batch)
        return loss + UNSEEN * (head - head.detach())

    @contextmanager
    def evaluated(self, model: TaskModel) -> Iterator[None]:
        name, layer = require_linear_head(model, "SetFit")
        with torch.inference_mode(False), torch.no_grad():  # the solver takes gradients
            best, _ = logistic_optimum(Features(model, self.data), layer, self.C)
        optimum = {f"{name}.weight": best.weight}
        if best.bias is not None:
            optimum[f"{name}.bias"] = best.bias
        with holding(model, optimum):
            yield


def alike(target: Tensor) -> Tensor:
    """True for two examples of one class, or that share a label, (B, B).

    Args:
        target: classes (B,), or labels (B, L) of zeros and ones.
    """
    if target.ndim == 1:
        return target[:, None] == target
    return target.float() @ target.float().T > 0


def pair_loss(features: Tensor, same: Tensor) -> Tensor:
    """Mean over two kinds of pairs of (cosine - 1[same])^2, each the mean over its pairs.

    A kind of which a batch has no pair is left out; without any pair the loss is 0.

    Args:
        features: of a batch, (B, D).
        same: (B, B).
    """
    directions = normalize(at_least_float32(features), dim=1)
    first, second = torch.triu_indices(len(features), len(features), 1, device=features.device)
    same = same[first, second]
    errors = ((directions @ directions.T)[first, second] - same.to(directions.dtype)).square()
    kinds = [kind.mean() for kind in (errors[same], errors[~same]) if len(kind)]
    return torch.stack(kinds).mean() if kinds else directions.sum() * 0
