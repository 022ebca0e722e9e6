from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ftlab.backbones.task_model import HeadLayer, TaskModel
from ftlab.data.base import DataModule
from ftlab.techniques.base import Technique
from ftlab.techniques.features import Features, require_linear_head, require_task

Metric = Literal["cosine", "euclidean"]
MOST = 20
"""Neighbours that are tried at most."""
LEAST = 1e-6
"""Votes that a class has anyway, so that its logarithm is finite."""


class NearestNeighbours(Technique):
    """Vote of the k training examples with the nearest features: a baseline in seconds.

    Take it to see how far the features alone go. Probabilities are shares of the votes, all equal;
    the prediction of a number is the neighbours' mean. The features of the training examples are
    part of the model and of its checkpoint, and `cost/bank_bytes` says how large they are. Nothing
    depends on the seed.

    Cover, Hart (1967), https://doi.org/10.1109/TIT.1967.1053964; of features: Wu, Xiong, Yu, Lin
    (2018), https://arxiv.org/abs/1805.01978.

    Args:
        k: neighbours that vote, from 1; null for the best of 1 to 20 on validation, by the task's
            default metric, then by the loss.
        metric: of nearness: cosine or euclidean.
    """

    trains = False

    def __init__(self, k: int | None = None, metric: Metric = "cosine") -> None:
        super().__init__()
        if k is not None and k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if metric not in get_args(Metric):
            raise ValueError(f"metric must be one of {', '.join(get_args(Metric))}, got {metric!r}")
        self.k, self.metric = k, metric
        self.examples, self.bank = 0, 0

    def prepare(self, data: DataModule) -> None:
        require_task(data, "NearestNeighbours", (
            "single_label_classification", "multi_label_classification", "regression"),
            "take LinearProbe")
        self.examples = len(data.splits["train"])
        self.kind = data.task.problem_type

    def adapt(self, model: TaskModel) -> None:
        if not self.examples:
            raise RuntimeError("NearestNeighbours needs `prepare` with the data first")
        name, layer = require_linear_head(model, "NearestNeighbours")
        single = self.kind == "single_label_classification"
        model.set_submodule(name, Neighbours(layer, self.examples, self.metric, single,
                                             self.kind == "regression"))
        model.requires_grad_(False)

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        layer = next(m for m in model.modules() if isinstance(m, Neighbours))
        self.bank = layer.features.nbytes + layer.votes.nbytes
        features = Features(model, data)
        rows, target = features.train, features.train.batch["target"]
        layer.features.copy_(rows.features)
        layer.votes.copy_(_votes(data, target, layer.votes))
        if self.k is None:
            def score(k: int) -> tuple[float, float]:
                return features.score(lambda read: layer.outputs(read, k))

            self.k = max(range(1, 1 + min(MOST, self.examples)), key=score)
            data.note(f"NearestNeighbours: k = {self.k}, chosen on val/{features.select_by}")
        layer.k.fill_(min(self.k, self.examples))

    def costs(self) -> dict[str, float]:
        return {"bank_bytes": float(self.bank)}


def _votes(data: DataModule, target: Tensor, like: Tensor) -> Tensor:
    """Rows (N, C) that neighbours' votes are the mean of."""
    if data.task.problem_type == "regression":
        mean, std = data.task.mean, data.task.std  # type: ignore[attr-defined]  # Regression's
        return ((target.double() - mean) / std)[:, None]
    return nn.functional.one_hot(target, like.shape[1]) if target.ndim == 1 else target


class Neighbours(HeadLayer):
    """A head that looks up the nearest rows.

    Args:
        layer: whose place it takes.
        examples: rows that it holds, N.
        metric: of nearness.
        single: one class of several is right.
        numbers: outputs are means of the neighbours' numbers, no logarithms of shares.
    """

    features: Tensor
    votes: Tensor
    k: Tensor

    def __init__(self, layer: nn.Linear, examples: int, metric: Metric, single: bool,
                 numbers: bool) -> None:
        super().__init__()
        like = layer.weight
        # at random until they are filled in, so that outputs depend on what is read
        self.register_buffer("features", torch.randn(examples, layer.in_features).to(like))
        self.register_buffer("votes", torch.rand(examples, layer.out_features).to(like))
        self.register_buffer("k", torch.ones((), dtype=torch.int64, device=like.device))
        self.metric, self.single, self.numbers = metric, single, numbers

    def forward(self, read: Tensor) -> Tensor:
        """Outputs (..., C) of features (..., D)."""
        return self.outputs(read, int(self.k))

    def outputs(self, read: Tensor, k: int) -> Tensor:
        """The same, by `k` neighbours."""
        with torch.autocast(read.device.type, enabled=False):
            rows = read.reshape(-1, read.shape[-1]).to(self.features.dtype)
            if self.metric == "cosine":
                near = nn.functional.normalize(rows) @ nn.functional.normalize(self.features).T
            else:
                near = -torch.cdist(rows, self.features,
                                    compute_mode="donot_use_mm_for_euclid_dist")
            share = self.votes[near.topk(k, dim=1).indices].mean(dim=1)
            if not self.numbers and self.single:
                share = (share + LEAST).log()
            elif not self.numbers:
                share = (share.clamp(LEAST, 1 - LEAST)).logit()
        return share.reshape(*read.shape[:-1], -1)
