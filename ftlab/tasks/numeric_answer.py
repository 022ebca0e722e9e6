"""The number at the end of a reasoned answer, as the field's definitions read it.

- `marked`: right behind the first `####`. Cobbe, Kosaraju et al. (2021), GSM8K,
  https://arxiv.org/abs/2110.14168; `strict-match` of lm-evaluation-harness' gsm8k.
- `last`: the last number of the text; `flexible-extract` there.
- `peft`: of PEFT's method_comparison/MetaMathQA at commit 5d602fd: all that is on the line behind
  the last `The answer is: `, or else its other phrases, or else `#### `.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable
from decimal import Decimal, InvalidOperation
from typing import Literal

Rule = Literal["marked", "last", "peft"]

NONE = math.nan
"""Answer of a text without one: it equals nothing, itself included."""

_MARKED = re.compile(r"#### (-?[0-9.,]+)")
_NUMBER = re.compile(r"-?\$?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)")
_PEFT_MARKS = ("The answer is: ", "The answer is ", "The final answer is: ",
               "The final answer is ", "#### ")


def answer(rule: Rule) -> Callable[[str], Hashable]:
    """Function that finds the answer of a text; two answers compare with `==`.

    Of `marked` and `last` they are numbers, without thousands' commas, dollar signs and the dot
    that ends a sentence: 18 and 18.00 are equal, which their sources call different. `last` wants
    a digit in a number, where its source takes a text's final dots for one.

    PEFT's are decimals and fractions as numbers, and all else as text: 1,000 and "18 dollars"
    equal themselves alone. 14 of GSM8K's 1,319 test answers have a comma.
    """
    return {"marked": _marked, "last": _last, "peft": _peft}[rule]


def _marked(text: str) -> Hashable:
    mark = _MARKED.search(text)
    return NONE if mark is None else _value(mark[1])


def _last(text: str) -> Hashable:
    numbers = _NUMBER.findall(text)
    return _value(numbers[-1]) if numbers else NONE


def _value(digits: str) -> Hashable:
    try:
        return Decimal(digits.replace(",", "").replace("$", "").removesuffix("."))
    except InvalidOperation:  # 1.2.3, or dots alone
        return NONE


def _peft(text: str) -> Hashable:
    text = text.strip().rstrip(".!?")
    mark = next((mark for mark in _PEFT_MARKS if mark in text), None)
    if mark is None:
        return NONE
    line = text.rpartition(mark)[-1].strip().split("\n", 1)[0].strip(" .!?$%")
    number = _fraction(line)
    return line if number is None else number


def _fraction(text: str) -> float | None:
    """Number that "0.5" or "1/2" writes; None for other texts."""
    try:
        numbers = [Decimal(part.strip()) for part in text.split("/")]
        match numbers:
            case [number]:
                return float(number)
            case [above, below]:
                return float(above / below)
    except (ArithmeticError, ValueError):  # no decimal, or nothing to divide by
        pass
    return None
