"""Checks that fail a run loudly, so that no wrong number reaches a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ftlab.backbones.digest import digest
from ftlab.backbones.new_tokens import is_delta
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import GuardFailed
from ftlab.techniques.base import Technique
from ftlab.training.fsdp import full

PATIENCE = 10  # updates by which a gradient has come, also where layers are dropped at random
TYPICAL = 0.1  # of its rate, what Adam moves a weight by in most updates


class TensorGuard:
    """Records every parameter and buffer before training; afterwards shows which moved.

    Args:
        model: the adapted model, before training; where it is shared out, on all ranks at once.
    """

    in_state = ("reached", "updates", "_waited", "_asked", "_peaks")
    """Attributes that a state of the run keeps."""

    def __init__(self, model: TaskModel) -> None:
        self.before = {name: digest(full(tensor)) for name, tensor in _tensors(model).items()}
        self.reached: set[str] = set()
        self.updates, self._waited, self._asked = 0, 0, 0
        self._optimizer: torch.optim.Optimizer | None = None
        self._peaks: list[float] = []  # rates, by the optimizer's groups

    def moved(self, model: TaskModel, among: set[str] | None = None) -> set[str]:
        """Names of the parameters and persistent buffers that differ from before.

        A sharded model is gathered tensor by tensor, so all ranks must ask together.

        Args:
            model: the model, after training.
            among: only these are looked at; None for all.
        """
        return {n for n, tensor in _tensors(model).items() if (among is None or n in among)
                and digest(full(tensor.detach())) != self.before.get(n)}

    def note_gradients(self, model: TaskModel) -> None:
        """Remember which parameters have a gradient now."""
        self.reached |= {n for n, p in model.named_parameters() if p.grad is not None}

    def before_update(
        self, model: TaskModel, trained: set[str], optimizer: torch.optim.Optimizer
    ) -> None:
        """Check the gradients, and in an early update all tensors.

        Args:
            model: with the gradients of the update that comes.
            trained: what the technique trains by now.
            optimizer: that makes the update.

        Raises:
            GuardFailed: after `PATIENCE` updates a trained tensor had no gradient, or a frozen
                one has changed.
        """
        self.updates += 1
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._peaks = [max(pair) for pair in zip(rates, self._peaks or rates, strict=True)]
        self._optimizer = optimizer
        if not trained <= self.reached:
            self.note_gradients(model)
        if len(trained) != self._asked:  # something was unfrozen: it has as long again
            self._asked, self._waited = len(trained), 0
        self._waited += 1
        if self._waited == PATIENCE:
            names = {name for name, _ in model.named_parameters()}
            _complain({"got no gradient": trained - self.reached,
                       "changed though frozen": self.moved(model, names - trained)})

    def check(self, model: TaskModel, trained: set[str], among: set[str] | None = None) -> list[str]:
        """Compare what moved with what the technique trains.

        Args:
            model: after training.
            trained: parameters that the technique trains.
            among: only these are looked at; None for all.

        Returns:
            Notes on tensors that stayed where they were for a reason.

        Raises:
            GuardFailed: a trained tensor got no gradient or never moved, a frozen one changed.
        """
        moved = self.moved(model, among) & {name for name, _ in model.named_parameters()}
        # a new token that no training text has stays where it is
        still = {name for name in (trained & self.reached) - moved if not is_delta(name)}
        unmoved = {name: p for name, p in model.named_parameters() if name in still}
        held = {name for name, parameter in unmoved.items() if self._held(parameter)}
        waiting = {name for name, parameter in unmoved.items()
                   if self.updates < PATIENCE and self._had_zeros(parameter)}
        self._optimizer = None  # with its state, which inference does not need
        _complain({
            "got no gradient": trained - self.reached,
            "never moved": still - held - waiting,
            "changed though frozen": moved - trained,
        })
        if trained and held == trained:
            raise GuardFailed(f"no tensor moved: {_HELD}", "raise lr, or train in float32")
        notes = {f"tensors got gradients and stayed where they were, since {_HELD}": held,
                 f"tensors had gradients of zero in all {self.updates} updates, too few to tell "
                 "whether they train": waiting}
        return [f"{note}: {_some(names)}" for note, names in notes.items() if names]

    def check_settled(self, model: TaskModel, trained: set[str]) -> None:
        """Compare what moved with what trained, after the technique has finished the model.

        Raises:
            GuardFailed: a frozen tensor changed.
        """
        moved = self.moved(model) & {name for name, _ in model.named_parameters()}
        _complain({"changed though frozen when the technique settled": moved - trained})

    def _held(self, parameter: Tensor) -> bool:
        """Return whether rounding undid the updates of a tensor that is as it was."""
        state, rate = self._state(parameter)
        seen = [value for value in state if bool(full(value).any())]
        if not seen or rate == 0:
            return False
        # Adam's steps are about its rate, whatever the gradient; those of others the gradient's
        size = 1.0 if len(state) > 1 else float(full(seen[0]).abs().max())
        weight = full(parameter.detach())
        some = weight[weight != 0]  # nothing is too small to be added to zero
        pushed = (some.double() + TYPICAL * rate * size).to(some.dtype)
        return len(some) > 0 and torch.equal(pushed, some)

    def _had_zeros(self, parameter: Tensor) -> bool:
        """Return whether all gradients that the optimizer saw of a tensor were zero."""
        state, _ = self._state(parameter)
        return bool(state) and not any(bool(full(value).any()) for value in state)

    def _state(self, parameter: Tensor) -> tuple[list[Tensor], float]:
        """The optimizer's records of a tensor's gradients, and its highest rate."""
        if self._optimizer is None:
            return [], 0.0
        groups = zip(self._optimizer.param_groups, self._peaks, strict=True)
        rate = next((peak for group, peak in groups
                     if any(parameter is other for other in group["params"])), 0.0)
        kept = self._optimizer.state.get(parameter, {}).values()
        return [value for value in kept if isinstance(value, Tensor)
                and value.shape == parameter.shape and value.ndim], rate


_HELD = "every update was below half a step of their precision"


def _complain(complaints: Mapping[str, set[str]]) -> None:
    for complaint, names in complaints.items():
        if names:
            raise GuardFailed(f"tensors {complaint}: {_some(names)}")


def _some(names: set[str]) -> str:
    """Three of them, and how many more."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(sorted(names)[:3])}{more}"


