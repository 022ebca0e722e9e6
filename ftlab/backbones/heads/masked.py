"""Encoders that say what stood at a masked place: a token, or the pixels of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from ftlab.backbones.base import TaskSpec
from ftlab.backbones.find_blocks import find_blocks, with_dropout
from ftlab.backbones.heads.masked_image import IMAGES, build_masked_image
from ftlab.backbones.heads.pooled import head_paths, renew, ships_head
from ftlab.backbones.load_pretrained import Checkpoint
from ftlab.backbones.task_model import Batch, Outputs, TaskModel
from ftlab.errors import Incompatible


class MaskedModel(TaskModel):
    """Outputs are logits (B, M, V) of the places (B, M) that `batch["inputs"]["places"]` names.

    A place is a position in its row, or -1 where a row has fewer than others. The output layer is
    computed for these places alone: over all tokens it would take as long as the encoder.

    Args:
        network: of transformers, for masked language modelling.
        blocks: as in `TaskModel`.
        head: likewise, what lies between the encoder and the scores of tokens.
        tokenizer: names the tokens.
    """

    def __init__(self, network: nn.Module, blocks: Sequence[tuple[str, Sequence[str]]],
                 head: Sequence[str], tokenizer: Any) -> None:
        super().__init__(network, blocks, head)
        self.tokenizer = tokenizer
        self._asked = _Asked()
        base = getattr(network, str(getattr(network, "base_model_prefix", "")), None)
        if isinstance(base, nn.Module):
            base.register_forward_hook(partial(_at_places, self._asked))

    def arguments(self, batch: Batch) -> Mapping[str, Any]:
        inputs = self.inputs(batch)
        self._asked.places = inputs.pop("places", None)
        self._asked.tokens = inputs["attention_mask"].shape[1]
        self._asked.gathered = False
        return inputs

    def as_exported(self, batch: Batch) -> Batch:
        return {**batch, "inputs": {name: value for name, value in batch["inputs"].items()
                                    if name != "places"}}

    def read(self, output: Any, batch: Batch) -> Outputs:
        logits = self._asked.of(output.logits)  # of all tokens where the encoder's features are hidden
        self._asked.places = None
        return logits

    def texts(self, batch: Batch, max_new_tokens: int, outputs: Outputs | None = None) -> list[str]:
        """The most probable token of each place, with spaces between them."""
        logits = self(batch) if outputs is None else outputs
        rows = zip(logits.argmax(dim=-1).tolist(), batch["inputs"]["places"].tolist(), strict=True)
        return [spelled(self.tokenizer, [token for token, place in zip(tokens, places, strict=True)
                                         if place >= 0]) for tokens, places in rows]


class _Asked:
    """The places that a pass is asked for.

    Attributes:
        places: (B, M), or None for all tokens.
        tokens: of each row, T, without virtual ones in front.
        gathered: whether the head sees the places alone.
    """

    places: Tensor | None = None
    tokens: int = 0
    gathered: bool = False

    def of(self, values: Tensor) -> Tensor:
        """Values (B, M, D) of the places, among those of all tokens (B, V + T, D)."""
        if self.places is None or (self.gathered and values.shape[1] == self.places.shape[1]):
            return values
        self.gathered = True
        places = self.places.clamp(0, self.tokens - 1) + values.shape[1] - self.tokens
        return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def _at_places(asked: _Asked, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """Let the head see the places alone: it computes each by itself."""
    if isinstance(output, ModelOutput) and isinstance(
            hidden := getattr(output, "last_hidden_state", None), Tensor) and hidden.ndim == 3:
        output.last_hidden_state = asked.of(hidden)
    return output


def spelled(tokenizer: Any, ids: Sequence[int]) -> str:
    """Tokens as the vocabulary has them, with spaces between them and none within.

    An output layer may be wider than the vocabulary: what has no token is its number in brackets.
    """
    tokens = zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True)
    return " ".join(token.replace(" ", "_") if token else f"[{number}]" for number, token in tokens)


def build_masked(checkpoint: Checkpoint, task: TaskSpec) -> TaskModel:
    """Build the model of a task whose output type is `masked`, by its Auto class.

    Raises:
        Incompatible: the architecture fills no masks.
    """
    build = build_masked_image if IMAGES in task.auto_classes else _build_masked_text
    return build(checkpoint, task)


def _build_masked_text(checkpoint: Checkpoint, task: TaskSpec) -> TaskModel:
    """Build the model that names tokens.

    The scores of tokens come from the checkpoint's own output layer. Where it has none (a sentence
    encoder), a new one is tied to the embeddings, if the architecture ties them, and what stands
    before it starts at random.

    Raises:
        Incompatible: the architecture fills no masks.
    """
    auto = checkpoint.own_class(task.auto_classes)
    config = checkpoint.config
    if auto is None or getattr(config, "is_encoder_decoder", False):
        raise Incompatible(f"{checkpoint.label}: transformers has no encoder of {config.model_type} "
                           "that fills masked places", "choose an encoder (BERT, RoBERTa)")
    network = checkpoint.network(auto, new=head_paths)
    head = head_paths(network)
    for path in head:  # behind the encoder, so that what is tied is called by the encoder's name
        network.add_module(path, network._modules.pop(path))
    trained = ships_head(checkpoint, network, head)
    if not trained and not checkpoint.meta:
        for path in head:
            renew(network, path)
    head = with_dropout(network, head)
    model = MaskedModel(network, find_blocks(network, head), head, checkpoint.tokenizer())
    model.head_trained = trained
    return model
