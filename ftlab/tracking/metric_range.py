"""Range of a metric's numbers, and whether they are shown in percent."""

from __future__ import annotations

import re

from ftlab.tracking.metric_facts import LIMITS, PERCENT, MetricName, Unit

_BY_NAME: dict[Unit, str] = {
    "share": "accuracy f1 precision recall auroc calibration_error exact_match map mar bleu "
             "rouge[a-z0-9]*",
    "error rate": "wer cer",
    "fraction": "specificity sensitivity jaccard iou miou dice fbeta f[0-9]+ auprc auc roc_auc "
                "hamming ppv npv [tf][pn]r eer ece ndcg mrr hit_rate chrf meteor",
    "correlation": "pearson spearman kendall matthews mcc kappa correlation concordance ccc "
                   "cosine_similarity",
    "at most one": "r2 explained_variance",
    "non-negative": "loss mse rmse mae perplexity ppl nll brier mape smape msle rmsle ter "
                    "distance entropy",
}


def is_percent(metric: str) -> bool:
    """Return whether a metric is shown in percent: decided by its unit, not by its values."""
    return unit(metric) in PERCENT


def limits(metric: str) -> tuple[float, float]:
    """The least and the greatest value that a metric can have; infinite where nothing ends it."""
    return LIMITS[unit(metric)]


def unit(metric: str) -> Unit:
    """Kind of a metric's numbers: as its facts have it, else as its name lets guess."""
    return metric.facts.unit if isinstance(metric, MetricName) else unit_by_name(metric)


def unit_by_name(metric: str) -> Unit:
    """Guess a metric's unit from the words of its name.

    For costs, and for stores of earlier versions and of other programs, which hold no facts about
    their metrics; elsewhere a metric's own entry (`ftlab.tasks.metric.Metric`) states its unit.
    """
    if metric.startswith("cost/"):
        return "non-negative"
    family = re.sub("^(test|val|train)/", "", metric).partition("/")[0]
    return next((unit for unit, words in _BY_NAME.items() if re.search(
        f"(^|_)({words.replace(' ', '|')})(_|$)", family, re.IGNORECASE)), "free")
