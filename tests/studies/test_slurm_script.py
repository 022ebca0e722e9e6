"""`ftlab slurm`: what it prints is run here, with stand-ins for srun and scontrol."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from scripted import write_sweep

from ftlab.errors import InputError
from ftlab.studies.slurm import SlurmJob

UNRENDERED = True
Here = Callable[..., tuple[int, str, str]]
SRUN = """#!/bin/bash
# srun: drops its options, runs the command with what it tells a task
while [ "${1#-}" != "$1" ]; do shift; done
export SLURM_JOB_ID=7 SLURM_PROCID=0 SLURM_NNODES=1
exec "$@"
"""
FTLAB = """#!/bin/bash
printf '%s\\n' "$MLFLOW_TRACKING_URI" "$@" > said
[ -n "$WHOLE" ] || exit 0
exec {python} -m ftlab.cli "$@"
"""


@pytest.fixture
def study(tmp_path: Path, tiny_bert: Path, reviews: Path) -> Path:
    path = tmp_path / "my study.yaml"
    path.write_text(yaml.safe_dump({
        "name": "small",
        "backbones": {"bert": {"class_path": "HuggingFace",
                               "init_args": {"source": str(tiny_bert), "pooling": "mean"}}},
        "datasets": {"reviews": {"class_path": "TextClassification", "init_args": {
            "train": str(reviews), "max_length": 32, "batch_size": 8}}},
        "techniques": {"probe": "LinearProbe"}, "seeds": [0],
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "threads": 2}}, sort_keys=False))
    return path


def programs(folder: Path) -> dict[str, str]:
    """Stand-ins on the path."""
    folder.mkdir()
    for name, text in (("srun", SRUN), ("ftlab", FTLAB.format(python=sys.executable))):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def checked(script: str, folder: Path) -> Path:
    """The script as a file, after bash and shellcheck have read it."""
    path = folder / "job.sh"
    path.write_text(script)
    subprocess.run(["bash", "-n", path], check=True)
    if (shellcheck := shutil.which("shellcheck")) is not None:  # SC1091: .venv is not here
        said = subprocess.run([shellcheck, "-e", "SC1091", path], capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stdout
    return path


@pytest.mark.parametrize("whole", ["", pytest.param("1", marks=pytest.mark.slow)], ids=["command", "whole"])
def test_printed_script__runs_the_study(here: Here, study: Path, tmp_path: Path, whole: str) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    code, script, errors = here("slurm", study, "--time", "30:00", "--seeds", "3", "--tracking-uri", store)
    assert code == 0, errors
    asked = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    assert "#SBATCH --nodes=1 --ntasks-per-node=1 --cpus-per-task=2" in asked
    assert {"#SBATCH --time=30:00", "#SBATCH --array=1-1", "#SBATCH --signal=USR1@120", "#SBATCH --requeue"} <= {*asked}
    assert "gpus" not in script  # the study asks for the CPU
    job = checked(script, tmp_path)
    done = subprocess.run(["bash", job], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env={**programs(tmp_path / "bin"), "WHOLE": whole})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "said").read_text().splitlines() == [store, "run", str(study), "--seeds", "3"]
    assert not whole or (tmp_path / "results/small/runs.csv").read_text().count("FINISHED") == 1


def test_sweep__goes_as_a_sweep_on_gpus_and_nodes(
    here: Here, tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    path = write_sweep(tmp_path, tiny_bert, reviews, {"trainer": {"devices": 4, "nodes": 2}}, name="quick")
    code, script, errors = here("slurm", path, "--array", "3", "--tracking-uri", "http://h:5000",
                                "--storage", "postgresql://ftlab@db/optuna", "--set", "trainer.max_epochs=2")
    assert code == 0, errors
    checked(script, tmp_path)
    lines = script.splitlines()
    assert "#SBATCH --array=1-3" in lines
    assert "#SBATCH --nodes=2 --ntasks-per-node=1 --cpus-per-task=16" in lines
    assert "#SBATCH --gpus-per-node=4" in lines
    assert "export MLFLOW_TRACKING_URI=http://h:5000" in lines
    assert lines[-1] == (f"srun --ntasks-per-node=1 ftlab sweep {path} --set trainer.max_epochs=2 "
                         "--storage postgresql://ftlab@db/optuna")


@pytest.mark.parametrize(("changes", "message"), [
    ({"elements": 2}, "tracking store that all nodes reach"),
    ({"elements": 2, "store": "sqlite:///mlflow.db"}, "a file of one machine"),
    ({"store": "postgresql://me:long-password-17@db/x"}, "password or token"),
    ({"command": ("ftlab", "--storage", "postgresql://me:long-password-17@db/x")}, "password or token"),
    ({"command": ("ftlab", "run", "a\x1b[2J.yaml")}, "does not fit a line"), ({"time": "a day"}, "not a time"), ({"time": "1:00\n#SBATCH --wrap=x"}, "not a time"),
])
def test_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        SlurmJob(**{"name": "small", "command": ("ftlab", "run", "s.yaml"), **changes})
    assert "long-password-17" not in str(caught.value)


def test_other_nodes__than_the_study_s_are_refused(here: Here, study: Path) -> None:
    code, _, errors = here("slurm", study, "--nodes", "2")
    assert code == 2
    assert "--nodes 2: runs of small take 1" in errors
