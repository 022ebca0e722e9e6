"""Between which values a metric can lie, by its name."""

from __future__ import annotations

import math
import re

_SHARE = re.compile(
    r"(^|_)(accuracy|f1|precision|recall|auroc|calibration_error|exact_match|map|mar|bleu"
    r"|rouge[a-z0-9]*)(_|$)",
    re.IGNORECASE,
)
# as users call metrics of their own; not shown in percent
_ALSO_SHARE = re.compile(
    r"(^|_)(specificity|sensitivity|jaccard|iou|miou|dice|fbeta|f[0-9]+|auprc|auc|roc_auc|hamming"
    r"|ppv|npv|[tf][pn]r|eer|ece|ndcg|mrr|hit_rate|chrf|meteor)(_|$)", re.IGNORECASE)
_ERROR_RATE = re.compile(r"(^|_)(wer|cer)(_|$)", re.IGNORECASE)
_CORRELATION = re.compile(
    r"(^|_)(pearson|spearman|kendall|matthews|mcc|kappa|correlation|concordance|ccc"
    r"|cosine_similarity)(_|$)", re.IGNORECASE)
_NOT_NEGATIVE = re.compile(
    r"(^|_)(loss|mse|rmse|mae|perplexity|ppl|nll|brier|mape|smape|msle|rmsle|ter|distance|entropy)(_|$)",
    re.IGNORECASE)
_AT_MOST_ONE = re.compile(r"(^|_)(r2|explained_variance)(_|$)", re.IGNORECASE)


def is_percent(metric: str) -> bool:
    """Return whether a metric is shown in percent: decided by its name, not by its values.

    Shares are: accuracy, F1, precision, recall, AUROC, calibration error, exact match, mean
    average precision and recall, word and character error rate, BLEU and ROUGE, as words of the
    name (`f1_macro`, `f1/<class>`). A loss, a perplexity or a correlation is not.
    """
    name = _family(metric)
    return _SHARE.search(name) is not None or _ERROR_RATE.search(name) is not None


def limits(metric: str) -> tuple[float, float]:
    """The least and the greatest value that a metric can have; infinite where nothing ends it.

    Costs are not negative. An error rate has no upper end: more words may be wrong than there are.
    """
    name = _family(metric)
    if _SHARE.search(name) or _ALSO_SHARE.search(name):
        return 0.0, 1.0
    if _CORRELATION.search(name):
        return -1.0, 1.0
    if _AT_MOST_ONE.search(name):
        return -math.inf, 1.0
    if _ERROR_RATE.search(name) or _NOT_NEGATIVE.search(name) or metric.startswith("cost/"):
        return 0.0, math.inf
    return -math.inf, math.inf


def _family(metric: str) -> str:
    """`f1` of `test/f1/<class>`."""
    return re.sub("^(test|val|train)/", "", metric).partition("/")[0]
