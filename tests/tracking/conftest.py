from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ftlab.tracking.records import CellKey
from ftlab.tracking.tracker import Tracker


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for all: making one takes more than a second; each test has its own study."""
    folder: Path = tmp_path_factory.mktemp("store")
    return f"sqlite:///{folder}/mlflow.db"


@pytest.fixture
def study(request: pytest.FixtureRequest) -> str:
    return f"study of {request.node.name}"[:100]


@pytest.fixture
def tracker(uri: str, study: str) -> Iterator[Tracker]:
    tracker = Tracker(uri)
    tracker.open_study(study, {"question": "which?"})
    yield tracker
    tracker.close()


@pytest.fixture
def key(study: str) -> Callable[[str], CellKey]:
    return lambda technique: CellKey(study, "minilm", "bbc", technique, "c0ffee")
