"""The README's example."""

from torchmetrics.classification import MulticlassCohenKappa

from ftlab.tasks.classification import Classification
from ftlab.tasks.metric import Metric


class Kappa(Classification):
    """Classification with Cohen's kappa."""

    def metrics(self):
        kappa = Metric("kappa", lambda: MulticlassCohenKappa(self.outputs),
                       higher_is_better=True, unit="correlation")
        return [*super().metrics(), kappa]
