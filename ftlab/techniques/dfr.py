from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.groups import GROUP, required_groups
from ftlab.errors import Incompatible
from ftlab.techniques.base import Choice, Technique
from ftlab.techniques.features import Features, require_linear_head, require_task
from ftlab.techniques.group_draws import balanced, halves, worst_accuracy
from ftlab.techniques.l1_logistic import l1_logistic
from ftlab.techniques.logistic_head import LOGISTIC
from ftlab.techniques.wrapper import Wrapper


class DFR(Wrapper):
    """Fit the head anew on validation examples, as many of each group (a wrapper).

    Deep feature reweighting: after the fit, and after what the technique finishes with, an L1
    logistic regression takes the head's place. Its C is the one with which the worst group does
    best on half of the validation examples, fitted on the other half; with it the head is fitted
    `fits` times on the whole split, and is the mean. Each fit draws as many examples of each group
    as the smallest has, and standardises features by the rows it draws. Groups are the values of
    the data set's column `group`. Take it where a rare group is what counts and validation has
    more of it than train: the features are often there, and the head alone leans on the shortcut.
    Validation labels are trained on, which a note of the run says: its scores on validation, and a
    choice between runs by them, are not of held-out examples. With fewer groups than pairs of
    class and group, put both into the column, as the authors do.

    Kirichenko, Izmailov, Wilson (2023), https://arxiv.org/abs/2204.02937

    Args:
        technique: what adapts the model, the head included.
        C: inverse strengths of the L1 penalty that are tried, above 0; of equals the first.
        fits: draws whose weights are averaged, 1 or more.
    """

    search_space = {"fits": Choice((1, 10, 20))}
    of_training = True
    columns = frozenset({GROUP})

    def __init__(self, technique: Technique,
                 C: tuple[float, ...] = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01),  # noqa: N803  scikit-learn's own name
                 fits: int = 20) -> None:
        super().__init__(technique)
        if not C or min(C) <= 0:
            raise ValueError(f"C must be numbers above 0, one at least, got {list(C)}")
        if fits < 1:
            raise ValueError(f"fits must be at least 1, got {fits}")
        self.C, self.fits = tuple(C), fits

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)
        require_task(data, "DFR", LOGISTIC[:1], "leave it out for this task")
        groups = required_groups(data.splits, "validation", "DFR")
        sizes = torch.bincount(groups.codes, minlength=len(groups.names)).tolist()
        for name, size, share in zip(groups.names, sizes, groups.shares, strict=True):
            if size == 1 or (share and not size):  # a group of test examples alone is none here
                raise Incompatible(f"DFR halves each group's validation examples, and group {name!r} "
                                   f"has {size}", "give the validation split 2 of each at least, or "
                                   "join the group with another")
        held = set(data.splits["validation"].targets)
        if lacking := [name for code, name in enumerate(data.task.names) if code not in held]:
            raise Incompatible("DFR fits the head on the validation split, which has no example of "
                               f"class {lacking[0]!r}", "give the split some of each class")
        self.codes = groups.codes

    def adapt(self, model: TaskModel) -> None:
        self.technique.adapt(model)
        require_linear_head(model, "DFR")

    def settle(self, model: TaskModel, data: DataModule, score: Callable[[], float]) -> None:
        self.technique.settle(model, data, score)
        _, layer = require_linear_head(model, "DFR")
        seen = Features(model, data).validation
        order = torch.cat([each.batch["index"] for each in seen]).argsort()  # as in the split
        features = torch.cat([each.features for each in seen])[order].double()
        target = torch.cat([each.batch["target"] for each in seen])[order]
        head, codes = _Heads(features, target, layer), self.codes
        generator = torch.Generator().manual_seed(data.seed)
        best, worst = self._strength(head, codes, generator)
        drawn = [balanced(codes, generator) for _ in range(self.fits)]
        fitted = [head.fit(positions, best) for positions in drawn]
        weight, bias = (torch.stack(parts).mean(dim=0) for parts in zip(*fitted, strict=True))
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(bias)
        self.notes.append(
            "DFR: the head was trained on validation labels, so that this run's scores on validation "
            f"are not of held-out examples; C {best:g}, with which the worst group's accuracy on a "
            f"held-out half of them was {worst:.3g}; {self.fits} fits of {len(drawn[0])} examples")

    def _strength(self, head: _Heads, codes: Tensor, generator: torch.Generator
                  ) -> tuple[float, float]:
        """The best C, and the accuracy of the worst group on the half that it was not fitted on."""
        chosen, fitted = halves(codes, generator)
        fitted = fitted[balanced(codes[fitted], generator)]
        found = {strength: worst_accuracy(head.right(chosen, *head.fit(fitted, strength)),
                                          codes[chosen])
                 for strength in sorted(self.C)}  # from few weights to many, each from the last
        head.start = None
        best = max(self.C, key=lambda strength: found[strength])
        return best, found[best]


class _Heads:
    """Linear layers of features, fitted on some rows."""

    def __init__(self, features: Tensor, target: Tensor, layer: nn.Linear) -> None:
        self.features, self.target = features, target
        self.outputs, self.biased = layer.out_features, layer.bias is not None
        self.start: Tensor | None = None
        """Weight of the last fit, from which the next begins."""

    def fit(self, positions: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        """Weight (O, D) and bias (O,) for features as they are; a layer without bias has zeros."""
        rows = self.features[positions]
        mean, scale = rows.mean(dim=0), rows.std(dim=0, correction=0)
        scale[scale <= 1e-9 * mean.abs()] = 1  # all alike but for rounding
        if not self.biased:
            mean = torch.zeros_like(mean)
        columns = [(rows - mean) / scale, *([rows.new_ones(len(rows), 1)] if self.biased else [])]
        self.start = l1_logistic(torch.cat(columns, dim=1), self.target[positions], self.outputs,
                                 strength, self.start)
        weight = self.start[:, :len(mean)] / scale
        shift = self.start[:, -1] if self.biased else weight.new_zeros(len(weight))
        return weight, shift - weight @ mean

    def right(self, positions: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """True for rows that a layer gives their class, (P,)."""
        outputs = self.features[positions] @ weight.T + bias
        return (outputs.argmax(dim=1) == self.target[positions]).cpu()
