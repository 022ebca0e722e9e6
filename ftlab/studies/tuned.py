"""How the settings of a tuned study were found: `tuned` of a study file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from ftlab.errors import InputError
from ftlab.studies.seeds import Seeds, UntilDecided
from ftlab.studies.yaml_file import Place
from ftlab.wording import did_you_mean, listed

KEYS = ("trials", "searches", "seeds")


@dataclass(frozen=True)
class Tuned:
    """The search behind a study's settings.

    It is no part of a cell: the same settings written by hand give the same runs.

    Attributes:
        trials: of each cell in each search, at most.
        searches: how often the whole search was made; with several, each seed of the study runs
            the settings of another search, and so a search is what the tests count as a seed.
        seeds: those that the searches trained with.
        splits: whether each search chose on a validation split of its own, as where seeds draw it.
    """

    trials: int
    searches: int = 1
    seeds: tuple[int, ...] = ()
    splits: bool = False

    @property
    def written(self) -> dict[str, Any]:
        """As a study file writes it."""
        seeds = {"seeds": list(self.seeds)} if self.seeds else {}
        return {"trials": self.trials, "searches": self.searches, **seeds}


def check_tuned(written: Any, seeds: Seeds, place: Place) -> Tuned | None:
    """`tuned` of a study file; None where it has none.

    Args:
        written: what stands there.
        seeds: of the study.
        place: of the study.

    Raises:
        InputError: it is wrong, or the study asks for seeds until its question is decided where
            one search says what the settings are: more seeds would sharpen a claim about these
            settings, and the question is of techniques.
    """
    if written is None:
        return None
    here = place / "tuned"
    if not isinstance(written, Mapping):
        raise InputError(f"{here}: expected a mapping, got {written}", "{trials: 12, searches: 1}")
    for key in written:
        if key not in KEYS:
            raise InputError(f"{here / str(key)}: unknown key", did_you_mean(str(key), KEYS))
    trials = _count(written.get("trials"), here / "trials")
    searches = _count(written.get("searches", 1), here / "searches")
    used = written.get("seeds", [])
    if not isinstance(used, list) or not all(map(_whole, used)):
        raise InputError(f"{here / 'seeds'}: expected a list of whole numbers, got {used}", "[0]")
    tuned = Tuned(trials, searches, tuple(map(int, used)), "split" in seeds.of)
    if seeds.until is not None:
        _check_until(tuned, seeds.until, place / "seeds")
    return tuned


def _check_until(tuned: Tuned, until: UntilDecided, place: Place) -> None:
    if tuned.searches == 1:
        raise InputError(
            f"{place}: until decided, but one search found the settings: more seeds would decide "
            "about these settings, not about techniques",
            "searches: 3 in the sweep, whose searches then count as seeds; or list the seeds")
    if until.most > tuned.searches:
        raise InputError(f"{place / 'most'}: {until.most} seeds, but {tuned.searches} searches, and a "
                         "search is a seed", f"most: {tuned.searches}, or more searches in the sweep")


def _count(value: Any, place: Place) -> int:
    if _whole(value) and value:
        return int(value)
    raise InputError(f"{place}: expected a whole number above 0, got {value}", f"{place.keys[-1]}: 12")


def _whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def check_by_seed(by_cell: Mapping[str, Collection[str]], seeds: Collection[int], place: object) -> None:
    """Refuse a seed for which a tuned technique has no settings.

    Args:
        by_cell: by a technique's name, the seeds that its `by_seed` has; those without are left out.
        seeds: of the study.
        place: where they are named.

    Raises:
        InputError: there is one; with the technique's other settings it would be another thing.
    """
    for technique, found in by_cell.items():
        lacking = [seed for seed in seeds if str(seed) not in found]
        if lacking:
            raise InputError(
                f"{place}: {technique} has no settings by_seed for seed {lacking[0]}",
                f"take {listed(sorted(found, key=int))}, which have them, or search again: searches: "
                f"{len(found) + len(lacking)} in the sweep")
