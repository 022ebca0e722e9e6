"""A study: a question, as one YAML file of backbones x datasets x techniques x seeds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ftlab.activity import doing
from ftlab.errors import InputError
from ftlab.studies import analysis_keys, draws
from ftlab.studies.components import Component
from ftlab.studies.names import check_name
from ftlab.studies.overrides import override
from ftlab.studies.paper_numbers import Paper, check_paper
from ftlab.studies.seeds import DRAWS, UntilDecided, check_decidable, check_list
from ftlab.studies.seeds import check as check_seeds
from ftlab.studies.study_entries import AXES, checked, mapping, retained
from ftlab.studies.tuned import Tuned, check_by_seed, check_tuned
from ftlab.studies.vary import Levels, check_override, expanded
from ftlab.studies.yaml_file import Place, read
from ftlab.tracking.cell_hash import cell_hash, earlier_hash
from ftlab.tracking.mlflow_values import name_of
from ftlab.tracking.records import CellKey
from ftlab.wording import did_you_mean

KEYS = ["name", "question", *AXES, "vary", "levels", "seeds", "tuned", "select_by", "report", "trainer",
        "retain", "quantized", "baseline", "groups", "paper", "mirror"]


@dataclass(frozen=True)
class Cell:
    """One (backbone, dataset, technique) of a study, checked.

    Attributes:
        key: its names and the hash of everything below.
        backbone, data, technique: checked components.
        trainer: settings, the technique's own overriding the study's.
        select_by: the validation metric that chooses the epoch.
        before: checked stages of the technique, see `study_entries.stages`.
        retain: checked data sets on which forgetting is measured, by name.
        quantized: names of what finished models are quantised to and measured as.
        by_seed: the technique with each seed, where a study has the settings of several searches;
            `technique` is then none that runs.
        drawn: what a seed draws, see `seeds.DRAWS`.
    """

    key: CellKey
    backbone: Component
    data: Component
    technique: Component
    trainer: dict[str, Any]
    select_by: str
    before: Sequence[dict[str, Any]] = ()
    retain: Mapping[str, Component] = field(default_factory=dict)
    by_seed: Mapping[str, Component] = field(default_factory=dict)
    drawn: tuple[str, ...] = DRAWS[:1]
    quantized: tuple[str, ...] = ()

    @property
    def draws_split(self) -> bool:
        """True where each seed draws its own training examples."""
        return draws.draws_split(self.drawn)

    @property
    def keeps_head(self) -> bool:
        """True where the last stage carries its head on."""
        return any(stage["carry"] == "all" for stage in self.before[-1:])

    @property
    def config(self) -> dict[str, Any]:
        """All of it as plain data, for the record and for the workers."""
        return config_of(self.backbone, self.data, self.technique, self.trainer, self.select_by,
                         self.before, self.retain, self.by_seed, self.drawn, self.quantized)

    @property
    def single(self) -> list[Cell]:
        """The cell with each of the settings that its seeds run, once each; mostly itself alone."""
        different: list[Component] = []
        for technique in self.by_seed.values():
            different += [technique] * (technique not in different)
        return [replace(self, technique=technique, by_seed={}) for technique in different] or [self]

    def of_seed(self, seed: int) -> Cell:
        """The cell with the data, and the data of its stages, that a seed has drawn."""
        if not self.draws_split:
            return self
        config = draws.of_seed(self.config, seed)
        return replace(self, data=config["data"], before=config.get("before", ()))


def config_of(backbone: Component, data: Component, technique: Component,
              trainer: dict[str, Any], select_by: str, before: Sequence[dict[str, Any]] = (),
              retain: Mapping[str, Component] | None = None,
              by_seed: Mapping[str, Component] | None = None,
              drawn: tuple[str, ...] = DRAWS[:1], quantized: tuple[str, ...] = ()) -> dict[str, Any]:
    """Everything of a cell but its names."""
    stages = {"before": list(before)} if before else {}
    retained = {"retain": dict(retain)} if retain else {}
    searched = {"by_seed": dict(by_seed)} if by_seed else {}
    return {"backbone": backbone, "data": data, "technique": technique, "trainer": trainer,
            "select_by": select_by, **stages, **retained, **searched,
            **({} if drawn == DRAWS[:1] else {"drawn": list(drawn)}),
            **({"quantized": list(quantized)} if quantized else {})}


@dataclass(frozen=True)
class Study:
    """A checked study file.

    Attributes:
        name, question: from the file.
        cells: every combination, in the file's order.
        seeds: of each cell, at most where `until` is set.
        select_by: validation metric that chooses the epoch.
        report: test metric that the table shows.
        allow: packages outside ftlab whose classes it may name.
        shortcuts: whether runs may read what others have computed; results are the same.
        baseline: the technique that the question compares the others with; empty for none.
        groups: names of data sets by group, over which tables average too.
        paper: published numbers to stand beside.
        levels: of the entries whose values vary.
        until: when no more seeds are needed; None where every cell has all of them.
        drawn: what a seed draws, see `seeds.DRAWS`.
        tuned: how its settings were found; None where nobody said.
        mirror: names of other trackers that are shown its runs.
        place: of the file, for messages.
    """

    name: str
    question: str
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    select_by: str
    report: str
    allow: tuple[str, ...] = ()
    shortcuts: bool = True
    baseline: str = ""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    paper: Paper | None = None
    levels: Levels = field(default_factory=dict)
    until: UntilDecided | None = None
    drawn: tuple[str, ...] = DRAWS[:1]
    tuned: Tuned | None = None
    mirror: tuple[str, ...] = ()
    place: Place = field(default=Place("the study"), compare=False)

    @property
    def first_seeds(self) -> tuple[int, ...]:
        """Seeds that every cell has."""
        return self.seeds if self.until is None else self.seeds[:self.until.first]

    def specification(self, cell: Cell, seed: int) -> dict[str, Any]:
        """The specification of a run of a cell."""
        plain = {} if self.shortcuts else {"plain": True}
        allow = {"allow": list(self.allow)} if self.allow else {}
        config = {**cell.of_seed(seed).config, "technique": cell.by_seed.get(str(seed), cell.technique)}
        config.pop("by_seed", None)
        return {**config, "seed": seed, **plain, **allow}

    def with_shortcuts(self, shortcuts: bool) -> Study:
        """The study with or without shortcuts."""
        return replace(self, shortcuts=shortcuts)

    def only(self, techniques: Sequence[str], fixed: bool = False) -> Study:
        """The study with some of its techniques.

        With `fixed`, which promises that `with_seeds` follows, nothing is to be decided.

        Raises:
            InputError: a technique that the study does not have.
        """
        names = list(dict.fromkeys(cell.key.technique for cell in self.cells))
        levels = self.levels.get("techniques", {})
        techniques = [name for given in techniques for name in (
            [level for level, of in levels.items() if of.of == given] or [given])]
        for technique in techniques:
            if technique not in names:
                raise InputError(f"--only: the study {self.name} has no technique {technique!r}",
                                 did_you_mean(technique, names))
        kept = tuple(c for c in self.cells if not techniques or c.key.technique in techniques)
        if self.until is not None and techniques and not fixed:
            if self.baseline and self.baseline not in techniques:
                raise InputError(
                    f"--only: {self.name} runs until its techniques are told from {self.baseline}, "
                    "which is left out", f"add --only {self.baseline}, or give --seeds 0,1,2")
            if len(set(techniques)) < 2:
                raise InputError(f"--only: {self.name} runs until techniques are told apart, and "
                                 f"{techniques[0]} is alone", "add another, or give --seeds 0,1,2")
        return self.with_cells(kept)

    def with_cells(self, cells: Iterable[Cell]) -> Study:
        """The study with other cells."""
        return replace(self, cells=tuple(cells))

    def as_stored(self, stored: Mapping[CellKey, Collection[str]]) -> Study:
        """The study with each cell under the hash by which an earlier version stored it, if one did.

        Args:
            stored: names of the params of each cell of the study in a store.
        """
        def kept(cell: Cell) -> Cell:
            if cell.key in stored:
                return cell
            earlier = (key for key, params in stored.items() if key == replace(
                cell.key, config=earlier_hash(cell.config, params)))
            return replace(cell, key=next(earlier, cell.key))

        return self.with_cells(map(kept, self.cells))

    def with_seeds(self, seeds: Sequence[int]) -> Study:
        """The study with other seeds."""
        checked = check_list(list(seeds), "--seeds")
        check_by_seed(_searched(self.cells), checked, "--seeds")
        return replace(self, seeds=checked, until=None)


def load_study(
    path: str | Path, overrides: Sequence[str] = (), allow: Sequence[str] = ()
) -> Study:
    """Read and check a study file; nothing is built or loaded but the classes it names.

    Args:
        path: of the YAML file.
        overrides: `a.b.c=value`, as `--set` takes them.
        allow: packages outside ftlab whose classes the file may name.

    Raises:
        InputError: with the file, the line and the key of what is wrong.
    """
    doing(f"reading {path} and the classes that it names")
    data, place = read(Path(path))
    for given in overrides:
        override(data, given)
        check_override(given.partition("=")[0], data)
    for key in data:
        if key not in KEYS:
            raise InputError(f"{place / str(key)}: unknown key", did_you_mean(key, KEYS))
    name = check_name(data.get("name"), place / "name")
    data, levels = expanded(data, place)
    axes = {axis: _axis(data.get(axis), place / axis) for axis in AXES}
    common = mapping(data.get("trainer"), place / "trainer")
    parts = checked(axes, common, place, allow)
    parts["retain"] = retained(data.get("retain"), place / "retain", allow)
    select_by = name_of(
        analysis_keys.check_selection(data.get("select_by"), parts["metric"], place / "select_by"))
    report = name_of(str(data.get("report", "test/" + select_by.removeprefix("val/"))))
    seeds = check_seeds(data.get("seeds", [0, 1, 2]), place / "seeds")
    tuned = check_tuned(data.get("tuned"), seeds, place)
    if draws.draws_split(seeds.of):
        draws.check(parts["datasets"], place)
    quantized = analysis_keys.check_quantized(data.get("quantized"), place / "quantized")
    cells = _cells(name, parts, select_by, seeds.of, quantized, place)
    check_decidable(seeds, report, len(axes["techniques"]), place / "seeds")
    check_by_seed(_searched(cells), seeds.numbers, place / "seeds")
    names = {axis: list(entries) for axis, entries in axes.items()}
    baseline = analysis_keys.check_baseline(data.get("baseline"), names["techniques"], place / "baseline")
    groups = analysis_keys.check_groups(data.get("groups"), names["datasets"], place / "groups")
    paper = check_paper(data.get("paper"), report, names, list(groups), place / "paper")
    mirror = analysis_keys.check_mirror(data.get("mirror"), place / "mirror")
    return Study(name, str(data.get("question", "")), cells, seeds.numbers, select_by, report, tuple(allow),
                 baseline=baseline, groups=groups, paper=paper, levels=levels, until=seeds.until,
                 drawn=seeds.of, tuned=tuned, mirror=mirror, place=place)


def _cells(study: str, parts: Mapping[str, Mapping[str, Any]], select_by: str,
           drawn: tuple[str, ...], quantized: tuple[str, ...], place: Place) -> tuple[Cell, ...]:
    cells: dict[str, Cell] = {}
    trainers = parts["trainer"]
    for b, backbone in parts["backbones"].items():
        for d, data in parts["datasets"].items():
            for t, everywhere in parts["techniques"].items():
                technique = parts["on"].get(t, {}).get(f"{d} from {b}", everywhere)
                by_seed = {seed: elsewhere.get(f"{d} from {b}", elsewhere[""])
                           for seed, elsewhere in parts["by_seed"].get(t, {}).items()}
                whole = (backbone, data, technique, trainers[t], select_by, parts["before"][t],
                         parts["retain"], by_seed, drawn, quantized)
                hashed = cell_hash(config_of(*whole))
                if hashed in cells:
                    twin = cells[hashed].key
                    raise InputError(
                        f"{place}: the cells {t} on {d} from {b} and {twin.title} are the same",
                        "remove one of the two, or change a value",
                    )
                key = CellKey(study, b, d, t, hashed)
                cells[hashed] = Cell(key, *whole)
    return tuple(cells.values())


def _searched(cells: Iterable[Cell]) -> dict[str, Collection[str]]:
    """The seeds that have settings of their own, by technique."""
    return {cell.key.technique: cell.by_seed for cell in cells if cell.by_seed}


def _axis(entries: Any, place: Place) -> dict[str, Any]:
    if not isinstance(entries, Mapping) or not entries:
        raise InputError(f"{place}: at least one is needed", f"{place.keys[-1]}: {{name: CLASS}}")
    return {check_name(name, place / str(name)): value for name, value in entries.items()}
