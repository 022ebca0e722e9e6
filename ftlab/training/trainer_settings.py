"""Settings of the trainer: epochs, precision, devices; plain types, checked at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class TrainerSettings:
    """The settings of one run's training.

    Args:
        max_epochs: passes over the training examples.
        min_steps: as many more passes as give so many updates, where `max_epochs` gives fewer: a
            few examples make few in an epoch. None for none.
        max_steps: updates of the fit, in place of `max_epochs`: schedules end with the last.
        validate_every: updates from one validation to the next (a whole number), or the part of an
            epoch that lies between (0.25, for instance). Each is judged as the end of an epoch
            is, by `patience` and a sweep's pruner too. None: at the end of each epoch.
        max_seconds: end the fit, with a validation, after the step in which so many seconds are
            over; validations count. What it gives depends on the machine.
        precision: Lightning's names; `32-true` is the default because parameters in half
            precision lose late updates and bias full against parameter-efficient tuning. `auto`
            is `bf16-mixed` (products rounded to bfloat16, parameters in float32) where the
            hardware is faster in it, else `32-true`; what it became is on record.
        gradient_clip: largest norm of the gradient; None for no clipping.
        accumulate: batches whose gradients are added up before an update, which is that of all
            their examples in one batch: `batch_size: 2` with 4 is `batch_size: 8`, in the memory
            of 2. Only batch norms, whose statistics are of each batch, and detectors, which divide
            their loss by what they match in it, come out otherwise; `check` notes it.
        patience: stop after so many validations without a better `select_by`; None never stops
            early.
        accelerator: `auto`, `cpu`, `gpu` or `mps`.
        devices: processes of one run, on each of its nodes.
        nodes: machines of one run, each with so many `devices`; None for one. The command is started
            once on each, by torchrun or srun.
        strategy: of several devices. `ddp` gives each the whole model; `fsdp` shares weights,
            gradients and optimizer state out, for models whose training does not fit one device;
            `auto` is `ddp`.
        threads: CPU threads of a run, on each of its nodes; None for all cores.
        tf32: whether GPUs may round the factors of float32 products to TF32's 10 bits.
        compile: `auto` compiles the blocks that train where a run on a GPU is long enough to
            repay it; results then differ by rounding.
        log_every: steps from one of a curve's points in training to the next.
        save_every: minutes from one state of the run, from which the same command continues it,
            to the next; None for none. Results are the same: it is not part of a cell's hash.
        checkpoint_activations: whether blocks keep their inputs alone, and are computed again in the
            backward pass: less memory for about a third more time, and the same gradients. None for no.
    """

    max_epochs: int = 3
    min_steps: int | None = None
    max_steps: int | None = None
    validate_every: int | float | None = None
    max_seconds: float | None = None
    precision: Literal[
        "auto", "32-true", "16-mixed", "bf16-mixed", "bf16-true", "64-true"] = "32-true"
    gradient_clip: float | None = 1.0
    accumulate: int = 1
    patience: int | None = None
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: int = 1
    nodes: int | None = None
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    threads: int | None = None
    tf32: bool = False
    compile: Literal["never", "auto"] = "never"
    log_every: int = 10
    save_every: float | None = 10.0
    checkpoint_activations: bool | None = None

    def __post_init__(self) -> None:
        for name in ("max_epochs", "min_steps", "max_steps", "accumulate", "devices", "nodes", "patience",
                     "threads", "log_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        every = self.validate_every
        if isinstance(every, float) and not 0 < every <= 1:
            raise ValueError("validate_every must be a number of steps, or a part of an epoch from "
                             f"above 0 to 1.0, got {every}")
        if isinstance(every, int) and every < 1:
            raise ValueError(f"validate_every must be at least 1 step, got {every}")
        for name in ("max_seconds", "save_every"):
            if (limit := getattr(self, name)) is not None and limit <= 0:
                raise ValueError(f"{name} must be above 0, got {limit}")
        if self.max_steps is not None and self.min_steps is not None:
            raise ValueError(f"max_steps: {self.max_steps} and min_steps: {self.min_steps} are in "
                             "conflict: leave one of them out")
        if self.gradient_clip is not None and self.gradient_clip <= 0:
            raise ValueError(f"gradient_clip must be above 0, got {self.gradient_clip}")
        if self.strategy == "fsdp":
            if self.processes == 1:
                raise ValueError("strategy fsdp needs at least 2 devices")
            if self.precision == "16-mixed":
                raise ValueError("strategy fsdp does not go with precision 16-mixed, but with bf16")

    @property
    def processes(self) -> int:
        """Processes of one run, on all its nodes."""
        return self.devices * (self.nodes or 1)

    @property
    def cuts_epochs(self) -> bool:
        """True where validations, or the end, may lie within an epoch."""
        return any(value is not None
                   for value in (self.max_steps, self.validate_every, self.max_seconds))


def processes_of(trainer: Mapping[str, Any]) -> int:
    """Processes of a run with such settings, on all its nodes; older records know no nodes."""
    return int(trainer["devices"]) * (trainer.get("nodes") or 1)
