"""The shortcuts of a run: found by walking the room, named by nobody, each decision reported."""

import ast
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftlab.training import shortcuts
from ftlab.training.shortcuts import take
from ftlab.training.shortcuts.base import STEPS, Fitting, NotApplicable, Shortcut, ShortcutPlan

ROOM = Path(shortcuts.__file__).parent
PLANTED = '''
from ftlab.training.shortcuts.base import ShortcutPlan, Shortcut

class Planted(Shortcut):
    step = "blocks"

    def applies(self, fitting):
        return ShortcutPlan("it was planted")
'''


class Inputs(Shortcut):
    step = "inputs"
    refusal = "no inputs: "

    def applies(self, fitting: Fitting) -> ShortcutPlan:
        raise NotApplicable("there are none")


class Loop(Shortcut):
    step = "loop"

    def applies(self, fitting: Fitting) -> ShortcutPlan:
        return ShortcutPlan("in another loop", train=lambda seconds: {"cost/train_seconds": 1.0})


class Silent(Shortcut):
    step = "loop"

    def applies(self, fitting: Fitting) -> ShortcutPlan:
        raise NotApplicable


class Device(Shortcut):
    step = "device"
    event = "hardware"

    def __init__(self, log: list[str]) -> None:
        self.log = log

    @contextmanager
    def around(self) -> Any:
        self.log.append("begin")
        yield
        self.log.append("end")

    def applies(self, fitting: Fitting) -> ShortcutPlan:
        return ShortcutPlan("beside the weights", bytes=7, training=self.around)


@pytest.fixture
def events() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def fitting(events: list[dict[str, Any]]) -> Any:
    return SimpleNamespace(report=events.append)


def test_members__are_found_in_the_order_of_their_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = take.members()
    assert [STEPS.index(member.step) for member in here] == sorted(
        STEPS.index(member.step) for member in here)
    (tmp_path / "planted_shortcut.py").write_text(PLANTED)
    monkeypatch.setattr(shortcuts, "__path__", [*shortcuts.__path__, str(tmp_path)])
    names = {type(member).__name__ for member in take.members()}
    assert names == {type(member).__name__ for member in here} | {"Planted"}


def test_take__reports_each_decision_and_its_reason(
    fitting: Any, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    monkeypatch.setattr(take, "members", lambda: [Inputs(), Silent(), Device(log)])
    plans = take.take(fitting)
    assert events == [{"event": "shortcut", "text": "no inputs: there are none"},
                      {"event": "hardware", "text": "beside the weights"}]
    assert plans.bytes == 7 and plans.train is None and plans.seconds > 0
    with plans.training():
        assert log == ["begin"]
    assert log == ["begin", "end"]


def test_take__asks_no_further_once_the_trainer_is_replaced(
    fitting: Any, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(take, "members", lambda: [Inputs(), Loop(), Device([])])
    plans = take.take(fitting)
    assert [event["text"] for event in events] == ["no inputs: there are none", "in another loop"]
    assert plans.train is not None and plans.train(0.0) == {"cost/train_seconds": 1.0}
    events.clear()
    assert take.take(fitting, steps=("inputs",)).train is None
    assert len(events) == 1


def imports(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    return {f"{node.module}.{name.name}" for node in nodes if isinstance(node, ast.ImportFrom)
            for name in node.names} | {
        name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}


def test_room__is_open_to_members_that_nobody_names() -> None:
    members = {path.stem for path in ROOM.iterdir()} - {"base", "take", "__init__", "__pycache__"}
    assert len(members) >= 4
    for path in ROOM.parent.rglob("*.py"):
        inside = path.relative_to(ROOM).parts[0].removesuffix(".py") if ROOM in path.parents else ""
        others = {f"{shortcuts.__name__}.{name}" for name in members - {inside}}
        named = {name for name in imports(path) for other in others
                 if f"{name}.".startswith(f"{other}.")}
        assert not named, f"{path} names {named}"
