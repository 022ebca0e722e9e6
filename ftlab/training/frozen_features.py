"""The features of a run's frozen backbone: what its head's linear layer reads of examples."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ftlab.backbones.source_layer import SourceLayer, lacking
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.techniques.base import Technique
from ftlab.techniques.features import Features, Rows, linear_head
from ftlab.training.adapt import load
from ftlab.training.event_log import Report
from ftlab.training.fit import fit
from ftlab.training.make_trainer import no_greetings
from ftlab.training.run import Run


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
    reader = _Reader()
    run = replace(run, technique=reader, before=(),
                  settings=replace(run.settings, devices=1, strategy="auto"))
    with no_greetings():
        fit(run, load(run, report), report, stop=lambda: False)
    assert reader.rows is not None
    return FrozenFeatures(reader.rows, reader.layer, run)


class _Reader(Technique):
    """Read features, train nothing."""

    trains = False

    def __init__(self) -> None:
        super().__init__()
        self.rows: Rows | None = None
        self.layer = ""

    def adapt(self, model: TaskModel) -> None:
        found = linear_head(model)
        if found is None:
            raise Incompatible("the head is not one linear layer on the backbone's own features",
                               "give the backbone a pooling, whose head is")
        self.layer, _ = found
        model.requires_grad_(False)

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.rows = Features(model, data).train
