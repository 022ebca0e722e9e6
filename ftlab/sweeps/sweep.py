"""A sweep: which study, how many trials a cell, where to look, and what counts as better."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from optuna.pruners import BasePruner, NopPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, BruteForceSampler

from ftlab.errors import InputError
from ftlab.studies.names import check_name
from ftlab.studies.overrides import override
from ftlab.studies.study import Cell, Study, load_study
from ftlab.studies.yaml_file import Place, read, typed
from ftlab.sweeps.distributions import Space, points
from ftlab.sweeps.samplers import make_pruner, make_sampler
from ftlab.sweeps.search_names import search_name, search_of
from ftlab.sweeps.search_space import put
from ftlab.sweeps.sweep_keys import check_objectives, check_positive, check_seeds, check_spaces
from ftlab.wording import did_you_mean

KEYS = ["name", "study", "trials", "searches", "seeds", "sampler", "pruner", "objective", "spaces",
        "max_seconds", "storage"]


@dataclass(frozen=True)
class Sweep:
    """A checked sweep file.

    Attributes:
        name: of the file, unless it says otherwise.
        study, study_path: what is tuned.
        trials: of each cell in each search.
        seeds: of each trial; its value is their mean.
        objectives: metrics; the first ranks trials, several give a Pareto front.
        spaces: by technique.
        sampler, pruner: as written, checked.
        max_seconds: after which no trial starts; None for no limit.
        storage: a journal file or `postgresql://...`.
        notes: sentences for its user.
        stands_on: fingerprints of data and weights, once they are read; see `on`.
        searches: how often the whole search is made.
        search: of one that `each` gives, which; 0 is the first.
        overrides: values laid into its study, as `--set` gives them.
        techniques: that get trials; all where it is empty.
    """

    name: str
    study: Study
    study_path: Path
    trials: int
    seeds: tuple[int, ...]
    objectives: tuple[str, ...]
    spaces: Mapping[str, Space]
    sampler: Any
    pruner: Any
    max_seconds: float | None
    storage: str
    place: Place
    notes: tuple[str, ...] = field(default=(), compare=False)
    stands_on: tuple[str, ...] = ()
    searches: int = 1
    search: int = 0
    overrides: tuple[str, ...] = ()
    techniques: tuple[str, ...] = ()

    @property
    def each(self) -> list[Sweep]:
        """Its searches, each a sweep whose trials no other one sees, with seeds of its own.

        The first is the sweep as it is without the others, so that a sweep may get more searches
        later as it may get more trials. The seeds of each follow those of the one before; its
        draws do as well, since a sampler's seed comes from the digest, in which the seeds are.
        """
        step = max(self.seeds) - min(self.seeds) + 1
        return [replace(self, name=search_name(self.name, search), search=search,
                        seeds=tuple(seed + search * step for seed in self.seeds))
                for search in range(self.searches)]

    @property
    def fresh_seeds(self) -> tuple[int, ...]:
        """Seeds for the tuned study that no search used: one a search, or as many as the study has.

        Tested with a seed of its own, a trial keeps the luck with which it was chosen.
        """
        used = {seed for search in self.each for seed in search.seeds}
        count = self.searches if self.searches > 1 else len(self.study.seeds)
        return tuple(islice((seed for seed in itertools.count() if seed not in used), count))

    def on(self, fingerprints: Sequence[str]) -> Sweep:
        """The sweep of these data and weights: on others it is another sweep."""
        return replace(self, stands_on=tuple(fingerprints))

    @property
    def digest(self) -> str:
        """Hash of all that makes trials comparable; a sweep may get more trials or time later."""
        spaces = {name: {key: repr(d) for key, d in space.items()}
                  for name, space in self.spaces.items()}
        parts = [self.study.name, [cell.key.config for cell in self.study.cells], spaces, self.seeds,
                self.objectives, self.sampler, self.pruner, self.stands_on]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def measured(self) -> dict[str, Place]:
        """Objectives that data must be able to measure, with their place."""
        return {name: self.place / "objective" for name in self.objectives if name.startswith("val/")}

    def trials_of(self, cell: Cell) -> int:
        """The trials of a cell: one where nothing is searched, of a grid its points at most.

        None of a technique that `only` leaves out.
        """
        if self.techniques and cell.key.technique not in self.techniques:
            return 0
        space = self.spaces[cell.key.technique]
        if isinstance(self.make_sampler(0), BruteForceSampler):
            return int(min(self.trials, points(space)))
        return self.trials if space else 1

    def config(self, cell: Cell, values: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """A trial's frozen specification."""
        technique = put(cell.technique, values)
        specification = self.study.specification(cell, seed)
        # one that shares what it reads has less memory of its own to measure
        apart = {"apart": True} if "cost/peak_memory_bytes" in self.objectives else {}
        return {**specification, "technique": technique, "search": True, **apart}

    def with_shortcuts(self, shortcuts: bool) -> Sweep:
        """The sweep with or without shortcuts."""
        return replace(self, study=self.study.with_shortcuts(shortcuts))

    def only(self, techniques: Sequence[str]) -> Sweep:
        """The sweep with trials of some techniques alone; it shares them with the whole sweep.

        Raises:
            InputError: a technique that the study does not have.
        """
        names = list(dict.fromkeys(cell.key.technique for cell in self.study.cells))
        for technique in techniques:
            if technique not in names:
                raise InputError(f"--only: the study {self.study.name} has no technique {technique!r}",
                                 did_you_mean(technique, names))
        return replace(self, techniques=tuple(dict.fromkeys(techniques)))

    def with_seeds(self, seeds: Sequence[int]) -> Sweep:
        """The sweep whose trials have other seeds, which makes it another sweep."""
        return replace(self, seeds=check_seeds(list(seeds), self.searches, "--seeds"))

    def make_sampler(self, seed: int) -> BaseSampler:
        """A fresh sampler; those that have a memory keep it in the storage."""
        return make_sampler(self.sampler, seed, self.place / "sampler")

    def make_pruner(self) -> BasePruner:
        """A fresh pruner."""
        return make_pruner(self.pruner, self.place / "pruner")


