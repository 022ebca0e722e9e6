"""The features of a run's frozen backbone: what its head's linear layer reads of examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ftlab.backbones.source_layer import SourceLayer, lacking
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.examples import SplitName
from ftlab.errors import Incompatible
from ftlab.techniques.base import Technique
from ftlab.techniques.features import Features, Rows, linear_head
from ftlab.training.adapt import adapt, load
from ftlab.training.event_log import Report
from ftlab.training.fit import begin_without_training, best_epoch
from ftlab.training.make_trainer import silent_trainer
from ftlab.training.run import Run
from ftlab.training.shortcuts.base import Fitting


@dataclass(frozen=True)
class FrozenFeatures:
    """The features of a backbone before anything trains.

    Attributes:
        rows: of the training split, in its order, without augmentation.
        layer: path of the head's linear layer in the model.
        run: whose backbone it is.
    """

    rows: Rows
    layer: str
    run: Run

    def source_layer(self) -> SourceLayer:
        """The checkpoint's own classifier on these features.

        Raises:
            Incompatible: it has none.
        """
        _, inside, path = self.layer.partition("network.")
        if not inside:
            raise lacking("a head on pooled features, which no classifier of the checkpoint reads")
        return self.run.backbone.source_layer(path)


def frozen_features(run: Run, report: Report) -> FrozenFeatures:
    """Read the features of a run's training examples as the run itself would, and train nothing.

    Device (one of them), precision and cached prefixes are the run's; its technique and stages
    play no part.

    Args:
        run: not loaded yet.
        report: takes its events.

    Raises:
        Incompatible: the head is more than one linear layer on the backbone's own features.
    """
    rows: list[Rows] = []
    reader = _Reader(lambda features: rows.append(features.train), linear=True)
    run = _read(run, reader, ("train",), report)
    return FrozenFeatures(rows[0], reader.layer, run)


def unlabelled_features(run: Run, splits: Sequence[SplitName], report: Report
                        ) -> dict[SplitName, Tensor]:
    """Read a vector an example of splits and streams, whose labels play no part, in the same way.

    Args:
        run: as of `frozen_features`.
        splits: by name, as `test.target` or `beside.target`.
        report: takes its events.

    Returns:
        What the last linear layer of any head reads, (N, D) in the order of each split.

    Raises:
        Incompatible: there is no new head.
    """
    found: dict[SplitName, Tensor] = {}
    reader = _Reader(lambda features: found.update(
        {split: features.vectors(split) for split in splits}))
    _read(run, reader, splits, report)
    return found


def _read(run: Run, reader: _Reader, splits: Sequence[SplitName], report: Report) -> Run:
    """The run of a reader, which has read."""
    reader.sampling = run.data.sampling  # whatever it is: nothing is drawn
    run = replace(run, technique=reader, before=(),
                  settings=replace(run.settings, devices=1, nodes=None, strategy="auto"))
    memory = load(run, report)
    model, guard = adapt(run, report)
    judge = best_epoch(run, model, stop=lambda: False)  # of a trial, which leaves no checkpoint
    begin_without_training(Fitting(run, guard, silent_trainer(run), memory, judge, splits, report))
    return run


class _Reader(Technique):
    """Read features, train nothing.

    Args:
        read: reads them.
        linear: refuse a head that is more than one linear layer.
    """

    trains = False

    def __init__(self, read: Callable[[Features], object], linear: bool = False) -> None:
        super().__init__()
        self.read, self.linear = read, linear
        self.layer = ""

    def adapt(self, model: TaskModel) -> None:
        if self.linear:
            found = linear_head(model)
            if found is None:
                raise Incompatible("the head is not one linear layer on the backbone's own features",
                                   "give the backbone a pooling, whose head is")
            self.layer, _ = found
        model.requires_grad_(False)

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.read(Features(model, data))
