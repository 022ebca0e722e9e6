"""What a failed run leaves: a checkpoint that says so, which no export takes for a result."""

from pathlib import Path

import pytest
import torch

from ftlab.errors import InputError
from ftlab.exports.restore_run import _specification
from ftlab.studies.run_folders import mark_failed
from ftlab.studies.run_job import StudyRun
from ftlab.tracking.mirrored import Mirrors
from ftlab.tracking.mirrors.base import MirroredRun
from ftlab.training import checkpoint


class Kept:
    """Stands in for a tracker."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.files: set[str] = set()
        self.status = ""

    def log_metrics(self, run_id: str, metrics: dict[str, float], step: int, now: int) -> None:
        self.metrics |= metrics

    def log_artifacts(self, run_id: str, directory: Path) -> None:
        self.files = {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}

    def end_run(self, run_id: str, status: str, reason: str) -> None:
        self.status = f"{status}: {reason}"

    def set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        self.tags = tags


class Shown:
    """Stands in for a display."""

    def run_ended(self, *arguments: object) -> None:
        return None


def write(folder: Path) -> None:
    checkpoint.save(folder / "checkpoint", {"w": torch.ones(2)}, {"epoch": 1})


def test_failed_run__keeps_its_checkpoint_marked_and_what_it_measured(tmp_path: Path) -> None:
    write(tmp_path)
    run = StudyRun.__new__(StudyRun)
    vars(run).update(display=Shown(), tracker=Kept(), report="test/accuracy", title="t", share=1.0,
                     begin=0.0, run_id="r", directory=tmp_path, metrics={}, measured={}, reason="", curves=set(),
                     mirrored=Mirrors().begin(MirroredRun("s", "c", "0", "seed 0", "t", {})))
    run.event({"event": "measured", "metrics": {"cost/train_seconds": 36000.0}})
    run.event({"event": "measured", "metrics": {"test/accuracy": 0.5}})
    run.event({"event": "failed", "reason": "merged and unmerged outputs differ by 1"})
    ((_, outcome),) = run.end({"event": "exit", "code": 1})
    assert outcome.kind == "failed"
    run.close(outcome.reason)
    kept = run.tracker
    assert kept.status == "FAILED: merged and unmerged outputs differ by 1"
    assert kept.metrics == {"cost/train_seconds": 36000.0, "test/accuracy": 0.5}
    assert "ftlab.sha256.checkpoint/manifest.json" in kept.tags  # as it is now, marked
    assert {"checkpoint/delta.safetensors", "checkpoint/manifest.json"} <= kept.files
    with pytest.raises(InputError, match="that of a failed run: merged and unmerged"):
        _specification(tmp_path, "r")


def test_failed_run__half_a_checkpoint_goes(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "checkpoint/manifest.json").unlink()
    mark_failed(tmp_path / "checkpoint", "killed")
    assert not (tmp_path / "checkpoint").exists()
    mark_failed(tmp_path / "checkpoint", "killed")  # there never was one
