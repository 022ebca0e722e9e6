"""A batch script for Slurm: an array of commands that share a study's runs, or a sweep's trials."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from ftlab.errors import InputError
from ftlab.redaction import redact
from ftlab.studies.engine import Requirements
from ftlab.studies.study import Study

CORES = 4  # of a process of a run, where the study names no threads
WARNING = 120  # seconds before the end of --time at which Slurm says so
_USER = re.compile(r"(://)[^/@:\s]+@")  # a name without a password
_TIME = re.compile(r"\d+(:\d\d){0,2}|\d+-\d\d?(:\d\d){0,2}", re.ASCII)


@dataclass(frozen=True)
class SlurmJob:
    """The resources and the command of a batch script for Slurm.

    Args:
        name: of the study or sweep.
        command: given on each node, as words.
        store: address of the tracking store, the same for all; empty for the default one.
        elements: of the array, each a command on nodes of its own.
        nodes: of one run.
        gpus: of each node.
        cores: of each node.
        time: as Slurm writes it: 08:00:00, 2-00.

    Raises:
        InputError: an address with a password, or a store that other nodes do not reach.
    """

    name: str
    command: Sequence[str]
    store: str = ""
    elements: int = 1
    nodes: int = 1
    gpus: int = 0
    cores: int = CORES
    time: str = "08:00:00"

    def __post_init__(self) -> None:
        if not _TIME.fullmatch(self.time):
            raise InputError(f"--time {self.time}: not a time of Slurm's", "--time 08:00:00, or 2-00 for two days")
        for word in (self.store, *self.command):
            if not word.isprintable():
                raise InputError(f"{word!r} does not fit a line of a script", "name it otherwise")
            if redact(word) != _USER.sub(r"\1", word):
                raise InputError(f"{redact(word)}: a password or token does not belong in a script",
                                 "leave it out: ~/.pgpass, or a variable of the environment, has it")
        if self.elements > 1 and (not self.store or self.store.startswith("sqlite:")):
            raise InputError(
                f"an array of {self.elements} needs a tracking store that all nodes reach, and "
                f"{self.store or 'the default one'} is a file of one machine",
                "--tracking-uri http://HOST:5000 (mlflow server), or --array 1")

    @property
    def script(self) -> str:
        """The script, for `sbatch`."""
        lines = [f"--job-name=ftlab-{self.name}", f"--array=1-{self.elements}",
                 f"--nodes={self.nodes} --ntasks-per-node=1 --cpus-per-task={self.cores}",
                 *([f"--gpus-per-node={self.gpus}"] if self.gpus else []), f"--time={self.time}",
                 f"--signal=USR1@{WARNING}", "--requeue", "--open-mode=append",
                 f"--output=ftlab-{self.name}-%A_%a.log"]
        store = [f"export MLFLOW_TRACKING_URI={shlex.quote(self.store)}"] if self.store else []
        return "\n".join([
            "#!/bin/bash",
            "# sbatch starts it in the folder in which it was given: the project's, on a disk that all nodes share.",
            "# Each element of the array does what is free; one that comes late, or again, joins in.",
            *[f"#SBATCH {line}" for line in lines],
            "set -euo pipefail",
            "# the environment of ftlab, unless the terminal of sbatch had it",
            "if [ -f .venv/bin/activate ]; then source .venv/bin/activate; fi",
            *store,
            f"srun --ntasks-per-node=1 {shlex.join(self.command)}",
        ]) + "\n"


def job(study: Study, need: Requirements, name: str, command: Sequence[str], store: str, elements: int,
        nodes: int | None, gpus: int | None, time: str) -> SlurmJob:
    """The job of a study or sweep: what is not given is read from its trainer settings.

    Args:
        study: whose runs they are.
        need: of its largest run.
        name: of the study or sweep.
        command: as of `SlurmJob`.
        store: as of `SlurmJob`.
        elements: as of `SlurmJob`.
        nodes: None for the study's.
        gpus: None for the devices of a run, or none where it asks for the CPU.
        time: as of `SlurmJob`.

    Raises:
        InputError: other nodes than the study asks for, or what `SlurmJob` refuses.
    """
    if nodes is not None and nodes != need.nodes:
        raise InputError(f"--nodes {nodes}: runs of {study.name} take {need.nodes}",
                         f"--set trainer.nodes={nodes}, or --array {nodes} for commands that share the runs")
    if gpus is None:
        gpus = 0 if need.accelerator == "cpu" else need.devices
    threads = max((cell.trainer["threads"] or CORES) for cell in study.cells)
    return SlurmJob(name, command, store, elements, need.nodes, gpus,
                    max(gpus, need.devices) * threads, time)
