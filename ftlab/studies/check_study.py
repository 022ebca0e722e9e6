"""`ftlab check`: whether a study would run; what was checked and has not changed is not read again."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from ftlab.studies.check_cache import remembered
from ftlab.studies.study import Study
from ftlab.studies.yaml_file import Place

_SETTINGS = ("HOME", "FTLAB_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "TORCH_HOME", "XDG_")
"""How the names of environment variables begin that say where files are, or which may be read."""


def check_study(study: Study, objectives: Mapping[str, Place] | None = None) -> list[str]:
    """Read the data and check every combination; returns what the user should know.

    Code of allowed packages may change at any time: with it all is checked anew.

    Args:
        study: loaded.
        objectives: of a sweep of it, with their places.

    Raises:
        InputError: data, weights or a combination cannot be used.
    """
    def notes() -> list[str]:
        from ftlab.studies.plan import plan  # which imports all that trains

        return plan(study, objectives).notes

    if study.allow:
        return notes()
    cells = [(cell.key.backbone, cell.key.dataset, cell.key.technique, cell.config)
             for cell in study.cells]
    noted: list[str] = remembered(
        ("plan", cells, study.select_by, study.report, *(objectives or ()), study.shortcuts,
         _surroundings(cells)),
        notes, reads=True)
    return noted


def check_machine(study: Study) -> None:
    """Check that this machine has the devices that a run of the study asks for.

    Raises:
        InputError: it has not.
    """
    asked = {(cell.trainer["accelerator"], cell.trainer["devices"]) for cell in study.cells}
    if all(accelerator in ("auto", "cpu") and devices == 1 for accelerator, devices in asked):
        return  # which any machine has; finding out more imports PyTorch
    from ftlab.studies.coordinator import need
    from ftlab.studies.engine import Machine

    largest = need(study)
    Machine.this().shares(1, largest.devices, largest.accelerator)


def _surroundings(cells: Any) -> list[Any]:
    """The current folder, and the values of environment variables by which sources are found."""
    named = set(re.findall(r"\$\{?(\w+)", repr(cells)))  # `${DATA}/train.csv`
    return [os.getcwd(), sorted((name, value) for name, value in os.environ.items()
                                if name in named or name.startswith(_SETTINGS))]
