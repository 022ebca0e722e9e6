from __future__ import annotations

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.techniques.base import Technique
from ftlab.techniques.features import Features, require_linear_head, require_task
from ftlab.techniques.logistic_head import LOGISTIC, logistic_optimum


class LogisticRegression(Technique):
    """Logistic regression on the features, its strength chosen on validation; in seconds.

    Take it as the baseline that papers on representations report. It is scikit-learn's
    `LogisticRegression` with the same C: the sum of the examples' losses times C, plus half the
    squared weights; with several labels one regression each. It minimises plain cross-entropy,
    where `LinearProbe` minimises the task's own loss, on augmented examples too. Nothing depends
    on the seed: the spread over seeds is 0 where splits and subset are the same.

    Cox (1958), https://doi.org/10.1111/j.2517-6161.1958.tb00292.x; of features: Kornblith, Shlens,
    Le (2019), https://arxiv.org/abs/1805.08974.

    Args:
        C: inverse strength of the penalty, above 0; null for the best of ten from 1e-4 to 1e4 on
            validation, by the task's default metric, then by the loss.
    """

    trains = False

    def __init__(self, C: float | None = None) -> None:  # noqa: N803  scikit-learn's own name
        super().__init__()
        if C is not None and C <= 0:
            raise ValueError(f"C must be above 0, got {C}")
        self.C = C

    def prepare(self, data: DataModule) -> None:
        require_task(data, "LogisticRegression", LOGISTIC,
                     "take LinearProbe, which for numbers is ridge regression")

    def adapt(self, model: TaskModel) -> None:
        require_linear_head(model, "LogisticRegression")
        model.requires_grad_(False)

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        _, layer = require_linear_head(model, "LogisticRegression")
        features = Features(model, data)
        best, chosen = logistic_optimum(features, layer, self.C)
        if self.C is None:
            self.C = chosen
            data.note(f"LogisticRegression: C = {self.C:.3g}, chosen on val/{features.select_by}")
        data.note(f"LogisticRegression: {best.iterations} iterations left {best.gradient:.1e} of "
                  "the gradient")
        best.put(layer)
