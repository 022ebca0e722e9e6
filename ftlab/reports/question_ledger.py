"""Questions to the test split, counted beside the results, and verdicts at the level that is left."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlab.errors import FtlabError
from ftlab.statistics.multiple_testing import LEVEL, corrected
from ftlab.statistics.successive_questions import level

FILE = ".questions.jsonl"
"""Beside the studies' results: all questions below one folder are one family."""


@dataclass(frozen=True)
class Question:
    """A question to the test split.

    Attributes:
        number: 1 for the first that was asked in this folder.
        level: at which its verdicts are given.
    """

    number: int
    level: float

    @property
    def said(self) -> str:
        """The correction, in a sentence."""
        return (f"This is question {self.number} to the test split: its verdicts are at the level {self.level:.2g}, so "
                f"that over all questions ever asked the chance of any false difference is at most {LEVEL:.0%}, and "
                "that of any false equality too. Each further question makes the level smaller; the same question "
                "again does not.")


def ask(results: Path, table: Mapping[str, Any]) -> Question:
    """Count a question, once however often it is asked: the same numbers are the same question.

    Args:
        results: folder above the studies' own; all that is asked in it is one family.
        table: a study's, as `ftlab table --json` writes it.

    Raises:
        FtlabError: the ledger is damaged, or cannot be written: nothing is answered then.
    """
    asked = {name: table[name] for name in ("study", "metric", "cells", "pairs")}
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    path = results / FILE
    try:
        results.mkdir(parents=True, exist_ok=True)
        with path.open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            known = [json.loads(line)["digest"] for line in file]
            if digest not in known:
                known.append(digest)
                number = len(known)
                file.write(json.dumps({"number": number, "study": table["study"], "metric": table["metric"],
                                       "level": level(number), "digest": digest}) + "\n")
                file.flush()
                os.fsync(file.fileno())
    except (OSError, ValueError, KeyError) as error:
        raise FtlabError(f"{path}: the questions to the test split cannot be counted: {error}",
                         "mend the file, or let it be written; without it nothing is answered") from error
    number = known.index(digest) + 1
    return Question(number, level(number))


def verdicts(table: Mapping[str, Any], at: float) -> list[dict[str, Any]]:
    """A verdict on each pair that the study asks about: with the baseline, or all without one.

    P-values are corrected by Holm within a backbone and data set, and times the number of these.

    Args:
        table: a study's, as `ftlab table --json` writes it.
        at: level.
    """
    return [line for group in table["best"] for line in _of_group(table["pairs"], group, at, len(table["best"]))]


def _of_group(pairs: Sequence[Mapping[str, Any]], group: Mapping[str, Any], at: float,
              groups: int) -> list[dict[str, Any]]:
    baseline = group["baseline"]
    asked = [pair for pair in pairs if (pair["backbone"], pair["dataset"]) == (group["backbone"], group["dataset"])
             and (baseline is None or baseline in (pair["a"], pair["b"]))]
    equal = corrected([float("nan") if pair["p_equal"] is None else pair["p_equal"] for pair in asked])
    lines = []
    for pair, p_equal in zip(asked, equal, strict=True):
        p = pair["p_holm"] if baseline is None else pair["p_baseline"]
        p = None if p is None else min(1.0, p * groups)
        verdict = "untested" if p is None else "undecided"
        if p is not None and p <= at:
            verdict = "better" if (pair["difference"] > 0) == group["higher_is_better"] else "worse"
        elif p_equal * groups <= at:
            verdict = "equal"
        lines.append({"backbone": pair["backbone"], "dataset": pair["dataset"], "a": pair["a"], "b": pair["b"],
                      "verdict": verdict, "difference": pair["difference"], "p": p, "seeds": pair["seeds"]})
    return lines
