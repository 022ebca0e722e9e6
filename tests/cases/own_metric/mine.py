"""The README's example."""

from torchmetrics.classification import MulticlassCohenKappa

from ftlab.tasks.classification import Classification


class Kappa(Classification):
    """Classification with Cohen's kappa."""

    def metrics(self):
        metrics = super().metrics()
        metrics.add_metrics({"kappa": MulticlassCohenKappa(self.outputs)})
        return metrics
