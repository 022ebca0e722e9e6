"""Which technique goes with which task: found out on tiny models, shown in docs/tasks.md.

A world is a file in `tests/worlds`: `make(fixture)` gives a function that makes a fresh backbone
and data module. The contract tests and the page's matrix walk the same worlds.
"""

import copy
import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import worlds

from ftlab.backbones.base import Backbone, OutputType
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.examples import STREAM, Stream
from ftlab.errors import Incompatible
from ftlab.studies.discover import members
from ftlab.techniques.base import Technique
from ftlab.techniques.peft_technique import PeftTechnique
from ftlab.techniques.wrapper import Wrapper

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tasks.md"
TECHNIQUES = {name: cls for name, cls in members(Technique).items() if all(
    parameter.default is not parameter.empty or parameter.name == "technique"
    for parameter in inspect.signature(cls).parameters.values())}
"""All but those that need a file of one's own, which have tests of their own."""
WORLDS = sorted(info.name for info in pkgutil.iter_modules(worlds.__path__))
FEW = ["image_classification", "text_classification"]
World = Callable[[], tuple[Backbone, DataModule]]
COLUMNS = ("group", "client", "domain")
HIGH = {"IA3", "LinearProbe", "BitFit", "NormTuning"}
WHOLE = {"FullFineTuning", "GradualUnfreezing", "LinearProbeThenFineTune", "SetFit"}
BEGIN, END = "<!-- matrix: written by the tests -->\n", "<!-- end of matrix -->\n"


_made: dict[str, World] = {}


def make_world(name: str, fixture: Callable[[str], Any]) -> World:
    """Its files are written once a process, which the session's fixtures allow."""
    if name not in _made:
        _made[name] = importlib.import_module(f"worlds.{name}").make(fixture)
    return _made[name]


def tried(name: str) -> list[str]:
    """Worlds in which a technique runs: few for a wrapper, which is tried in all without a run, and
    for a preset of PEFT's layers, which a general one tries."""
    return FEW if _few(name) else WORLDS


def tried_always(name: str) -> list[str]:
    """Those of a plain session; `pytest -m "slow or not slow"` runs all."""
    return _shared_out().get(name, tried(name))


@functools.cache
def _shared_out() -> dict[str, list[str]]:
    """Technique -> one world for each that is tried in few; for each other one of these few, two more
    that it goes with and one that refuses it: of such worlds always those that the fewest have so far.

    What a technique goes with is the page's word: one that the page lacks is tried in all.
    """
    counts = dict.fromkeys(WORLDS, 0)
    chosen: dict[str, list[str]] = {}

    def take(among: Iterable[str], number: int) -> list[str]:
        taken = sorted(among, key=lambda world: counts[world])[:number]
        counts.update({world: counts[world] + 1 for world in taken})
        return taken

    for name, goes in page_says().items():
        if name not in TECHNIQUES:
            continue
        if _few(name):
            chosen[name] = take([world for world in FEW if world in goes] or FEW, 1)
            continue
        refused = [world for world in WORLDS if world not in goes]
        chosen[name] = [*take([world for world in goes if world in FEW], 1),
                        *take([world for world in goes if world not in FEW], 2), *refused[:1]]
    return chosen


@functools.cache
def page_says() -> dict[str, list[str]]:
    """The worlds that a technique goes with, by the page's matrix; nothing before it has all worlds."""
    rows = [(name, marks.split(" | ")) for name, marks in
            re.findall(r"^\| `(\w+)` \| (.*) \|$", shown(), re.MULTILINE)]
    return {name: [world for world, mark in zip(WORLDS, marks, strict=True) if mark == "yes"]
            for name, marks in rows if len(marks) == len(WORLDS)}


def _few(name: str) -> bool:
    cls = TECHNIQUES[name]
    preset = issubclass(cls, PeftTechnique) and "method" not in inspect.signature(cls).parameters
    return preset or issubclass(cls, Wrapper)


def in_turn(firsts: Iterable[str], seconds: Iterable[str], one_of: int | None = None) -> list[Any]:
    """All pairs for `parametrize`; a plain session takes one of so many seconds with each first, in turn.

    Without a number that is one second with each first.
    """
    seconds = list(seconds)
    one_of = one_of or len(seconds)
    return [pytest.param(first, second, marks=() if (i + j) % one_of == 0 else pytest.mark.slow)
            for i, first in enumerate(firsts) for j, second in enumerate(seconds)]


