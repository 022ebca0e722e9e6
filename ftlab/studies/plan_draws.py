"""Every draw of a study's seeds, read and held to what the study asks before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftlab.backbones.base import Backbone
from ftlab.data.base import DataModule
from ftlab.errors import InputError
from ftlab.studies.components import build
from ftlab.studies.measurable import check_measurable
from ftlab.studies.plan_stages import StageData, check_corpora
from ftlab.studies.study import Cell, Study
from ftlab.studies.yaml_file import Place


@dataclass(frozen=True)
class Draw:
    """The draw of a seed for a cell.

    Attributes:
        data_fingerprint: of its examples; empty where nobody has looked.
        data_profile: examples a split and class.
        notes: what its data, and the technique, took note of.
        before_fingerprint: of the data of the cell's stages; empty where they have none of their own.
        training_share: of the examples that are drawn from, the part that trains.
    """

    data_fingerprint: str
    data_profile: dict[str, Any]
    notes: tuple[str, ...] = ()
    before_fingerprint: str = ""
    training_share: float = 0.0


def draws(study: Study, backbone: Backbone, cells: Sequence[Cell], metrics: Mapping[str, Place]
          ) -> dict[str, dict[int, Draw]]:
    """Each seed's draw by the hash of the cell; empty where seeds draw no split.

    Args:
        study: of the cells.
        backbone: of the cells.
        cells: of one backbone and data set.
        metrics: that have to be measurable, and where they are named.

    Raises:
        InputError: a seed cannot be drawn, or has nothing to draw.
    """
    name = cells[0].key.dataset
    found: dict[str, dict[int, Draw]] = {cell.key.config: {} for cell in cells}
    for seed in study.seeds if cells[0].draws_split else ():
        try:
            data: DataModule = build(cells[0].of_seed(seed).data)
            data.load()
            _check_drawn(data)
            data.connect(backbone, seed=0)
            for metric, place in metrics.items():
                check_measurable(metric, data, name, place)
            corpora = StageData()
            for cell in cells:
                before = check_corpora(cell.of_seed(seed), data, corpora)
                found[cell.key.config][seed] = Draw(
                    data.fingerprint, data.describe(), tuple(data.notes), before, data.training_share)
        except InputError as error:
            raise type(error)(f"{study.place / 'datasets' / name}: seed {seed}: {error.what}",
                              error.mend) from error
    return found


def _check_drawn(data: DataModule) -> None:
    """Refuse training examples that are the same in every draw.

    Raises:
        InputError: they are.
    """
    if data.training_share == 1:
        raise InputError(
            f"all {data.pool:,} examples of train, which is given whole, train: nothing is left to draw",
            "subset: {limit: 0.5} of the data set, or no validation: of its own, so that split: carves "
            "one; else seeds: {of: [training]}")
