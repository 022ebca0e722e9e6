"""The folders of runs that a command left in their midst."""

import json
from pathlib import Path

import pytest

from ftlab.studies.continuing import has_state, put_aside, take_over


def states(folder: Path, *places: str) -> Path:
    """A run's folder with states of its own, or of a stage."""
    for place in places:
        (folder / place).mkdir(parents=True)
        (folder / place / "1-rank0.pt").write_bytes(b"x")
        (folder / place / "states.json").write_text(json.dumps({"states": [{"number": 1}]}))
    (folder / "tracked").write_text("token\n")
    (folder / "events.jsonl").write_text('{"event": "note", "text": "a"}\n{"event": "failed"}\n{"ev')
    return folder


@pytest.mark.parametrize("places", [("state",), ("before1/state",), ("before1/state", "state")])
def test_failed_run__keeps_the_states_of_its_stages_from_its_artifacts(tmp_path, places):
    run = states(tmp_path / "run", *places)
    put_aside(run)
    assert not has_state(run) and not list(run.rglob("*.pt"))
    again = tmp_path / "again"
    assert take_over([run, tmp_path / "run.left"], again, {"seed": 3}) == "token"
    assert [path.relative_to(again).as_posix() for path in sorted(again.rglob("*.pt"))] == sorted(
        f"{place}/1-rank0.pt" for place in places)
    assert (again / "events.before.jsonl").read_text() == '{"event": "note", "text": "a"}\n'
    assert json.loads((again / "run.json").read_text()) == {"seed": 3}
    assert not run.exists()
