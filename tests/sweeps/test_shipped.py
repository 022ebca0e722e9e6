"""The sweeps that ftlab ships are right, and every study of theirs is there."""

from pathlib import Path

import pytest

from ftlab.sweeps.sweep import load_sweep

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
STUDIES = {"quickstart", "sst2", "cifar10", "solar", "glue_roberta"}


def test_sweeps__first_studies_have_one() -> None:
    assert {path.stem for path in SWEEPS} >= STUDIES


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweep__is_checked_and_searches_every_technique(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("FTLAB_SHARED", "anywhere")
    sweep = load_sweep(path)
    assert sweep.study.name == path.stem
    assert all(sweep.spaces.values())
    assert not sweep.notes, "a shipped study's own values lie in its spaces"
