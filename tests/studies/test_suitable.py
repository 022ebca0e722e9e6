"""`ftlab list techniques --for STUDY`: what fits, and why the rest does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ftlab.errors import Incompatible
from ftlab.studies.discover import members
from ftlab.studies.plan import plan
from ftlab.studies.study import load_study
from ftlab.studies.suitable import suitable
from ftlab.techniques.base import Technique


def test_suitable__says_what_a_plan_would(write: Callable[..., Path]) -> None:
    lines = {line[4:].split()[0].rstrip(":"): line for line in map(str, suitable(load_study(write())))}
    assert lines.keys() == members(Technique).keys()
    assert {line[:4] for line in lines.values()} <= {"yes ", "no  ", "?   "}
    for name in ("LoRA", "Untuned", "InContext", "FullFineTuning"):
        study = load_study(write(techniques={"one": name}))
        try:
            plan(study)
        except Incompatible as error:
            assert lines[name] == f"no   {name}: {error.what.partition(': ')[2]}"
        else:
            assert lines[name] == f"yes  {name}"


def test_suitable__names_the_pairs_that_differ(write: Callable[..., Path]) -> None:
    once = load_study(write()).cells[0].data
    short = once | {"init_args": once["init_args"] | {"max_length": 20}}
    lines = [str(fit) for fit in suitable(load_study(write(datasets={"long": once, "short": short})))]
    (line,) = [line for line in lines if " PromptTuning" in line]
    assert line.startswith("part PromptTuning on long from bert: ")
    assert sum(line.startswith("yes ") for line in lines) > 5
