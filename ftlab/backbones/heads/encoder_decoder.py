"""Networks that read one sequence and write another (T5, BART, Whisper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from ftlab.backbones.find_blocks import find_blocks
from ftlab.backbones.heads.generation import written
from ftlab.backbones.load_pretrained import Checkpoint, quiet
from ftlab.backbones.task_model import IGNORED, Batch, LogitsModel
from ftlab.errors import InputError

# What a text begins and ends with, and which tokens Whisper must not write (Radford et al. 2022).
# All else that checkpoints ship (beams, sampling, lengths, penalties) would differ between them.
_KEPT = (
    "pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id",
    "forced_bos_token_id", "suppress_tokens", "begin_suppress_tokens", "is_multilingual",
    "lang_to_id", "task_to_id", "language", "task", "no_timestamps_token_id", "prev_sot_token_id")
_LONGEST_PROMPT = 4  # Whisper's: start, language, task, no timestamps


class EncoderDecoderModel(LogitsModel):
    """Outputs are the decoder's logits (B, T, V) for `batch["target"]["labels"]` (B, T).

    The decoder reads the labels shifted to the right (teacher forcing); -100 becomes padding.
    The pre-trained output layer stays, so the head is empty.

    Args:
        network: of transformers, with `generate`.
        blocks: as in `TaskModel`.
        tokenizer: turns what was generated into text.
    """

    needs_target = True

    def __init__(self, network: nn.Module, blocks: Sequence[tuple[str, Sequence[str]]],
                 tokenizer: Any) -> None:
        super().__init__(network, blocks)
        self.tokenizer = tokenizer

    def arguments(self, batch: Batch) -> Mapping[str, Any]:
        network: Any = self.network
        labels = batch["target"]["labels"]
        if hasattr(network, "prepare_decoder_input_ids_from_labels"):  # mBART shifts in its own way
            shifted = network.prepare_decoder_input_ids_from_labels(labels=labels)
        else:
            shifted = shift_right(labels, network.config.decoder_start_token_id,
                                  network.config.pad_token_id)
        return {**self.inputs(batch), "decoder_input_ids": shifted}

    def generate(self, batch: Batch, max_new_tokens: int) -> list[str]:
        network: Any = self.network
        with quiet(), torch.no_grad():
            tokens = network.generate(**self.inputs(batch),
                                      max_new_tokens=self.most_tokens(max_new_tokens))
        return written(self.tokenizer, tokens)

    def most_tokens(self, max_new_tokens: int) -> int:
        network: Any = self.network
        room = _positions(network.config) - _LONGEST_PROMPT - _prefix_tokens(network)
        return min(max_new_tokens, room)


def build_encoder_decoder(checkpoint: Checkpoint, auto: Any) -> EncoderDecoderModel:
    """The network as it was pre-trained, decoding greedily.

    Raises:
        InputError: the config does not say which token a text begins with.
    """
    if getattr(checkpoint.config, "decoder_start_token_id", None) is None:
        raise InputError(f"{checkpoint.label}: config.json has no decoder_start_token_id",
                         "add it: for T5 it is the padding token's id")
    network = checkpoint.network(auto)
    _check_decoder_ids(network, checkpoint.label)
    network.generation_config = _greedy(network.generation_config)
    if getattr(network.config, "forced_decoder_ids", None):
        network.config.forced_decoder_ids = None  # Whisper's old way to name language and task
    return EncoderDecoderModel(network, find_blocks(network, ()), checkpoint.tokenizer())


def _check_decoder_ids(network: Any, label: str) -> None:
    """Hold what the decoder reads in front of and behind a text to its embeddings.

    Raises:
        InputError: an id is beyond them.
    """
    rows = network.get_decoder().get_input_embeddings().num_embeddings
    for name in ("decoder_start_token_id", "pad_token_id"):
        if (place := getattr(network.config, name, None)) is not None and place >= rows:
            raise InputError(f"{label}: {name} is {place}, and the decoder has embeddings for "
                             f"{rows} tokens", f"mend {name} in config.json, or save the network "
                             f"after resize_token_embeddings({place + 1})")


def shift_right(labels: Tensor, start: int, pad: int) -> Tensor:
    """Make the decoder's inputs for `labels` (B, T): the start token, then each label before."""
    shifted = labels.new_full(labels.shape, start)
    shifted[:, 1:] = labels[:, :-1]
    return shifted.masked_fill(shifted == IGNORED, pad)


def _greedy(shipped: GenerationConfig) -> GenerationConfig:
    kept = {name: value for name in _KEPT
            if (value := getattr(shipped, name, None)) is not None}
    if "task_to_id" in kept and "language" not in kept:
        kept.setdefault("task", "transcribe")
    return GenerationConfig(do_sample=False, num_beams=1, use_cache=True, **kept)


def _positions(config: Any) -> int:
    """Tokens the decoder can write, its prompt included."""
    limits = [value for name in ("max_target_positions", "max_position_embeddings")
              if isinstance(value := getattr(config, name, None), int)]
    return min(limits, default=2**31)  # T5's positions are relative


def _prefix_tokens(network: Any) -> int:
    """Positions of the decoder that a prefix of PEFT's takes; a prompt stands before the source."""
    config: Any = getattr(network, "active_peft_config", None)
    return config.num_virtual_tokens if getattr(config, "peft_type", "") == "PREFIX_TUNING" else 0
