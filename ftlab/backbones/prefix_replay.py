"""A model's frozen prefix: its outputs are recorded once, and played back instead of computed.

The leading blocks in which nothing trains compute the same for an example every time. What the
rest of the model reads of them differs from one architecture to the next, and is found by trial:
everything else that they give becomes NaN, and the model's outputs must not change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ftlab.backbones.block import lies_below
from ftlab.backbones.forward_trace import (
    EXAMPLES,
    LABELS,
    TOKENS,
    ForwardTrace,
    NotReplayable,
    TensorSignature,
    TracePoint,
    kept,
    narrowed,
    some_rows,
    watch,
)
from ftlab.backbones.new_tokens import is_delta
from ftlab.backbones.passes import tensors
from ftlab.backbones.task_model import IGNORED, Batch, CachedRows, TaskModel

RAISED = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
          ValueError)
"""The errors of networks at batches that they were not made for: other shapes, NaN."""


class FrozenPrefix:
    """The frozen prefix of an adapted model.

    Args:
        model: adapted; what requires a gradient is all that will ever train.
        sample: a batch, as the data module makes them.

    Attributes:
        blocks: how many of the model's blocks it has.
        places: of its output tensors, each with a row an example.
        reads_inputs: whether the rest of the model looks at the values of inputs that are images
            or sound, too.

    Raises:
        NotReplayable: there is none, or its outputs cannot be identified.
    """

    def __init__(self, model: TaskModel, sample: Batch) -> None:
        self.model = model
        self.blocks = leading(model)
        frozen = [path for block in model.blocks[: self.blocks] for path in block.paths]
        self._giving = list(_whole(model, "", frozen))
        all_frozen = self.blocks == len(model.blocks)
        self._reading = [at for at, module in model.head.named_modules()
                         if all_frozen and not any(True for _ in module.children())]
        training = [module for module in model.modules() if module.training]
        model.eval()
        try:
            with torch.enable_grad():  # a gradient shows what lies behind something that trains
                self._find(sample)
        except RAISED as error:
            reason = (str(error).splitlines() or [""])[0][:200]
            raise NotReplayable(f"it cannot be tried out ({type(error).__name__}: "
                                f"{reason})") from error
        finally:
            for module in training:
                module.training = True

    def _find(self, sample: Batch) -> None:
        # two shapes separate the batch's axes from the network's
        samples = self._shaped(sample, 3, 0), self._shaped(sample, 2, 1)
        late = {place.path for place, value in self._watch(samples[0]).values.items()
                if isinstance(value, Tensor) and value.requires_grad}
        # T5 has one dropout in front of its blocks and behind them
        self._giving = [path for path in self._giving if path not in late]
        first, second = (self._watch(case) for case in samples)
        if first.trees != second.trees or first.values.keys() != second.values.keys():
            raise NotReplayable("its modules are not called alike for every batch")
        sizes = self._sizes(samples[0]), self._sizes(samples[1])
        self._trees = first.trees
        self._kinds = {place: TensorSignature.of(place, (first.values[place], second.values[place]), sizes)
                       for place in first.values}

        def enough(places: Sequence[TracePoint]) -> bool:
            return all(self._plays(places, *case)
                       for case in zip(samples, (first, second), strict=True))

        needed = next((places for places in self._candidates(first) if enough(places)), None)
        if needed is None:
            raise NotReplayable("the rest of the model reads more of it than its modules return")
        for place in needed:
            if len(needed) > 1 and enough(fewer := [other for other in needed if other != place]):
                needed = fewer
        for place in needed:
            axes = self._kinds[place].axes
            if axes[:1] != (EXAMPLES,) or any(isinstance(axis, str) for axis in axes[2:]):
                raise NotReplayable(f"{place.path} hands on something that is no row an example")
        self.places = tuple(needed)
        self.reads_inputs = not self._plays(needed, _blank(samples[0]), first)

    def _candidates(self, passed: ForwardTrace) -> Iterator[list[TracePoint]]:
        """Yield the sets of values that may be enough, the smallest first."""
        yield from ([place] for place in passed.values if place.leaf < 0)
        given = [place for place, value in passed.values.items()
                 if place.leaf >= 0 and isinstance(value, Tensor) and value.is_floating_point()]
        if given:
            yield [place for place in given if place[:2] == given[-1][:2]]
            yield given

    def _watch(self, batch: Batch, until: TracePoint | None = None) -> ForwardTrace:
        return watch(self.model, batch, self._giving, self._reading, until)

    def _plays(self, places: Sequence[TracePoint], batch: Batch, passed: ForwardTrace) -> bool:
        try:
            with self._playing(places, [passed.values[place] for place in places], batch):
                outputs = tensors(self.model(batch))
        except RAISED:  # the network looks at what is NaN
            return False
        return all(torch.allclose(played, plain, rtol=1e-4, atol=1e-5)
                   for played, plain in zip(outputs, passed.outputs, strict=True))

    def record(self, batch: Batch) -> tuple[list[Tensor], list[Tensor | None]]:
        """The prefix's outputs for a batch, each (B, ...), and its masks (see `CachedRows`).

        Raises:
            NotReplayable: the batch passes through in another way than the sample.
        """
        order = list(self._kinds)
        seen = self._watch(batch, until=max(self.places, key=order.index))
        sizes = self._sizes(batch)
        for place, value in seen.values.items():
            if place not in self._kinds or not self._kinds[place].fits(value, sizes):
                raise NotReplayable(f"{place.path} does not give the same shape for every batch")
        return [seen.values[place] for place in self.places], self._masks(batch)

    @contextmanager
    def playing(self, cached: CachedRows, batch: Batch) -> Iterator[None]:
        """Within it the prefix computes nothing, and gives the cached rows of the batch."""
        device = batch["index"].device
        masks = [mask if mask is None else mask.cpu() for mask in self._masks(batch)]
        handed = cached.rows(batch["index"].cpu(), masks)
        with self._playing(self.places, [tensor.to(device) for tensor in handed], batch):
            yield

    @contextmanager
    def _playing(
        self, places: Sequence[TracePoint], handed: Sequence[Tensor], batch: Batch
    ) -> Iterator[None]:
        values = {place: kept(value) for place, value in zip(places, handed, strict=True)}
        sizes, device = self._sizes(batch), handed[0].device
        calls: Counter[str] = Counter()

        def leave(path: str) -> Any:
            spec, call = self._trees[path, calls[path]], calls[path]
            calls[path] += 1
            leaves = (TracePoint(path, call, leaf) for leaf in range(spec.num_leaves))
            return pytree.tree_unflatten(
                [values[place] if place in values else self._kinds[place].absent(sizes, device)
                 for place in leaves], spec)

        def enter(path: str, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            call = calls[path]
            calls[path] += 1
            return (values.get(TracePoint(path, call, -1), inputs[0]), *inputs[1:])

        giving = [(path, self.model.get_submodule(path)) for path in self._giving]
        hooks = []
        try:
            for path, module in giving:
                vars(module)["forward"] = lambda *_, path=path, **__: leave(path)
            for path in self._reading:  # before the hooks of those who look at what it reads
                hooks.append(self.model.get_submodule(path).register_forward_pre_hook(
                    lambda _, inputs, path=path: enter(path, inputs), prepend=True))
            yield
        finally:
            for _, module in giving:
                vars(module).pop("forward", None)
            for hook in hooks:
                hook.remove()

    def _tokens(self, batch: Batch) -> Tensor | None:
        """The mask (B, T) of the tokens that the network reads, where it reads tokens."""
        mask = self.model.arguments(batch).get("attention_mask")
        return mask.bool() if isinstance(mask, Tensor) and mask.ndim == 2 else None

    def _sizes(self, batch: Batch) -> dict[str, int]:
        """How long the axes are that the batch's rows have in the network."""
        sizes = {EXAMPLES: len(batch["index"])}
        if (mask := self._tokens(batch)) is not None:
            sizes[TOKENS] = mask.shape[1]
        if self.model.needs_target:  # teacher forcing
            sizes[LABELS] = batch["target"]["labels"].shape[1]
        return sizes

    def _masks(self, batch: Batch) -> list[Tensor | None]:
        masks: list[Tensor | None] = []
        for place in self.places:
            axes = self._kinds[place].axes
            if TOKENS in axes:
                masks.append(self._tokens(batch))
            elif LABELS in axes:
                # what stands in front of a label counts, if only to the label
                response = (batch["target"]["labels"] != IGNORED).flip(1)
                masks.append(response.cummax(dim=1).values.flip(1))
            else:
                masks.append(None)
        return masks

    def _shaped(self, batch: Batch, examples: int, fewer: int) -> dict[str, Any]:
        """So many examples of a batch, with so many tokens fewer, and twice so many labels."""
        count = len(batch["index"])
        shaped: dict[str, Any] = some_rows(batch, [i % count for i in range(examples)])
        mask = shaped["inputs"].get("attention_mask")
        if fewer and isinstance(mask, Tensor):
            shaped["inputs"] = {name: narrowed(value, mask.shape[1], fewer)
                                for name, value in shaped["inputs"].items()}
        if fewer and self.model.needs_target:
            width = shaped["target"]["labels"].shape[1]
            shaped["target"] = {name: narrowed(value, width, 2 * fewer)
                                for name, value in shaped["target"].items()}
        return shaped


