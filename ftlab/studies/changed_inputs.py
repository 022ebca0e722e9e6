"""Data and weights that are others than those that earlier runs of a cell stood on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ftlab.errors import InputError
from ftlab.studies.plan import PlannedCell
from ftlab.studies.run_job import fingerprints
from ftlab.tracking.records import CellRecord


def refuse_changed(cells: Mapping[str, PlannedCell], records: Sequence[CellRecord]) -> None:
    """Refuse to let runs on other data or weights share a cell with the earlier ones.

    Raises:
        InputError: the data or the weights have changed.
    """
    for record in records:
        if record.cell_id not in cells:
            continue
        planned = cells[record.cell_id]
        for run in record.finished:
            for tag, now in fingerprints(planned.of_seed(run.seed)).items():
                if run.tags.get(tag, now) != now:
                    name = tag.removeprefix("ftlab.").removesuffix("_sha256")
                    raise InputError(
                        f"{planned.cell.key.title}: the {name} has changed since seed {run.seed} ran",
                        "put it back, or give the study or the changed part another name",
                    )
