"""A backbone's network with a task's head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from ftlab.backbones.block import Block
from ftlab.backbones.passes import Watched, tensors, watching
from ftlab.backbones.waveforms import over_frames
from ftlab.errors import Incompatible

if TYPE_CHECKING:
    from ftlab.backbones.unread_weights import UnreadWeights

Batch = Mapping[str, Any]
"""A data module's batch: `inputs` (the network's keyword arguments), `target`, `index`."""

Outputs = Any
"""A model's outputs: a tensor, or nested mappings and sequences of tensors."""


class CachedRows(Protocol):
    """Cached activations of a split's examples: the outputs of a model's frozen prefix."""

    def rows(self, index: Tensor, masks: Sequence[Tensor | None]) -> list[Tensor]:
        """The tensors of some examples, each (B, ...).

        Args:
            index: positions in the split (B,).
            masks: of each tensor, where the entries of a ragged row go (B, W); None for rows
                that are all equally long.
        """


Playing = Callable[[CachedRows, Batch], AbstractContextManager[None]]

IGNORED = -100
"""The label of a place that counts in no loss: PyTorch's and transformers' own."""


class HeadLayer(nn.Module):
    """A layer that a technique puts in the place of a head's last linear one, on its features."""


class TaskModel(nn.Module):
    """A backbone's network with a task's head.

    Every parameter lies in exactly one of `blocks` and `head`. A subclass overrides `arguments`
    and `read` where a network wants more than the batch's inputs or returns more than one tensor.

    `needs_target` says that a forward pass reads the target (teacher forcing).

    Args:
        network: called with `arguments(batch)`.
        blocks: name and paths (from `network`) of each block, input to output, the embedding or
            stem first.
        head: paths (from `network`) of what is new in the network; empty with `pooled_head`, and
            where the network keeps its pre-trained output layer. What lies below a block's path
            too is the head's alone.
        pooled_head: for headless networks: turns the network's output and the batch's `inputs`
            into outputs.

    Attributes:
        playing: given the cached rows that a batch brings as `prefix`, the frozen prefix computes
            nothing within it (`FrozenPrefix.playing`).
        reading: makes the outputs of the network and a batch in another way than the model; a
            technique sets it (in-context prompts, for instance).
    """

    needs_target: ClassVar[bool] = False
    blank: int | None = None
    """The symbol that stands for none, of outputs that spell a text with a symbol per frame."""
    inert: tuple[str, ...] = ()
    """Paths of modules on which the outputs do not depend at the start: no place for adapters."""
    batch_loss: str = ""
    """Why the loss of a batch is not that of its parts, where a network computes its own."""
    head_trained: bool = False
    """True where the head was trained before this fit: by a stage that carries it, or in the checkpoint."""
    new_ids: Sequence[int] = ()
    """Tokens whose embeddings are new, so that no pre-training has seen them."""
    unread: UnreadWeights | None = None
    """The source of the weights of its network on the meta device; None where it has them."""
    quantizable: Sequence[nn.Module] = ()
    """Layers of the backbone's own that are measured quantised; none where nobody asks."""

    def __init__(
        self,
        network: nn.Module,
        blocks: Sequence[tuple[str, Sequence[str]]],
        head: Sequence[str] = (),
        pooled_head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if head and pooled_head is not None:
            raise ValueError("a model has either its own head or a pooled one")
        self.network = network
        self.pooled_head = pooled_head
        self.playing: Playing | None = None
        self.reading: nn.Module | None = None
        self._trunk = "network"
        self._blocks = [(name, tuple(paths)) for name, paths in blocks]
        self._head = tuple(head)

    def _paths(self, paths: Sequence[str]) -> list[str]:
        return [f"{self._trunk}.{path}" for path in paths]

    @property
    def blocks(self) -> list[Block]:
        """Input to output; the embedding or stem first."""
        head = self._paths(self._head)
        return [Block(self, name, self._paths(paths), tuple if i else self._shells, head)
                for i, (name, paths) in enumerate(self._blocks)]

    @property
    def head(self) -> Block:
        """The layers that the task added, at random; none where the output layer is kept."""
        if self.pooled_head is not None:
            return Block(self, "head", ["pooled_head"])
        return Block(self, "head", self._paths(self._head))

    @property
    def has_random_head(self) -> bool:
        """True where the task has added layers that nothing has trained yet."""
        return not self.head_trained and any(True for _ in self.head.parameters())

    def _shells(self) -> Iterator[nn.Module]:
        """Modules of the network in no block and not in the head."""
        inside = [p for _, paths in self._blocks for p in self._paths(paths)] + [*self.head.paths]
        held = Block(self, "all", inside)
        return (module for name, module in self.named_modules()
                if (name + ".").startswith(self._trunk + ".") and not held.holds(name))

    @property
    def trunk(self) -> nn.Module:
        """The backbone's own network, within what a technique has wrapped around it."""
        return self.get_submodule(self._trunk)

    def wrap(self, wrapped: nn.Module, inner: str) -> None:
        """Replace the network by a wrapper that holds it at the path `inner`."""
        self.network = wrapped
        self._trunk = f"{self._trunk}.{inner}"

    def unwrap(self) -> None:
        """Put the backbone's own network in the place of what was wrapped around it."""
        self.network, self._trunk = self.trunk, "network"

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """A batch's inputs, sound and images in the dtype of the network's weights."""
        dtypes = (p.dtype for p in self.network.parameters() if p.is_floating_point())
        dtype = next(dtypes, torch.float32)
        return {name: value.to(dtype) if _is_float(value) else value
                for name, value in batch["inputs"].items()}

    def arguments(self, batch: Batch) -> Mapping[str, Any]:
        """The network's keyword arguments for a batch."""
        return self.inputs(batch)

    def as_exported(self, batch: Batch) -> Batch:
        """A batch as the network alone reads it, in the program that it is exported to."""
        return batch

    def read(self, output: Any, batch: Batch) -> Outputs:
        """The outputs in what the network returned (a `ModelOutput`, say) for a batch."""
        return output

    def forward(self, batch: Batch) -> Outputs:
        """Compute what the task's loss reads; for the type `vector` one tensor (B, outputs)."""
        if "prefix" not in batch:
            return self._forward(batch)
        assert self.playing is not None
        with self.playing(batch["prefix"], batch):
            return self._forward(batch)

    def _forward(self, batch: Batch) -> Outputs:
        if self.reading is not None:
            return self.reading(self.network, batch)
        output = self.network(**self.arguments(batch))
        if self.pooled_head is not None:
            return self.pooled_head(output, over_frames(self.trunk, output, batch["inputs"]))
        return self.read(output, batch)

    def generate(self, batch: Batch, max_new_tokens: int) -> list[str]:
        """Write a text for each example of a batch (output type `text` alone).

        Decoding is greedy, batched, with cached keys and values, and bounded.

        Args:
            batch: as in `forward`; targets are not read.
            max_new_tokens: of each text; generation may end earlier.
        """
        raise Incompatible(f"{type(self).__name__} does not generate text",
                           "choose a language or speech model as the backbone")

    def most_tokens(self, max_new_tokens: int) -> int:
        """As many tokens as `generate` writes at most when it is given `max_new_tokens`."""
        return max_new_tokens

    def texts(self, batch: Batch, max_new_tokens: int, outputs: Outputs | None = None) -> list[str]:
        """As `generate`; a model whose `outputs` of the batch hold the texts reads them off."""
        return self.generate(batch, max_new_tokens)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts as (N, D), comparable with a batch's (output type `embedding` alone)."""
        raise Incompatible(f"{type(self).__name__} does not embed texts",
                           "choose a sentence encoder or an image-text model as the backbone")

    def comparable(self, outputs: Outputs) -> list[Tensor]:
        """Tensors by which two states of a model are compared: continuous in its weights."""
        return tensors(outputs)

    def features(self, batch: Batch) -> Tensor:
        """The inputs (B, D) of the head's last linear layer, see `watched`."""
        return self.watched(batch).features

    def watched(self, batch: Batch, blocks: Sequence[str] = ()) -> Watched:
        """Compute the outputs, and what the head and some blocks saw and gave in the same pass.

        A head on every token (GPT-2) gives the last token's features, a convolutional head
        (SqueezeNet) the mean over positions. Dropout acts as in `forward`.

        Args:
            batch: as in `forward`.
            blocks: names of blocks.

        Raises:
            Incompatible: a block is not computed.
        """
        with self.watching(blocks) as passes:
            self(batch)
        return passes[-1]

    def watching(self, blocks: Sequence[str] = ()) -> AbstractContextManager[list[Watched]]:
        """Make a context that lists the passes which the model makes within, see `watched`.

        Args:
            blocks: names of blocks.
        """
        heads = [m for _, m in self.head.named_modules()
                 if isinstance(m, nn.Linear | nn.Conv2d | HeadLayer)]
        modules = dict(self.named_modules())
        watched = {block.name: [modules[path] for path in block.paths if path in modules][-1]
                   for block in self.blocks if block.name in blocks}
        # a block's last module: what is loose in it gives nothing
        return watching(self, heads[-1] if heads else None, watched)


class LogitsModel(TaskModel):
    """A Hugging Face network whose `logits` are the outputs."""

    def read(self, output: Any, batch: Batch) -> Outputs:
        return output.logits


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def initialise_linear(layer: nn.Linear, std: float = 0.02) -> nn.Linear:
    """BERT's initialisation of a head: normal weights, zero bias (Devlin et al. 2019)."""
    with torch.no_grad():
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
    return layer
