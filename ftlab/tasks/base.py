"""What every task is: head width, loss, metrics and prediction records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import MetricCollection

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Task(ABC):
    """What is predicted. It learns its outputs from the training labels, then encodes labels.

    A task is made without data; `fit` tells it the training labels, after which `outputs`,
    `encode`, `loss`, `metrics` and `records` may be used.
    """

    auto_classes: ClassVar[tuple[str, ...]] = ()
    """transformers Auto classes whose own head fits, one a modality."""

    @abstractmethod
    def fit(self, labels: Sequence[Any]) -> None:
        """Learn from the raw training labels (after `Subset`) what there is to predict."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Width of the head."""

    @abstractmethod
    def encode(self, label: Any, where: str) -> Any:
        """A raw label as a target that `torch.as_tensor` takes.

        Raises:
            InputError: a label that training lacks; `where` says the place.
        """

    def stratum(self, label: Any) -> Hashable | None:
        """What splits are stratified by; None where there is nothing to stratify by."""
        return None

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Mean loss of a batch, a scalar."""

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Fresh metrics, updated with `update(outputs, target)`; keys without split prefix.

        Vector-valued metrics (per class) are flattened by `scalars`.
        """

    @abstractmethod
    def higher_is_better(self, metric: str) -> bool:
        """Whether more of a metric (name without split prefix, or `loss`) is better."""

    def scalars(self, computed: Mapping[str, Tensor]) -> dict[str, float]:
        """Computed metrics as plain numbers."""
        return {name: float(value) for name, value in computed.items()}

    @abstractmethod
    def records(self, outputs: Tensor, target: Tensor) -> dict[str, list[Any]]:
        """Columns `target`, `prediction`, `scores` of the prediction records of a batch."""

    def figures(self, records: Mapping[str, Sequence[Any]]) -> dict[str, Figure]:
        """Figures of a test split's prediction records, by name."""
        return {}

    def summary(self) -> dict[str, Any]:
        """What a reader of the run wants to know of the labels (classes, counts)."""
        return {}

    @staticmethod
    def stack(targets: Sequence[Any]) -> Tensor:
        """Targets of a batch as one tensor; a task with ragged targets overrides it."""
        return torch.as_tensor(targets)
