from __future__ import annotations

import torch

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.techniques.base import Technique
from ftlab.techniques.features import Features, require_linear_head, require_task


class NearestClassMean(Technique):
    """Class of the nearest mean of training features: a baseline in seconds, without any choice.

    Take it to see what the features give before anything is fitted, and with very few examples.
    The means are the weights of the linear head, which every export has: the distance to a mean
    m is |x|^2 - 2 x m + |m|^2, of which the first part is the same for all classes. Scores are
    those of normal distributions around the means, of one variance, all classes equally frequent.
    Nothing depends on the seed.

    Mensink, Verbeek, Perronnin, Csurka (2013), https://doi.org/10.1109/TPAMI.2013.83; with few
    examples: Snell, Swersky, Zemel (2017), https://arxiv.org/abs/1703.05175.
    """

    trains = False

    def __init__(self) -> None:
        super().__init__()

    def prepare(self, data: DataModule) -> None:
        require_task(data, "NearestClassMean", ("single_label_classification",),
                     "take NearestNeighbours, or LinearProbe")

    def adapt(self, model: TaskModel) -> None:
        _, layer = require_linear_head(model, "NearestClassMean")
        if layer.bias is None:
            raise Incompatible("NearestClassMean needs a head with a bias, and this one has none",
                               "give the backbone a pooling")
        model.requires_grad_(False)

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        _, layer = require_linear_head(model, "NearestClassMean")
        rows = Features(model, data).train
        features, target = rows.features, rows.batch["target"]
        counts = target.bincount(minlength=layer.out_features).double()  # each at least 1
        means = features.new_zeros(layer.out_features, features.shape[1])
        means.index_add_(0, target, features).div_(counts[:, None])
        # of one number; the tiniest keeps examples that all lie on their mean from dividing by 0
        variance = (features - means[target]).square().mean().clamp(min=1e-12)
        with torch.no_grad():
            layer.weight.copy_(means / variance)
            layer.bias.copy_(-means.square().sum(dim=1) / (2 * variance))
