"""One block of a model: a named group of its submodules and loose parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from torch import nn


class Block:
    """A named group of a model's submodules and loose parameters.

    It holds paths, not modules, so that it stays right when a technique replaces a module inside
    it (LoRA wraps a layer, for instance).

    Args:
        model: the model the paths start from.
        name: what to call the group, for instance `layers.3`.
        paths: paths of submodules or parameters from `model`; a parameter belongs to the group
            when its own path is one of these or lies below one.
        shells: gives the modules around the blocks that are in none; their training mode (not
            what is inside them) follows this block. Some drop out in their own forward.
        without: paths below these that are not of the group: the head's, such as a mask token.
    """

    def __init__(self, model: nn.Module, name: str, paths: Sequence[str],
                 shells: Callable[[], Iterable[nn.Module]] = tuple,
                 without: Sequence[str] = ()) -> None:
        self._model = model
        self.name = name
        self.paths = tuple(paths)
        self._shells = shells
        self._without = tuple(without)

    def holds(self, path: str) -> bool:
        """Return whether the parameter or module at `path` (from the model) is in this group."""
        return lies_below(path, self.paths) and not lies_below(path, self._without)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Path from the model, and parameter, each once."""
        return ((name, p) for name, p in self._model.named_parameters() if self.holds(name))

    def parameters(self) -> Iterator[nn.Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Path from the model, and module, of every module in the group."""
        return ((name, m) for name, m in self._model.named_modules() if self.holds(name))

    def requires_grad_(self, requires_grad: bool = True) -> Block:
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def train(self, mode: bool = True) -> Block:
        for _, module in self.named_modules():
            module.training = mode
        for module in self._shells():
            module.training = mode
        return self

    def __repr__(self) -> str:
        return f"Block({self.name}: {', '.join(self.paths)})"


def lies_below(path: str, roots: Sequence[str]) -> bool:
    """Return whether a dotted path is one of `roots` or lies below one."""
    return any(path == root or path.startswith(root + ".") for root in roots)
