"""Blocks that keep their inputs alone, and are computed again where the backward pass needs them.

Chen, Xu, Zhang, Guestrin (2016), https://arxiv.org/abs/1604.06174, in the form of PyTorch's
`torch.utils.checkpoint` without a second autograd graph (`use_reentrant=False`), which asks for
no gradient of a block's inputs: the embedding may be frozen.

A block is computed again as it was: with the same random numbers, with the parameters and buffers
that stood in it (`Mixout` and `SAM` put others there for the forward pass alone), and with batch
norms whose running statistics have counted the batch already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from transformers import Cache

from ftlab.backbones.passes import tensors
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import GuardFailed, InputError
from ftlab.training import fake_tensors

_MEND = "leave checkpoint_activations out; a smaller batch_size with accumulate saves memory too"


def install(model: TaskModel, compare: bool = True) -> None:
    """Let a model's blocks be computed again in every backward pass from now on.

    Args:
        model: adapted; layers that are added later would be outside.
        compare: whether each block's first pass is held to its second one.
    """
    for module in modules_of(model).values():
        vars(module)["_recomputed_once"] = not compare
        vars(module)["forward"] = MethodType(_recomputed, module)


def modules_of(model: TaskModel) -> dict[str, nn.Module]:
    """Modules that are computed again, by path, in the order of the blocks.

    The stem is cheap to keep, and techniques change what it gives. A single layer keeps no more
    than its inputs anyway. Where a hook within a block reads what lies outside of all modules (the
    lengths of a batch's recordings), that may be gone in the backward pass.

    Raises:
        InputError: there is none.
    """
    named = dict(model.named_modules())
    found = {path: named[path] for block in model.blocks[1:] for path in block.paths
             if path in named and _has_layers(named[path]) and not _reads_outside(named[path])}
    if not found:
        raise InputError("checkpoint_activations: the network has no blocks of several layers behind "
                         "its first one, of which nothing would be kept", _MEND)
    return found


def _has_layers(module: nn.Module) -> bool:
    return not isinstance(module, nn.ModuleList | nn.ModuleDict) and any(
        True for child in module.children() for _ in child.parameters())


def _reads_outside(module: nn.Module) -> bool:
    hooks = [hook for part in module.modules() if part is not module
             for hook in (*part._forward_pre_hooks.values(), *part._forward_hooks.values())]
    return any(isinstance(hook, MethodType) and not isinstance(hook.__self__, nn.Module)
               for hook in hooks)


@contextmanager
def checked(model: TaskModel) -> Iterator[None]:
    """Look whether a model's blocks can be computed again, in the one pass that it makes within.

    Raises:
        InputError: a block is called several times or out of turn, or changes what it is given.
    """
    called: list[str] = []
    found = modules_of(model)

    def note(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, arguments: Any, named: Mapping[str, Any]) -> None:
            called.append(path)
            if any(isinstance(leaf, Cache) for leaf in tree_leaves((arguments, dict(named)))):
                raise InputError(f"checkpoint_activations: {path} adds to the keys and values that it is "
                                 "given, and would do so again in the backward pass", _MEND)
        return hook

    hooks = [module.register_forward_pre_hook(note(path), with_kwargs=True)
             for path, module in found.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    for path in called:
        if (times := called.count(path)) > 1:
            raise InputError(f"checkpoint_activations: the block {path} is called {times} times in a pass",
                             _MEND)
    order = [path for path in found if path in called]
    for path, wanted in zip(called, order, strict=True):
        if path != wanted:
            raise InputError(f"checkpoint_activations: the network's blocks are not called in their order, "
                             f"{path} comes where {wanted} should", _MEND)


def check_shape(model: TaskModel, sample: Mapping[str, Any]) -> None:
    """Check a model that was built without weights, whose tensors become fake ones.

    Networks whose computation depends on numbers are checked when they have some.

    Raises:
        InputError: as `checked`.
    """
    made = fake_tensors.mode()
    fake_tensors.empty(model, made)
    with checked(model), made, torch.no_grad():
        try:
            model(fake_tensors.batch_like(sample, made))
        except fake_tensors.NEEDS_NUMBERS:
            return


def _recomputed(module: nn.Module, *args: Any, **named: Any) -> Any:
    plain = partial(type(module).forward, module)
    if not torch.is_grad_enabled():
        return plain(*args, **named)
    first = not vars(module)["_recomputed_once"]
    vars(module)["_recomputed_once"] = True
    return checkpoint(_Compared(plain) if first else plain, *args, use_reentrant=False,
                      context_fn=partial(_contexts, module), early_stop=not first, **named)


class _Compared:
    """A block's first call, which must give the same when it is computed again."""

    def __init__(self, plain: Callable[..., Any]) -> None:
        self.plain = plain
        self.given: Tensor | None = None

    def __call__(self, *args: Any, **named: Any) -> Any:
        outputs = self.plain(*args, **named)
        values = tensors(outputs)[0].detach()
        sums = torch.stack([values.sum(dtype=torch.float32), values.abs().sum(dtype=torch.float32)])
        if self.given is None:
            self.given = sums
        elif not torch.allclose(sums, self.given, rtol=1e-3, atol=1e-3 * float(self.given[1]),
                                equal_nan=True):
            raise GuardFailed("checkpoint_activations: a block gives something else when it is computed "
                              "again, so that gradients would be wrong", _MEND)
        return outputs


def _contexts(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """The contexts of a block's forward pass, and of its second one."""
    return nullcontext(), _as_it_was(_places(module))


_Place = tuple[dict[str, Any], str, Any]


def _places(module: nn.Module) -> list[_Place]:
    """The tensors and modes that a block computes with: parameters, buffers, modes, tensors among its attributes."""
    found: list[_Place] = []
    for part in module.modules():
        own = vars(part)
        for store in (part._parameters, part._buffers):
            found += [(store, name, tensor) for name, tensor in store.items()]
        found += [(own, name, value) for name, value in own.items()
                  if name == "training" or isinstance(value, Tensor)]
        if isinstance(part, _NormBase) and part.training and part.track_running_stats:
            found += [(own, "momentum", 0.0), (part._buffers, "num_batches_tracked", None)]
    return found


@contextmanager
def _as_it_was(places: Sequence[_Place]) -> Iterator[None]:
    kept = [(store, name, store.get(name)) for store, name, _ in places]
    try:
        for store, name, value in places:
            store[name] = value
        yield
    finally:
        for store, name, value in kept:
            store[name] = value
