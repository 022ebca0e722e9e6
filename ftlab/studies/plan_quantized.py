"""`quantized`: what a study's finished models are measured as too, held to each cell before anything runs."""

from __future__ import annotations

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.examples import NAMED
from ftlab.errors import InputError
from ftlab.studies.study import Cell
from ftlab.training import quantized


def check_quantized(cell: Cell, data: DataModule, model: TaskModel) -> None:
    """Refuse what could not be measured at the end of a run.

    Args:
        cell: checked.
        data: of the cell, loaded.
        model: not adapted yet, without weights.

    Raises:
        InputError: torchao is missing, weights of float64, a test set of the same name.
        Incompatible: the network has nothing to quantise.
    """
    quantized.check_installed()
    if cell.trainer["precision"] == "64-true":
        raise InputError("quantized: torchao quantises no weights of float64",
                         "leave out quantized, or precision: 64-true")
    for name in cell.quantized:
        if f"{NAMED}{name}" in data.splits:
            raise InputError(f"quantized: {name} is a test set of the data set, too",
                             "give the test set another name")
    quantized.check(cell.quantized, quantized.layers(model))
