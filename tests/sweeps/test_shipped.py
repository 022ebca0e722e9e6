"""The sweeps that ftlab ships are right, and every study of theirs is there."""

from importlib import import_module
from pathlib import Path

import pytest

from ftlab.sweeps.sweep import load_sweep

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
STUDIES = {"default_rates", "sst2", "cifar10", "solar", "glue_roberta"}


def searched(path: str) -> bool:
    """True where a technique class has hyperparameters that it would have searched."""
    module, _, name = path.rpartition(".")
    return bool(getattr(import_module(module), name).search_space)


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
    for cell in sweep.study.cells:  # a baseline without hyperparameters has one trial
        assert sweep.spaces[cell.key.technique] or not searched(cell.technique["class_path"])
    assert not sweep.notes, "a shipped study's own values lie in its spaces"