def _tensors(model: TaskModel) -> dict[str, Tensor]:
    """Parameters (tied ones once) and persistent buffers, by name."""
    state = model.state_dict()
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    return {name: state[name] for name in names if name in state}


def check_identity(
    before: Sequence[Tensor], after: Sequence[Tensor], technique: Technique, model: TaskModel
) -> None:
    """Hold a technique to its claim that it starts as the unadapted model.

    Args:
        before: comparable outputs of the unadapted model in eval mode.
        after: those of the adapted model for the same batch.
        technique: for its claim and name.
        model: for its precision and depth.

    Raises:
        GuardFailed: they differ.
    """
    if technique.identity_at_start and not close(before, after, rounding(model)):
        raise GuardFailed(
            f"{type(technique).__name__} claims to start as the identity, but outputs differ by "
            f"{_gap(before, after):.2g}"
        )


def check_merge(unmerged: Sequence[Tensor], merged: Sequence[Tensor], model: TaskModel) -> float:
    """Hold a merged model to the unmerged one; returns the largest difference of their outputs.

    Rounding weights to half precision changes outputs, the more the deeper the network is;
    `merging.check_layers` has held each kind of layer to what it should be, exactly.

    Args:
        unmerged: comparable outputs.
        merged: of the same batch.
        model: for its precision and depth.

    Raises:
        GuardFailed: they differ by more than rounding.
    """
    # 10: another order of summation
    if not close(unmerged, merged, max(10 * LEAST, rounding(model))):
        raise GuardFailed(f"merged and unmerged outputs differ by {_gap(unmerged, merged):.2g}")
    return _gap(unmerged, merged)


LEAST = 1e-4  # relative difference that float32 is granted
_TIMES = 4  # what a rounding in each block makes; independent ones were seen to make a half


def rounding(model: TaskModel) -> float:
    """Relative difference that rounding may make of a model's outputs.

    An error of each block adds to those before it, of either sign: it grows with the root of
    their number.
    """
    steps = [torch.finfo(p.dtype).eps for p in model.parameters() if p.is_floating_point()]
    device = next(model.parameters()).device.type
    if torch.is_autocast_enabled(device):
        steps.append(torch.finfo(torch.get_autocast_dtype(device)).eps)
    return max(LEAST, _TIMES * max(steps, default=0.0) * math.sqrt(len(model.blocks)))


def close(a: Sequence[Tensor], b: Sequence[Tensor], tolerance: float = LEAST) -> bool:
    """Equal, tensor by tensor, up to a share of the largest number of each."""
    return len(a) == len(b) and all(_close(x, y, tolerance) for x, y in zip(a, b, strict=True))


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if a.shape != b.shape:
        return False
    largest = float(b.float().nan_to_num().abs().max()) if b.numel() else 0.0
    floor = max(tolerance * largest, LEAST)
    return torch.allclose(a.float(), b.float(), rtol=tolerance, atol=floor, equal_nan=True)


def _gap(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    if [x.shape for x in a] != [y.shape for y in b]:
        return math.inf
    return max(float((x.float() - y.float()).abs().max()) for x, y in zip(a, b, strict=True))
