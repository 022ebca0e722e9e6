from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ftlab.backbones.heads.embedding import EmbeddingModel, Scorer
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible, InputError
from ftlab.techniques.base import Technique

PLACE = "{label}"
SCALE = 20.0
"""The factor on cosine similarities, for networks that bring none: sentence-transformers' own."""


class ZeroShot(Technique):
    """Class by similarity: each class is the mean embedding of its filled prompt templates.

    Radford, Kim, Hallacy et al. (2021), https://arxiv.org/abs/2103.00020, section 3.1.4 on
    templates; for sentence encoders: Reimers, Gurevych (2019), https://arxiv.org/abs/1908.10084.

    The logits are cosine similarities times a scale. Nothing trains. Several templates are an
    ensemble in the space of embeddings: one embedding a class, whatever their number.

    Args:
        templates: texts with `{label}` in them; null is the class name alone.
        descriptions: class name -> words that the templates are filled with; a class that is
            not in it keeps its name. To rename a class everywhere use the data set's `classes`.
        scale: of the similarities, which bears on the loss and on calibration alone; null takes
            the network's own (CLIP), and 20 where it has none.
    """

    trains = False
    output_type = "embedding"

    def __init__(self, templates: list[str] | None = None,
                 descriptions: dict[str, str] | None = None, scale: float | None = None) -> None:
        super().__init__()
        self.templates = [PLACE] if templates is None else list(templates)
        self.descriptions = dict(descriptions or {})
        self.scale = scale
        if not self.templates:
            raise ValueError("templates must not be empty")
        for template in self.templates:
            if PLACE not in template:
                raise ValueError(f"a template must have {PLACE} in it, got {template!r}")
        if scale is not None and scale <= 0:
            raise ValueError(f"scale must be above 0, got {scale}")
        self.classes: list[str] = []

    def prepare(self, data: DataModule) -> None:
        classes = getattr(data.task, "classes", None)
        if classes is None or data.task.output_type != "vector":
            raise Incompatible(f"ZeroShot compares with names of classes, and the task "
                               f"{type(data.task).__name__} does not choose one class of several",
                               "leave it out for this data set")
        if getattr(data, "text_pair", None) is not None:
            raise Incompatible("ZeroShot compares one text with names of classes, and text_pair "
                               "gives two", "leave it out for this data set")
        for name in self.descriptions:
            if name not in classes:
                raise InputError(f"ZeroShot: descriptions has {name!r}, which is no class",
                                 f"the classes are: {', '.join(classes)}")
        self.classes = list(classes)

    def adapt(self, model: TaskModel) -> None:
        if not isinstance(model, EmbeddingModel):
            raise Incompatible(f"{type(model).__name__} does not embed texts",
                               "choose a sentence encoder or an image-text model as the backbone")
        model.requires_grad_(False).eval()
        words = [self.descriptions.get(name, name) for name in self.classes]
        if next(model.parameters()).is_meta:  # planning: no parameters are added
            model.check_texts(filled(self.templates, words))
            return
        references = class_embeddings(model, self.templates, words)
        model.scorer = Similarity(references, self.scale or model.logit_scale or SCALE)


class Similarity(Scorer):
    """Scaled cosine similarity with references.

    Args:
        references: unit vectors (C, D).
        scale: of the similarities.
    """

    references: Tensor

    def __init__(self, references: Tensor, scale: float) -> None:
        super().__init__()
        self.register_buffer("references", references)
        self.scale = scale

    def forward(self, embeddings: Tensor) -> Tensor:
        """Logits (B, C) of unit vectors (B, D)."""
        return self.scale * embeddings @ self.references.T

    def linear(self) -> nn.Linear:
        rows, width = self.references.shape
        layer = nn.Linear(width, rows, bias=False)
        layer.weight.data = (self.scale * self.references).to(self.references.dtype)
        return layer


def filled(templates: Sequence[str], words: Sequence[str]) -> list[str]:
    """The templates of each word, word by word."""
    return [template.replace(PLACE, word) for word in words for template in templates]


def class_embeddings(model: TaskModel, templates: Sequence[str], words: Sequence[str]) -> Tensor:
    """Unit vectors (C, D): each the mean of a class's embedded templates.

    Args:
        model: in eval mode, of the output type `embedding`.
        templates: T texts with `{label}` in them.
        words: what each of the C classes fills in.
    """
    embedded = model.embed_texts(filled(templates, words))
    embedded = embedded.unflatten(0, (len(words), len(templates)))  # (C, T, D)
    return nn.functional.normalize(embedded.mean(dim=1), dim=-1)
