"""Embeddings that compare with those of texts: sentence encoders and image-text models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from ftlab.backbones.find_blocks import find_blocks
from ftlab.backbones.heads.pooled import headless
from ftlab.backbones.load_pretrained import Checkpoint
from ftlab.backbones.pooling import Pooling, pool
from ftlab.backbones.preprocessing import Vocabulary
from ftlab.backbones.task_model import Batch, Outputs, TaskModel
from ftlab.backbones.text_preprocessing import check_vocabulary, longest_text, read_vocabulary
from ftlab.errors import Incompatible, InputError

BATCH = 64
"""Texts embedded at once."""


class Scorer(nn.Module):
    """Makes outputs (B, C) of embeddings of unit length (B, D)."""

    def linear(self) -> nn.Linear | None:
        """The layer that does the same; None where no layer does."""
        return None


class EmbeddingModel(TaskModel):
    """A network whose output for an example is an embedding of unit length (B, D).

    Args:
        network: headless, or a dual encoder of images and texts.
        tokenizer: transformers' fast one, for `embed_texts`.
        longest: tokens of a text that the network reads.
        vocabulary: which tokens it has embeddings for; None where nobody says.

    Attributes:
        scorer: turns embeddings (B, D) into the model's outputs; a technique sets it.
    """

    def __init__(self, network: nn.Module, tokenizer: Any, longest: int,
                 vocabulary: Vocabulary | None = None) -> None:
        super().__init__(network, find_blocks(network, ()))
        self.tokenizer = tokenizer
        self.longest = longest
        self.vocabulary = vocabulary
        self.scorer: Scorer | None = None

    @property
    def logit_scale(self) -> float | None:
        """The factor on cosine similarities with which the network was trained, if any."""
        return None

    def embed(self, inputs: dict[str, Any]) -> Tensor:
        """Embeddings of a batch's inputs (B, D), of any length."""
        raise NotImplementedError

    def embed_tokens(self, inputs: dict[str, Any]) -> Tensor:
        """Embeddings of tokenised texts (B, D), of any length."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Outputs:
        """Embeddings (B, D), or what `scorer` makes of them."""
        embeddings = nn.functional.normalize(self.embed(dict(self.arguments(batch))), dim=-1)
        return embeddings if self.scorer is None else self.scorer(embeddings)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of texts (N, D), of unit length, without gradient.

        Raises:
            InputError: a text is longer than the network reads.
        """
        device = next(self.parameters()).device
        embeddings = []
        for start in range(0, len(texts), BATCH):
            some = list(texts[start:start + BATCH])
            inputs = self._tokenise(some).to(device)
            with torch.no_grad():
                embeddings.append(nn.functional.normalize(self.embed_tokens(inputs), dim=-1))
        return torch.cat(embeddings)

    def check_texts(self, texts: Sequence[str]) -> None:
        """Refuse texts that the network cannot read.

        Raises:
            InputError: one has too many tokens, or a token without an embedding.
        """
        for text, ids in zip(texts, self.tokenizer(list(texts))["input_ids"], strict=True):
            if len(ids) > self.longest:
                raise InputError(f"{text[:40]!r} ... has {len(ids)} tokens, and the network reads "
                                 f"{self.longest}", "shorten the template or the description")
            if self.vocabulary is not None:
                self.vocabulary.check(ids, f"{text[:40]!r}")

    def _tokenise(self, texts: list[str]) -> Any:
        self.check_texts(texts)
        return self.tokenizer(texts, padding=self._padding, max_length=self.longest,
                              truncation=True, return_tensors="pt")

    @property
    def _padding(self) -> str:
        return "longest"


class SentenceEncoder(EmbeddingModel):
    """Examples are texts, and their embedding the pooled features (Reimers, Gurevych 2019).

    https://arxiv.org/abs/1908.10084
    """

    def __init__(self, network: nn.Module, tokenizer: Any, longest: int, pooling: Pooling,
                 vocabulary: Vocabulary | None = None) -> None:
        super().__init__(network, tokenizer, longest, vocabulary)
        self.pooling: Pooling = pooling

    def embed(self, inputs: dict[str, Any]) -> Tensor:
        return pool(self.network(**inputs), inputs, self.pooling)

    def embed_tokens(self, inputs: dict[str, Any]) -> Tensor:
        return self.embed({name: inputs[name] for name in ("input_ids", "attention_mask")})


class DualEncoder(EmbeddingModel):
    """Examples are images, in one space with texts (Radford et al. 2021).

    https://arxiv.org/abs/2103.00020
    """

    network: Any

    @property
    def logit_scale(self) -> float | None:
        scale = getattr(self.network, "logit_scale", None)
        return None if scale is None else float(scale.detach().exp())

    @property
    def _padding(self) -> str:
        # SigLIP's texts were padded in training, and it reads its embedding off the last place
        siglip = self.network.config.model_type.startswith("siglip")
        return "max_length" if siglip else "longest"

    def embed(self, inputs: dict[str, Any]) -> Tensor:
        return self.network.get_image_features(**inputs).pooler_output

    def embed_tokens(self, inputs: dict[str, Any]) -> Tensor:
        return self.network.get_text_features(**inputs).pooler_output


def build_embedding(checkpoint: Checkpoint, pooling: Pooling | None) -> TaskModel:
    """Build the model whose output type is `embedding`.

    Args:
        checkpoint: of a text encoder or decoder, or of a dual encoder (CLIP, SigLIP).
        pooling: of a text network's features; None for `mean`.

    Raises:
        Incompatible: the network embeds no texts.
    """
    config = checkpoint.config
    kind: Any = transformers.AutoModel._model_mapping.get(type(config), None)
    dual = hasattr(kind, "get_image_features") and hasattr(kind, "get_text_features")
    if kind is None or not (dual or kind.main_input_name == "input_ids"):
        raise Incompatible(f"{checkpoint.label}: {config.model_type} does not embed texts",
                           "choose a sentence encoder or an image-text model as the backbone")
    tokenizer = checkpoint.tokenizer()
    vocabulary = read_vocabulary(config, tokenizer, checkpoint.label, checkpoint.new_tokens)
    check_vocabulary(vocabulary, tokenizer)
    if dual:
        network = checkpoint.network(transformers.AutoModel)
        longest = longest_text(config.get_text_config(), tokenizer)
        return DualEncoder(network, tokenizer, longest, vocabulary)
    longest = longest_text(config, tokenizer)
    return SentenceEncoder(headless(checkpoint), tokenizer, longest, pooling or "mean", vocabulary)