def title(world: str) -> str:
    """First line of the world's docstring."""
    said = inspect.getdoc(importlib.import_module(f"worlds.{world}")) or ""
    return said.splitlines()[0]


def make_technique(name: str) -> Technique:
    """With a rate that a tiny random network needs, everything else as shipped."""
    cls = TECHNIQUES[name]
    arguments = inspect.signature(cls).parameters
    if "technique" in arguments:
        inner = "LoRA" if "merge" not in cls.never_around else "BottleneckAdapter"
        return cls(technique=TECHNIQUES[inner](lr=3e-3))
    if "lr" not in arguments:
        return cls()
    return cls(lr=3e-2 if name in HIGH else 3e-3 if name in WHOLE else 1e-2)


def along(data: DataModule, names: Iterable[str], columns: Collection[str] = ()) -> None:
    """Give data that are not loaded yet streams of their own training examples, and columns."""
    if columns:
        load = data.load

        def load_with_columns() -> None:
            load()
            for examples in data.splits.values():
                examples.columns |= {column: ["ab"[n % 3 // 2] for n in range(len(examples))]
                                     for column in columns}
            if "group" in columns:
                data.task.groups = ("a", "b")

        object.__setattr__(data, "load", load_with_columns)
    data.beside |= {name: Stream(data.sources["train"], labelled=True) for name in names}
    data.sources |= {f"{STREAM}{name}": stream.source for name, stream in data.beside.items()}


@functools.cache
def _loaded(world: World) -> tuple[Backbone, DataModule]:
    backbone, data = world()
    along(data, (), COLUMNS)
    data.load()
    data.connect(backbone, seed=0)
    return backbone, data


@functools.cache
def _built(world: World, output_type: OutputType | None) -> TaskModel:
    backbone, data = _loaded(world)
    return backbone.build(data.task, output_type)


def build(world: World, output_type: OutputType | None = None) -> tuple[DataModule, TaskModel]:
    """A world's data, read once a process, and a copy of the model that is built once."""
    return _loaded(world)[1], copy.deepcopy(_built(world, output_type))


@functools.cache
def refusal(name: str, world: World) -> str | None:
    """Why a technique is refused in a world; None where it goes."""
    technique = make_technique(name)
    try:
        technique.prepare(_loaded(world)[1])
        data, model = build(world, technique.output_type)
        technique.bind(model, data.task)
    except Incompatible as error:
        return error.what
    return None


def render(refusals: Mapping[tuple[str, str], str | None]) -> str:
    """The matrix in Markdown: a row a technique, a column a world, a footnote a reason."""
    refusals = {pair: reason and general(reason) for pair, reason in refusals.items()}
    reasons = list(dict.fromkeys(reason for reason in refusals.values() if reason))
    columns = [name.replace("_", " ") for name in WORLDS]
    lines = ["| technique | " + " | ".join(columns) + " |", "|---" * (len(WORLDS) + 1) + "|"]
    for technique in TECHNIQUES:
        reason = [refusals[technique, world] for world in WORLDS]
        marks = ["yes" if r is None else f"no ({reasons.index(r) + 1})" for r in reason]
        lines.append(f"| `{technique}` | " + " | ".join(marks) + " |")
    lines += ["", "Tried with:", ""]
    lines += [f"- {column}: {title(world)[0].lower()}{title(world)[1:]}"
              for column, world in zip(columns, WORLDS, strict=True)]
    lines += ["", "Refused because:", ""]
    lines += [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join(lines) + "\n"


def general(reason: str) -> str:
    """A refusal without the names of one backbone, data set or task."""
    reason = re.sub(r"^\w+\([^)]*\): ", "", reason)
    reason = re.sub(r"the task [A-Z]\w+", "this task", reason)
    return re.sub(r"(; |, and )[A-Z]\w+( with [A-Z]\w+)?", r"\1this one", reason)


def shown() -> str:
    """The matrix that the page has."""
    return re.search(f"{BEGIN}(.*){END}", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]


def write(matrix: str) -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + matrix + END + rest.partition(END)[2], encoding="utf-8")
