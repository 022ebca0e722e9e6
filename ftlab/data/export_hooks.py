"""The hooks of a data module that exports and predictions call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ftlab.backbones.export_code import PlainExamples
from ftlab.backbones.preprocessing import ImageFit, Preprocessing
from ftlab.backbones.task_model import TaskModel
from ftlab.data.batches import ExampleRow
from ftlab.renamed import RefusesEarlierNames


class ExportHooks(RefusesEarlierNames):
    """The part of a data module that exports ask; by default nothing is said."""

    pipeline: ClassVar[str] = ""
    """Hugging Face's name for a model of such examples (`pipeline_tag`)."""

    @property
    def image_fit(self) -> ImageFit | None:
        """How images get the size that the connected backbone reads; None without images."""
        return None

    def export_code(self, preprocessing: Preprocessing, model: TaskModel) -> PlainExamples | None:
        """How raw examples become predictions, as lines without ftlab.

        Args:
            preprocessing: of the network that the lines call; the connected backbone's, but for
                what that network does by itself.
            model: what the lines' network computes.

        Returns:
            None where nothing says it, for the module or for its task.
        """
        return None

    def unlabelled(self, places: Sequence[int]) -> Sequence[ExampleRow] | None:
        """Test examples as they are read without their labels; None where that is all the same."""
        return None

    def check_predicts(self) -> None:
        """Refuse new examples where there is nothing that is predicted of them.

        Raises:
            Incompatible: says why.
        """
