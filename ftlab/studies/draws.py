"""Seeds that draw the split: each run reads the examples that its seed has drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlab.errors import InputError
from ftlab.studies.components import Component
from ftlab.studies.seeds import DRAWS
from ftlab.studies.yaml_file import Place

SPLIT = DRAWS[1]


def draws_split(drawn: tuple[str, ...]) -> bool:
    """Return whether seeds draw the split too."""
    return SPLIT in drawn


def check(datasets: Mapping[str, Component], place: Place) -> None:
    """Refuse data sets whose split a seed cannot draw.

    Args:
        datasets: checked, by name.
        place: of the study.

    Raises:
        InputError: a class that takes no `split`, or a split that is drawn already.
    """
    for name, data in datasets.items():
        split, where = data["init_args"].get("split"), place / "datasets" / name
        if not _drawable(data):
            raise InputError(f"{where}: {data['class_path'].rpartition('.')[2]} takes no split, so that "
                             "seeds have none to draw", "seeds: {of: [training]}, or a class that does")
        if split["draw"] is not None:
            raise InputError(f"{where}: split has draw: {split['draw']}, and the study's seeds draw it",
                             "leave out one of the two")


def of_seed(config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A cell's config with the draws of a seed: of its data, and of the data of its stages.

    Stages with the source, `split` and `subset` of the data train on the same examples, as without
    draws; a stage whose class takes no split, or whose examples are given whole, stays as it is.
    """
    stages = [stage if stage["data"] is None else {**stage, "data": data_of_seed(stage["data"], seed)}
              for stage in config.get("before", ())]
    return {**config, "data": data_of_seed(config["data"], seed), **({"before": stages} if stages else {})}


def data_of_seed(data: Component, seed: int) -> Component:
    """A checked data module whose split is the draw of a seed."""
    if not _drawable(data):
        return data
    arguments = data["init_args"]
    return {**data, "init_args": {**arguments, "split": {**arguments["split"], "draw": seed}}}


def _drawable(data: Component) -> bool:
    split = data["init_args"].get("split")
    return isinstance(split, Mapping) and "draw" in split
