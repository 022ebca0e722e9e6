"""The data sets on which a cell's forgetting is measured, checked before anything runs."""

from __future__ import annotations

import hashlib

from ftlab.backbones.base import Backbone
from ftlab.data.base import DataModule
from ftlab.errors import InputError
from ftlab.studies.plan_stages import StageData
from ftlab.studies.study import Cell
from ftlab.training.retention import kinds


def check_retained(cell: Cell, backbone: Backbone, data: DataModule, stage_data: StageData) -> str:
    """Hold each retained data set to the backbone and to the task of the cell.

    Args:
        cell: checked.
        backbone: of the cell.
        data: of the cell, loaded and connected.
        stage_data: reads the data sets.

    Returns:
        sha256 of the data sets.

    Raises:
        InputError: the backbone cannot read one, or nothing can be asked of it.
    """
    prints = []
    for name, component in cell.retain.items():
        try:
            retained = stage_data.of(component)
            retained.connect(backbone, seed=0)
            kinds(backbone.build(data.task, meta=True), data, retained)
        except InputError as error:
            raise type(error)(f"retain/{name}: {error.what}", error.mend) from error
        finally:
            data.connect(backbone, seed=0)
        prints.append(retained.fingerprint)
    return hashlib.sha256("".join(prints).encode()).hexdigest()