def load_sweep(path: str | Path, allow: Sequence[str] = (), storage: str | None = None,
               overrides: Sequence[str] = ()) -> Sweep:
    """Read and check a sweep file and its study.

    Args:
        path: of the YAML file.
        allow: packages outside ftlab whose classes the study may name.
        storage: instead of the file's.
        overrides: `a.b.c=value`, as `--set` takes them: of the sweep where its file has such a key,
            else of the study.

    Raises:
        InputError: with the file, the line and the key of what is wrong.
    """
    data, place = read(Path(path))
    own = [given for given in overrides if re.split(r"[.=]", given)[0] in KEYS]
    of_study = tuple(given for given in overrides if given not in own)
    for given in own:
        override(data, given)
    for key in data:
        if key not in KEYS:
            raise InputError(f"{place / str(key)}: unknown key", did_you_mean(key, KEYS))
    name = check_name(data.get("name", Path(path).stem), place / "name")
    if search_of(name)[1]:
        raise InputError(f"{place / 'name'}: {name} is what a sweep's further searches are called",
                         "take a name that does not end in .search-NUMBER")
    spaces_text = data.pop("spaces", None)  # whose choices may be texts written as numbers
    data = typed(data, place)
    if not isinstance(data.get("study"), str):
        raise InputError(f"{place / 'study'}: expected the path of a study file",
                         "study: experiments/quickstart.yaml")
    study_path = Path(os.path.expandvars(data["study"]))
    if not study_path.is_file():
        raise InputError(f"{place / 'study'}: no such file: {study_path}",
                         "give its path from the present folder: experiments/quickstart.yaml")
    study = load_study(study_path, of_study, allow)
    if study.tuned is not None and study.tuned.searches > 1:
        raise InputError(f"{place / 'study'}: {study_path} has the settings of several searches by seed",
                         "sweep the study that it was tuned from")
    if study.levels.get("techniques"):
        raise InputError(f"{place / 'study'}: values of its techniques vary ({study_path}: vary)",
                         "leave them out of vary: a sweep searches them under spaces")
    trials = check_positive(data.get("trials", 16), place / "trials", whole=True)
    searches = int(check_positive(data.get("searches", 1), place / "searches", whole=True))
    seeds = check_seeds(data.get("seeds", list(study.seeds[:1])), searches, place / "seeds")
    objectives = check_objectives(data.get("objective", study.select_by), study, place / "objective")
    spaces, notes = check_spaces(spaces_text, study, place / "spaces", tuple(allow))
    seconds = data.get("max_seconds")
    where = data.get("storage", "optuna.journal") if storage is None else storage
    if not isinstance(where, str) or not where:
        raise InputError(f"{place / 'storage'}: expected a file or an address, got {where}",
                         "storage: optuna.journal")
    sweep = Sweep(
        name, study, study_path, int(trials), seeds, objectives, spaces, data.get("sampler"),
        data.get("pruner"),
        None if seconds is None else check_positive(seconds, place / "max_seconds"),
        os.path.expandvars(where), place, tuple(notes), searches=searches,
        overrides=of_study,
    )
    if isinstance(sweep.make_sampler(0), BruteForceSampler):
        _check_grid(sweep)
    _check_pruner(sweep.make_pruner(), sweep)
    return sweep



def _check_grid(sweep: Sweep) -> None:
    for technique, space in sweep.spaces.items():
        for key, distribution in space.items():
            if points({key: distribution}) == math.inf:
                raise InputError(
                    f"{sweep.place / 'sampler'}: BruteForce visits every point, and {key} of "
                    f"{technique} has infinitely many",
                    f"spaces: {{{technique}: {{{key}: {{choices: [...]}}}}}}, or a range with a step")


def _check_pruner(pruner: BasePruner, sweep: Sweep) -> None:
    place = sweep.place / "pruner"
    if isinstance(pruner, NopPruner):
        return
    if len(sweep.objectives) > 1:
        raise InputError(f"{place}: several objectives cannot be pruned",
                         "leave out pruner, or name one objective")
    if not sweep.objectives[0].startswith("val/"):
        raise InputError(f"{place}: {sweep.objectives[0]} is known only at a trial's end",
                         "leave out pruner, or choose a validation metric")
    if isinstance(pruner, WilcoxonPruner):
        # of n seeds that are all worse the test says 2^-n, and the last seed saves nothing
        level = float(pruner._p_threshold)
        least = max(2, pruner._n_startup_steps, math.ceil(math.log2(1 / max(level, 1e-9)))) + 1
        if len(sweep.seeds) < least:
            raise InputError(
                f"{place}: WilcoxonPruner compares seeds, and of {len(sweep.seeds)} it can save none",
                f"seeds: {list(range(least))}")
    elif len(sweep.seeds) == 1 and all(
            c.trainer["max_epochs"] == 1 and not c.trainer["min_steps"] for c in sweep.study.cells):
        raise InputError(f"{place}: a trial of one epoch has no validation before its last",
                         "leave out pruner, or raise trainer: {max_epochs: ...}")


