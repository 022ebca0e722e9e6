"""What every figure of a study is: data from the store, drawn twice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import pandas as pd
from matplotlib.figure import Figure

from ftlab.reports.study_results import StudyResults


class Drawing(ABC):
    """One figure, a file each. The room is walked: a new file is a new figure.

    It is drawn by matplotlib for papers (PNG, PDF), and by plotly for the HTML report; both show
    the same data, in the technique's colour of `colours.styles`.
    """

    name: ClassVar[str]
    """Of its files, below `figures/`."""
    title: ClassVar[str]
    """What it shows, as a heading."""
    order: ClassVar[int] = 100
    """Place among the figures, the smallest first; equals by name."""

    tables: ClassVar[tuple[str, ...]] = ()
    """Files of `texts`."""

    @abstractmethod
    def data(self, evidence: StudyResults) -> pd.DataFrame | None:
        """What is drawn; None where the study has nothing of the kind."""

    @abstractmethod
    def draw(self, data: pd.DataFrame, evidence: StudyResults) -> Figure:
        """For paper."""

    @abstractmethod
    def plot(self, data: pd.DataFrame, evidence: StudyResults) -> dict[str, Any]:
        """For the screen: plotly's `data` and `layout`, plain JSON."""

    def texts(self, data: pd.DataFrame, evidence: StudyResults) -> dict[str, str]:
        """Tables that belong to it: file name -> content."""
        return {}

    def caption(self, data: pd.DataFrame, evidence: StudyResults) -> str:
        """How to read it: what is shown, over what, n."""
        return ""
