"""Speech encoders with connectionist temporal classification (Graves et al. 2006)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.backbones.find_blocks import find_blocks, with_dropout
from ftlab.backbones.heads.pooled import head_paths, renew
from ftlab.backbones.load_pretrained import Checkpoint
from ftlab.backbones.passes import tensors
from ftlab.backbones.task_model import Batch, Outputs, TaskModel
from ftlab.errors import Incompatible, InputError


class CTCModel(TaskModel):
    """Outputs are `logits` (B, T, V), the real `lengths` (B,) of T, and the id of the `blank`.

    Args:
        network: of transformers, with `logits`.
        blocks: as in `TaskModel`.
        head: paths of an output layer that is new; empty where the pre-trained one stays.
        tokenizer: of characters.
        blank: id of the blank.
    """

    def __init__(self, network: nn.Module, blocks: Sequence[tuple[str, Sequence[str]]],
                 head: Sequence[str], tokenizer: Any, blank: int) -> None:
        super().__init__(network, blocks, head)
        self.tokenizer = tokenizer
        self.blank = blank

    def read(self, output: Any, batch: Batch) -> Outputs:
        logits: Tensor = output.logits
        network: Any = self.network
        samples = batch["inputs"]["attention_mask"].sum(-1)
        lengths = network._get_feat_extract_output_lengths(samples).to(torch.long)
        return {"logits": logits, "lengths": lengths, "blank": self.blank}

    def comparable(self, outputs: Outputs) -> list[Tensor]:
        return tensors(outputs["logits"])

    def generate(self, batch: Batch, max_new_tokens: int) -> list[str]:
        with torch.no_grad():
            return self.decode(self(batch))

    def texts(self, batch: Batch, max_new_tokens: int, outputs: Outputs | None = None) -> list[str]:
        return self.generate(batch, max_new_tokens) if outputs is None else self.decode(outputs)

    def decode(self, outputs: Mapping[str, Any]) -> list[str]:
        """The most probable symbol of each frame, repeats collapsed, blanks dropped."""
        best: list[list[int]] = outputs["logits"].argmax(dim=-1).tolist()
        lengths = outputs["lengths"].tolist()
        texts = [[symbol for symbol, _ in groupby(symbols[:length]) if symbol != self.blank]
                 for symbols, length in zip(best, lengths, strict=True)]
        # grouping is done: transformers' own drops blanks first where special tokens are skipped,
        # and so loses double letters
        return [self.tokenizer.decode(text, skip_special_tokens=True, group_tokens=False,
                                      clean_up_tokenization_spaces=False)
                for text in texts]


def build_ctc(checkpoint: Checkpoint, auto: Any) -> CTCModel:
    """The network with its pre-trained output layer, or with a new one for a new vocabulary.

    Raises:
        InputError: no tokenizer, or one that does not fit the output layer.
        Incompatible: the checkpoint has no output layer.
    """
    architectures = checkpoint.config.architectures or []
    new = checkpoint.new_vocabulary
    if not new and not any(name.endswith("ForCTC") for name in architectures):
        raise Incompatible(
            f"{checkpoint.label}: it was pre-trained without transcripts ("
            f"{', '.join(architectures) or 'architecture unknown'}) and has no output layer",
            "name the characters to write, for instance characters: abcdefghijklmnopqrstuvwxyz")
    network = checkpoint.network(auto, new=head_paths if new else lambda network: ())
    blank = network.config.pad_token_id
    tokenizer = checkpoint.tokenizer()
    if tokenizer.pad_token_id != blank or len(tokenizer) > network.config.vocab_size:
        raise InputError(
            f"{checkpoint.label}: its tokenizer has {len(tokenizer)} symbols and blank "
            f"{tokenizer.pad_token_id}, its network {network.config.vocab_size} and {blank}",
            "give tokenizer: the folder or hub id of the checkpoint's own")
    # the dropout in front of the output layer belongs with it, to the last block
    layer = with_dropout(network, head_paths(network))
    blocks = find_blocks(network, layer)
    if new:
        if not checkpoint.meta:
            for path in head_paths(network):
                renew(network, path)
        return CTCModel(network, blocks, layer, tokenizer, blank)
    name, paths = blocks[-1]
    return CTCModel(network, [*blocks[:-1], (name, [*paths, *layer])], (), tokenizer, blank)
