"""The base class of backbones: a pre-trained network with its preprocessing and ordered blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Protocol

from ftlab.backbones.export_code import Origin, PlainNetwork
from ftlab.backbones.preprocessing import Preprocessing
from ftlab.backbones.quantization import Quantization
from ftlab.backbones.source import WholeOnly
from ftlab.backbones.source_layer import SourceLayer, lacking
from ftlab.backbones.task_model import TaskModel
from ftlab.renamed import RefusesEarlierNames

OutputType = Literal["vector", "tokens", "boxes", "text", "embedding", "masked", "pixels"]
"""The type of a model's output for an example: all that a backbone depends on of a task.

- `vector`: one vector, from a new head;
- `tokens`: one vector a token, from a new head;
- `boxes`: labelled boxes in an image, from a detector with new predictors;
- `text`: a text, from the pre-trained output layer (`TaskModel.generate`);
- `embedding`: an embedding that compares with those of texts (`TaskModel.embed_texts`);
- `masked`: what stood at the masked places of a text or an image;
- `pixels`: one vector a pixel of an image, on a grid that may be coarser, from a new head.
"""


class TaskSpec(Protocol):
    """The facts of a task from which a backbone builds its model."""

    output_type: ClassVar[OutputType]
    auto_classes: ClassVar[tuple[str, ...]]
    """transformers Auto classes whose own head fits the task, the preferred first."""

    @property
    def outputs(self) -> int:
        """Width of the new head: logits an example, a token or a box; 0 where there is none."""


class Backbone(RefusesEarlierNames, ABC):
    """A pre-trained network, named by its source; nothing is loaded by the constructor."""

    dequantized: bool = False
    """True builds a quantised base in the floating point that it stands for, which any library loads."""
    quantize: Quantization | None = None
    """How the base is quantised; None for as it is."""

    @property
    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """How raw examples become the network's inputs (loads the tokenizer or the config)."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 of the weights: what `build` starts from."""

    @abstractmethod
    def build(self, task: TaskSpec, output_type: OutputType | None = None,
              meta: bool = False) -> TaskModel:
        """The task's model with the pre-trained weights and a new head, where it has one.

        Args:
            task: gives the output type, the width of the head and the architectures that fit.
            output_type: another than the task's, for techniques that read the same examples in
                another way (by similarity to descriptions, in context).
            meta: build the shape alone, on the meta device, without reading weights; for
                planning (what trains, how many parameters, does a technique suit).

        Raises:
            InputError: the source is missing or damaged.
            Incompatible: the architecture does not give the output type.
        """

    def build_unread(self, task: TaskSpec, output_type: OutputType | None = None) -> TaskModel:
        """As `build`, but on the meta device, a new head excepted; `model.unread` reads the weights later.

        Raises:
            WholeOnly: this backbone cannot be built so; besides what `build` raises.
        """
        raise WholeOnly(f"{type(self).__name__} reads no shares")

    @property
    def origin(self) -> Origin | None:
        """The pre-trained network as transformers names it; None where it does not."""
        return None

    def export_code(self, model: TaskModel, task: TaskSpec,
                    image_size: tuple[int, int] | None) -> PlainNetwork | None:
        """How a library other than transformers builds a model's network.

        Args:
            model: built by this backbone, with nothing added to its network.
            task: as in `build`.
            image_size: height and width of the images that it is given.

        Returns:
            None where no other library does, or where transformers saves and loads it by itself.
        """
        return None

    def source_layer(self, path: str) -> SourceLayer:
        """The checkpoint's own classifier, which reads the features that a new head reads.

        Args:
            path: of the head's linear layer in the network that `build` made.

        Raises:
            Incompatible: the checkpoint has none.
        """
        raise lacking(f"{type(self).__name__}: ftlab reads no classifier of its checkpoints")
