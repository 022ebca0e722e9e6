"""Slurm's queue: a job that is told in time that its own ends is put back, and the command continues."""

from __future__ import annotations

import os
import subprocess

PATIENCE = 20.0  # seconds for Slurm's answer


def requeue() -> str:
    """Put this Slurm job back into its queue; returns a line to say, empty outside of Slurm."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job:
        return ""
    if int(os.environ.get("SLURM_PROCID", "0")):  # another task of the job does it
        return ""
    command = ["scontrol", "requeue", job]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"job {job} could not be put back ({error}): {' '.join(command)}"
    if done.returncode:
        reason = (done.stderr or done.stdout).strip()
        return f"job {job} could not be put back ({reason}): {' '.join(command)}"
    return f"job {job} was put back into Slurm's queue"