def _blank(batch: Batch) -> dict[str, Any]:
    """A batch whose images and sounds are NaN."""
    return {**batch, "inputs": {
        name: torch.full_like(value, torch.nan) if value.is_floating_point() else value
        for name, value in batch["inputs"].items()}}


def leading(model: TaskModel) -> int:
    """How many leading blocks have nothing that trains.

    Raises:
        NotReplayable: none has, or something trains in front of them.
    """
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    blocks = model.blocks
    if not all(any(part.holds(name) for part in (*blocks, model.head)) for name in trainable):
        raise NotReplayable("something trains in front of the blocks")
    count = 0
    # by paths: a mask token is the head's, and its block computes with it
    while count < len(blocks) and not any(lies_below(name, blocks[count].paths) for name in trainable):
        count += 1
    if not count:
        only_new = all(is_delta(name) for name in trainable if lies_below(name, blocks[0].paths))
        raise NotReplayable("embeddings of new_tokens train in the first block" if only_new else
                         "the first block trains")
    return count


def _whole(module: nn.Module, path: str, roots: Sequence[str]) -> Iterator[str]:
    """The largest modules that lie in the prefix with all that they hold, and can be called."""
    held = [f"{path}.{name}".lstrip(".")
            for name, _ in (*module.named_parameters(), *module.named_buffers())]
    inside = lies_below(path, roots) or (bool(held) and all(lies_below(h, roots) for h in held))
    if inside and path and not isinstance(module, nn.ModuleList | nn.ModuleDict):
        yield path
        return
    for name, child in module.named_children():
        yield from _whole(child, f"{path}.{name}".lstrip("."), roots)
