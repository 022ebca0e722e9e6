"""Run a study again beside its results, and say whether they come out the same.

It needs both ends of the house, runs and reports, and does nothing itself that `run`, `table` and
`compare` do not.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ftlab.errors import InputError
from ftlab.reports.csv_files import write_file
from ftlab.reports.drift.compare import drift
from ftlab.reports.drift.drift import Drift
from ftlab.reports.drift.provenance_diff import fingerprints
from ftlab.reports.drift.read_results import ComparedStudy, measurements
from ftlab.reports.study_table import table
from ftlab.studies.display import Display
from ftlab.studies.plan import Plan
from ftlab.studies.study import Study, load_study
from ftlab.studies.study_snapshot import FILE
from ftlab.sweeps.study_runs import run_study

MARK = "reproduces.txt"
"""In the new folder: the hash of the runs that it reproduces."""


@dataclass(frozen=True)
class Reproduction:
    """A study run again.

    Attributes:
        drift: from the old results to the new ones.
        failures: one line each.
        folder: with the new `mlflow.db` and `results/`; None where it is gone.
    """

    drift: Drift
    failures: tuple[str, ...]
    folder: Path | None

    @property
    def verdict(self) -> str:
        """`reproduced`, `moved`, or `untested` with few seeds and other numbers."""
        if self.failures or self.drift.moved:
            return "moved"
        return "untested" if self.drift.untested else "reproduced"

    @property
    def reproduced(self) -> bool:
        """All came out the same, within noise."""
        return self.verdict == "reproduced"

    @property
    def sentence(self) -> str:
        """The verdict, for people."""
        name = self.drift.old.study
        if self.failures:
            return f"{name} is not reproduced: {len(self.failures)} of its runs failed."
        return {
            "reproduced": f"{name} is reproduced"
            + (", number for number." if self.drift.equal else ", within the noise of its seeds."),
            "moved": f"{name} is not reproduced: it moved.",
            "untested": f"{name} comes out otherwise, and fewer than three seeds do not say whether "
            "that is more than noise.",
        }[self.verdict]

    def _repr_markdown_(self) -> str:
        return f"**{self.sentence}**\n\n{self.drift.markdown()}"


def reproduce(
    what: str | Path,
    into: str | Path | None = None,
    results: str | Path = "results",
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    allow: Sequence[str] = (),
    metrics: Sequence[str] = (),
    workers: int | None = 1,
    timeout: float | None = None,
    display: Display | None = None,
) -> Reproduction:
    """Run a study again, with the same seeds, into a store of its own; compare with its results.

    Args:
        what: a result folder with its `study.yaml`, or a study file.
        into: an empty or new folder for the new store and results; the same folder continues what
            was interrupted. None for a temporary one, which stays only if something moved.
        results: where the results of a study file are, in a folder of its name.
        overrides: as in `load_study`.
        only: techniques; all unless said.
        seeds: instead of the study's; of some techniques of a study that runs until it is decided,
            those that their results have.
        allow: as in `load_study`.
        metrics: as in `compare`.
        workers: as in `run_study`.
        timeout: as in `run_study`.
        display: as in `run_study`.

    Raises:
        InputError: there are no results to compare with, the folder holds something else, or data
            or weights are not those of the results; nothing was trained then.
    """
    study, old = _both(Path(what), Path(results), overrides, allow)
    if study.until is not None and only and seeds is None:  # some techniques alone decide nothing
        seeds = old.seeds_of(only)
    if seeds is not None:
        study = study.with_seeds(seeds)
    study = study.only(only)
    old = old.restricted(study)
    if not old.cells:
        raise InputError(f"{old.label}: has none of the study's cells", "see its runs.csv")
    with _folder(into, old) as (folder, temporary):
        store, fresh = f"sqlite:///{folder.absolute() / 'mlflow.db'}", folder / "results"
        outcome = run_study(study, store, fresh, display, workers, timeout,
                            approve=lambda made: _comparable(made, old))
        table(study, store, fresh)
        # where a temporary folder was says nothing to anybody
        new = measurements(fresh / study.name).labelled("the new runs")
        result = Reproduction(drift(old, new, metrics), tuple(outcome.failures), folder)
        if temporary and result.reproduced:
            shutil.rmtree(folder)
            result = replace(result, folder=None)
    return result


def _both(what: Path, results: Path, overrides: Sequence[str], allow: Sequence[str]
          ) -> tuple[Study, ComparedStudy]:
    """The study to run, and the numbers that it gave."""
    file = what / FILE if what.is_dir() else what
    if what.is_dir() and not file.is_file():
        raise InputError(f"{what}: does not say its study (no {FILE}; older results have none)",
                         "name the study file instead: ftlab reproduce experiments/STUDY.yaml")
    study = load_study(file, overrides, allow)
    folder = what if what.is_dir() else results / study.name
    if not (folder / "runs.csv").is_file():
        raise InputError(f"{folder}: no results to reproduce (no runs.csv)",
                         "run the study first, or say with --results where they are")
    return study, measurements(folder)


def _comparable(made: Plan, old: ComparedStudy) -> None:
    """Refuse other data or weights than those of the results.

    Raises:
        InputError: they are others.
    """
    recorded = fingerprints(old.provenance)
    for planned in made.cells:
        key = planned.cell.key
        data = planned.pool_fingerprint or planned.data_fingerprint
        for what, now in ((f"data set {key.dataset}", data),
                          (f"backbone {key.backbone}", planned.backbone_fingerprint)):
            if (then := recorded.get(what, now)) != now:
                raise InputError(
                    f"{what}: not that of {old.label} (fingerprint {then[:8]} then, {now[:8]} "
                    "now), so nothing can be reproduced",
                    "put back the data or weights, and take out what --set changes of them")


@contextmanager
def _folder(into: str | Path | None, old: ComparedStudy) -> Iterator[tuple[Path, bool]]:
    """Where the new runs go, and whether it is temporary: gone again where nothing was run."""
    if into is None:
        folder = Path(tempfile.mkdtemp(prefix="ftlab-reproduce-"))
        try:
            yield folder, True
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return
    folder = Path(into)
    digest = hashlib.sha256((Path(old.label) / "runs.csv").read_bytes()).hexdigest()
    mark = folder / MARK
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not (
            mark.is_file() and mark.read_text(encoding="utf-8").strip() == digest):
        raise InputError(f"{folder}: holds something else already, and a reproduction starts empty",
                         "give a new folder, or the one that an interrupted reproduction began")
    write_file(mark, digest + "\n")
    yield folder, False
