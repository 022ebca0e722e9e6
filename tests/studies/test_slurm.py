"""Inside a Slurm job runs are ours to place, not Lightning's."""

import json
import sys
from pathlib import Path

import pytest

from ftlab.studies.engine import SPECIFICATION, MachineShare
from ftlab.studies.local_engine import LocalEngine

PEEK = """
import os
from pathlib import Path

from lightning import Trainer
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only

trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
environment = trainer._accelerator_connector.cluster_environment
said = [type(environment).__name__, rank_zero_only.rank]
Path(__file__).with_name("said").write_text(" ".join(map(str, said)))
"""
SPAWNED = True  # servers as users have them


def test_workers__runs_do_not_take_slurms_tasks_for_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what `srun --ntasks=4` tells its second task
    job = {"JOB_ID": "7", "JOB_NAME": "ftlab", "NTASKS": "4", "PROCID": "1", "LOCALID": "0",
           "NODEID": "1", "NNODES": "4", "NTASKS_PER_NODE": "1", "NODELIST": "n[1-4]"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "peek.py").write_text(PEEK)
    run = tmp_path / "run"
    run.mkdir()
    run.joinpath(SPECIFICATION).write_text(json.dumps({
        "trainer": {"devices": 1}, "backbone": {"class_path": "peek.Nothing", "init_args": {}}}))
    workers = LocalEngine([MachineShare()])
    workers.start(run)
    while "exit" not in [event["event"] for _, event in workers.events(1.0)]:
        pass
    workers.close()
    assert (tmp_path / "said").read_text() == "LightningEnvironment 0"
    assert "peek" not in sys.modules
