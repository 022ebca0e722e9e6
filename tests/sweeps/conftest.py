import shutil

"""A sweep without training: what is asked, leased and told needs no model."""

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ftlab.sweeps.storage import Storage
from ftlab.sweeps.sweep import Sweep, load_sweep
from ftlab.sweeps.trial_queue import TrialQueue

STUDY = {
    "name": "small", "question": "Which?",
    "backbones": {"bert": {"class_path": "HuggingFace", "init_args": {"source": "nowhere"}}},
    "datasets": {"reviews": {"class_path": "TextClassification",
                             "init_args": {"train": "reviews.csv"}}},
    "techniques": {"probe": {"class_path": "LinearProbe", "init_args": {"solver": None}}, "lora": "LoRA"},
    "seeds": [0], "trainer": {"max_epochs": 30}, "select_by": "val/accuracy",
}


@pytest.fixture(scope="session")
def _sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Read once: constructors are the schema, and reading them takes a second."""
    return written(tmp_path_factory.mktemp("sweep"))


def written(folder: Path, study: dict[str, Any] | None = None, **keys: Any) -> Sweep:
    """A sweep of two cells from a file."""
    (folder / "study.yaml").write_text(yaml.safe_dump({**STUDY, **(study or {})}))
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"study": str(folder / "study.yaml"), **keys}))
    return load_sweep(path)


@pytest.fixture
def make_sweep(_sweep: Sweep) -> Callable[..., Sweep]:
    """The sweep `sweep` with other fields: `make_sweep(trials=3, pruner="Median")`."""
    return lambda **fields: replace(_sweep, **{"trials": 4, "sampler": "Random", **fields})


@pytest.fixture
def make_board(make_sweep: Callable[..., Sweep]) -> Iterator[Callable[..., TrialQueue]]:
    """A coordinator's board at an address: `make_board(address, lease=1.0, trials=3)`."""
    opened: list[Storage] = []

    def make(address: str, lease: float = 60.0, hold: float = 60.0, patience: float = 60.0,
             **fields: Any) -> TrialQueue:
        opened.append(Storage(address, patience=patience, hold=hold))
        return TrialQueue(make_sweep(**fields), opened[-1], ["maximize"], lease)

    yield make
    for storage in opened:
        storage.close()


WRITES = ("create_new_study", "set_study_user_attr", "set_study_system_attr", "create_new_trial",
          "set_trial_param", "set_trial_state_values", "set_trial_intermediate_value",
          "set_trial_user_attr")


@pytest.fixture
def at_write() -> Callable[..., SimpleNamespace]:
    """Something happens at a board's n-th write from now on, before or after it: `.left` to go."""

    def arm(board: TrialQueue, number: int, act: Callable[[], None], after: bool) -> SimpleNamespace:
        count = SimpleNamespace(left=number)

        def wrap(write: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*arguments: Any, **named: Any) -> Any:
                count.left -= 1
                now = count.left == 0
                if now and not after:
                    act()
                result = write(*arguments, **named)
                if now and after:
                    act()
                return result

            return wrapped

        backend = board.storage.backend
        for name in WRITES:
            setattr(backend, name, wrap(getattr(backend, name)))
        return count

    return arm


class Crowd:
    """Processes forked from this one, which has the imports done; each returns one value."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("fork")
        self._going: list[tuple[Any, Any]] = []

    def start(self, act: Callable[..., Any], *arguments: Any) -> int:
        """Call `act(*arguments, say)` in a process of its own; its number."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=act, args=(*arguments, theirs.send))
        process.start()
        theirs.close()
        self._going.append((process, ours))
        return process.pid

    def hear(self, which: int = -1, seconds: float = 600.0) -> Any:
        """The next thing that a process says."""
        connection = self._going[which][1]
        assert connection.poll(seconds), "it says nothing"
        return connection.recv()

    def silent(self, which: int = -1, seconds: float = 0.3) -> bool:
        return not self._going[which][1].poll(seconds)

    def end(self) -> None:
        for process, connection in self._going:
            if process.is_alive():
                process.kill()
            process.join()
            connection.close()
            process.close()
        self._going.clear()


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    crowd = Crowd()
    yield crowd
    crowd.end()


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of its own for each test, in its folder."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
