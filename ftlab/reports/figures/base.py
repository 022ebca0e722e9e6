"""The contract of a study's figures: data from the store, and one drawing of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import pandas as pd
from matplotlib.figure import Figure

from ftlab.reports.study_results import StudyResults


class Drawing(ABC):
    """One figure, a file each. The room is walked: a new file is a new figure.

    matplotlib draws it for papers (PNG, PDF) and for the HTML report (SVG), each technique in its
    colour of `colours.styles`.
    """

    name: ClassVar[str]
    """The name of its files, below `figures/`."""
    title: ClassVar[str]
    """Its heading."""
    order: ClassVar[int] = 100
    """Place among the figures, the smallest first; equals by name."""

    tables: ClassVar[tuple[str, ...]] = ()
    """Files of `texts`."""
    whole: ClassVar[bool] = False
    """True where it has room for all cells of a study, however many."""

    @abstractmethod
    def data(self, results: StudyResults) -> pd.DataFrame | None:
        """The numbers drawn; None where the study has nothing of the kind."""

    @abstractmethod
    def draw(self, data: pd.DataFrame, results: StudyResults) -> Figure:
        """The figure, on a `canvas`, which adapts to the width of page or paper."""

    def texts(self, data: pd.DataFrame, results: StudyResults) -> dict[str, str]:
        """Tables that belong to it: file name -> content."""
        return {}

    def caption(self, data: pd.DataFrame, results: StudyResults) -> str:
        """How to read it: what is shown, over what, n."""
        return ""
