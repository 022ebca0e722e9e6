"""What every backbone is: a pre-trained network with its preprocessing and ordered blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

Batch = Mapping[str, Any]
"""What a data module yields: `inputs` (the network's keyword arguments), `target`, `index`."""


class TaskSpec(Protocol):
    """What a backbone needs to know of a task to build its model."""

    auto_classes: ClassVar[tuple[str, ...]]
    """transformers Auto classes whose own head fits the task, one a modality."""

    @property
    def outputs(self) -> int:
        """Width of the head: logits an example."""


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
    """

    def __init__(self, model: nn.Module, name: str, paths: Sequence[str],
                 shells: Callable[[], Iterable[nn.Module]] = tuple) -> None:
        self._model = model
        self.name = name
        self.paths = tuple(paths)
        self._shells = shells

    def holds(self, path: str) -> bool:
        """Whether the parameter or module at `path` (from the model) is in this group."""
        return any(path == own or path.startswith(own + ".") for own in self.paths)

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


class TaskModel(nn.Module):
    """A backbone's network with a task's head.

    Every parameter lies in exactly one of `blocks` and `head`.

    Args:
        network: called with the batch's `inputs`.
        blocks: name and paths (from `network`) of each block, input to output, the embedding or
            stem first.
        head: paths (from `network`) of the architecture's own head; empty with `pooled_head`.
        pooled_head: for headless networks: turns the network's output and the batch's `inputs`
            into outputs.
        read: takes the outputs from what the network returns (a `ModelOutput`, say); used when
            there is no `pooled_head`.
    """

    def __init__(
        self,
        network: nn.Module,
        blocks: Sequence[tuple[str, Sequence[str]]],
        head: Sequence[str] = (),
        pooled_head: nn.Module | None = None,
        read: Callable[[Any], Tensor] = lambda output: output,
    ) -> None:
        super().__init__()
        if bool(head) == (pooled_head is not None):
            raise ValueError("a model has either its own head or a pooled one")
        self.network = network
        self.pooled_head = pooled_head
        self._trunk = "network"
        self._blocks = [(name, tuple(paths)) for name, paths in blocks]
        self._head = tuple(head)
        self._read = read

    def _paths(self, paths: Sequence[str]) -> list[str]:
        return [f"{self._trunk}.{path}" for path in paths]

    @property
    def blocks(self) -> list[Block]:
        """Input to output; the embedding or stem first."""
        return [Block(self, name, self._paths(paths), tuple if i else self._shells)
                for i, (name, paths) in enumerate(self._blocks)]

    @property
    def head(self) -> Block:
        """What the task added: the only randomly initialised part before a technique adapts."""
        paths = self._paths(self._head) if self._head else ["pooled_head"]
        return Block(self, "head", paths)

    def _shells(self) -> Iterator[nn.Module]:
        """Modules of the network in no block and not in the head."""
        inside = [p for _, paths in self._blocks for p in self._paths(paths)] + [*self.head.paths]
        held = Block(self, "all", inside)
        return (module for name, module in self.named_modules()
                if (name + ".").startswith(self._trunk + ".") and not held.holds(name))

    def wrap(self, wrapped: nn.Module, inner: str) -> None:
        """Replace the network by a wrapper that holds it at the path `inner`."""
        self.network = wrapped
        self._trunk = f"{self._trunk}.{inner}"

    def forward(self, batch: Batch) -> Tensor:
        """Outputs of the head, for classification logits (B, C)."""
        output = self.network(**batch["inputs"])
        if self.pooled_head is None:
            return self._read(output)
        return self.pooled_head(output, batch["inputs"])

    def features(self, batch: Batch) -> Tensor:
        """What the head's last linear layer reads (B, D), for probes.

        A head on every token (GPT-2) gives the last token's, a convolutional head (SqueezeNet)
        the mean over positions. Call it in eval mode: dropout acts as in `forward`.
        """
        layers = [m for _, m in self.head.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        read: list[Tensor] = []
        hook = layers[-1].register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        try:
            self(batch)
        finally:
            hook.remove()
        features = read[-1]
        if features.ndim == 3:  # (B, T, D)
            return last_token(features, batch["inputs"]["attention_mask"])
        return features.mean(dim=(2, 3)) if features.ndim == 4 else features


@dataclass(frozen=True)
class TextPreprocessing:
    """Texts to token ids, and token ids to a padded batch.

    Attributes:
        encode: texts, longest allowed length in tokens (special tokens included) ->
            token ids a text, and how many of the texts were cut.
        pad: token ids of a batch -> the network's inputs, each (B, T).
        longest: tokens the network can read.
    """

    encode: Callable[[Sequence[str], int], tuple[list[list[int]], int]]
    pad: Callable[[Sequence[Sequence[int]]], dict[str, Tensor]]
    longest: int


@dataclass(frozen=True)
class ImagePreprocessing:
    """How the backbone wants its images.

    Attributes:
        input_name: the network's keyword argument for the images.
        size: height and width it was trained with.
        mean, std: of the three channels, for values in 0..1.
        interpolation: `nearest`, `bilinear` or `bicubic`.
        fixed_size: whether another size is refused (no interpolated positions).
    """

    input_name: str
    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"
    fixed_size: bool = False


Preprocessing = TextPreprocessing | ImagePreprocessing


class Backbone(ABC):
    """A pre-trained network, named by its source; nothing is loaded by the constructor."""

    @property
    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """How raw examples become the network's inputs (loads the tokenizer or the config)."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 of the weights: what `build` starts from."""

    @abstractmethod
    def build(self, task: TaskSpec, meta: bool = False) -> TaskModel:
        """The task's model with the pre-trained weights and a new head.

        Args:
            task: gives the width of the head and the architectures that fit.
            meta: build the shape alone, on the meta device, without reading weights; for
                planning (what trains, how many parameters, does a technique suit).

        Raises:
            InputError: the source is missing or damaged.
            Incompatible: the architecture has no head for the task.
        """


def last_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """The last real token of each text (B, D), whichever side is padded.

    Args:
        hidden: a vector a token (B, V + T, D); V virtual tokens may stand in front.
        mask: 1 for real tokens, 0 for padding (B, T).
    """
    width = mask.shape[1]
    positions = torch.arange(width, device=mask.device)
    last = (mask * positions).argmax(dim=1)  # (B,)
    return hidden[torch.arange(len(hidden), device=hidden.device), last - width]


def initialise_linear(layer: nn.Linear, std: float = 0.02) -> nn.Linear:
    """BERT's initialisation of a head: normal weights, zero bias (Devlin et al. 2019)."""
    with torch.no_grad():
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
    return layer
