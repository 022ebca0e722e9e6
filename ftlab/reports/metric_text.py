"""How a metric's numbers are written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

_PERCENT = re.compile(
    r"(^|_)(accuracy|f1|precision|recall|auroc|calibration_error|exact_match|map|mar|wer|cer|bleu"
    r"|rouge[a-z0-9]*)(_|$)",
    re.IGNORECASE,
)


def is_percent(metric: str) -> bool:
    """Whether a metric is shown in percent: decided by its name, not by its values.

    Shares are: accuracy, F1, precision, recall, AUROC, calibration error, exact match, mean
    average precision and recall, word and character error rate, BLEU and ROUGE, as words of the
    name (`f1_macro`, `f1/<class>`). A loss, a perplexity or a correlation is not.
    """
    name = re.sub("^(test|val|train)/", "", metric).partition("/")[0]
    return _PERCENT.search(name) is not None


def digits(metric: str, values: Sequence[float]) -> Callable[[float], str]:
    """How a metric's numbers are written: one precision for all of `values`, the largest leads.

    Shares in percent with two decimals, others with about four digits.
    """
    if is_percent(metric):
        return lambda value: f"{100 * value:.2f}"
    sizes = [abs(value) for value in values if math.isfinite(value)]
    largest = max(sizes, default=0.0)
    if 0 < largest < 0.01 or largest >= 1e6:
        return lambda value: f"{value:.3e}"
    decimals = 4 if largest < 10 else 2 if largest < 1000 else 1
    return lambda value: f"{value:,.{decimals}f}"
