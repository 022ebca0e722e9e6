"""Language models that continue a text."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import GenerationConfig

from ftlab.backbones.find_blocks import find_blocks
from ftlab.backbones.heads.generation import written
from ftlab.backbones.load_pretrained import Checkpoint, quiet
from ftlab.backbones.task_model import Batch, Outputs, TaskModel
from ftlab.errors import Incompatible


class CausalModel(TaskModel):
    """Outputs are logits (B, T, V) for `batch["target"]["labels"]` (B, T), place by place.

    The labels continue the inputs: a batch's `input_ids` (B, P) are prompts, and in training and
    evaluation the labels are read behind them (teacher forcing). Logits are computed for the
    labels' places alone, which spares most of the output layer. Where prompts are learned from as
    well, `target` says by itself what is read behind them, `behind` (B, t), and the labels are
    those of all places (T = P + t - 1).

    A packed batch has several examples in a row. Its inputs are `input_ids` and `segments`
    (R, T), the latter the number of the example from 1 and 0 for padding; its labels (R, T) are
    each place's next token.

    Padding may be on either side; positions count real tokens. The pre-trained output layer
    stays, so the head is empty.

    Args:
        network: of transformers, with `generate`.
        blocks: as in `TaskModel`.
        tokenizer: turns what was generated into text.
        positions: tokens that the network can read; a technique that puts virtual ones in front
            takes them off.
    """

    needs_target = True

    def __init__(self, network: nn.Module, blocks: Sequence[tuple[str, Sequence[str]]],
                 tokenizer: Any, positions: int) -> None:
        super().__init__(network, blocks)
        self.tokenizer = tokenizer
        self.positions = positions
        self._keeps = "logits_to_keep" in inspect.signature(network.forward).parameters
        self._packs: bool | None = None
        if "position_ids" in inspect.signature(network.forward).parameters:
            network.register_forward_pre_hook(_count_positions, with_kwargs=True)

    def arguments(self, batch: Batch) -> Mapping[str, Any]:
        if "segments" in batch["inputs"]:
            return self._rows(batch["inputs"])
        ids, mask = padded_left(batch["inputs"])
        if "target" not in batch:
            return {"input_ids": ids, "attention_mask": mask}
        labels = batch["target"]["labels"]
        behind = batch["target"].get("behind", labels)
        # nothing follows an example's last, whatever others of the batch have there
        read = behind[:, :-1].masked_fill(behind[:, 1:] < 0, self.tokenizer.pad_token_id)
        ids = torch.cat([ids, read], dim=1)
        mask = torch.cat([mask, (behind[:, 1:] >= 0).to(mask.dtype)], dim=1)
        kept = {"logits_to_keep": labels.shape[1]} if self._keeps else {}
        return {"input_ids": ids, "attention_mask": mask, **kept}

    def read(self, output: Any, batch: Batch) -> Outputs:
        logits = output.logits
        if "target" in batch:  # also drops the places of virtual tokens
            return logits[:, -batch["target"]["labels"].shape[1]:]
        return logits[:, -batch["inputs"]["input_ids"].shape[1]:]

    def generate(self, batch: Batch, max_new_tokens: int) -> list[str]:
        ids, mask = padded_left(batch["inputs"])
        rooms = (self.positions - mask.sum(dim=1)).clamp(1, max_new_tokens)
        texts = [""] * len(ids)
        for room in rooms.unique().tolist():  # of its own: a neighbour's length ends no text
            rows = (rooms == room).nonzero()[:, 0]
            for row, text in zip(rows.tolist(), self._continued(ids[rows], mask[rows], room),
                                 strict=True):
                texts[row] = text
        return texts

    def _continued(self, ids: Tensor, mask: Tensor, max_new_tokens: int) -> list[str]:
        """The texts behind prompts (B, T), of so many tokens at most."""
        network: Any = self.network
        with quiet(), torch.no_grad(), warnings.catch_warnings():
            # PEFT drops the positions that generation gives, and says so: ours are the hook's
            warnings.filterwarnings("ignore", message="Position ids are not supported")
            tokens = network.generate(input_ids=ids, attention_mask=mask,
                                      max_new_tokens=max_new_tokens)
        return written(self.tokenizer, tokens[:, ids.shape[1]:])

    def _rows(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Arguments for whole rows; a mask where each has one example."""
        if "attention_mask" in inputs:
            return {name: inputs[name] for name in ("input_ids", "attention_mask")}
        self._require_packing()
        return {"input_ids": inputs["input_ids"],
                "position_ids": restarting_positions(inputs["segments"])}

    def _require_packing(self) -> None:
        trunk = self.get_submodule(self._trunk)
        if self._packs is None:
            self._packs = packs(trunk)
        if not self._packs:
            raise Incompatible(
                f"{type(trunk).__name__} lets packed examples see each other: it does not "
                "keep to positions that restart", "set packing: false")


def build_causal(checkpoint: Checkpoint, auto: Any) -> CausalModel:
    """The network as it was pre-trained, decoding greedily.

    Raises:
        Incompatible: an encoder, which transformers would run as a decoder all the same.
    """
    config = checkpoint.config
    if (type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING
            and not getattr(config, "is_decoder", False)):
        raise Incompatible(f"{checkpoint.label}: {config.model_type} was not pre-trained to "
                           "continue a text", "choose a decoder (GPT-2, Llama, SmolLM2)")
    network: Any = checkpoint.network(auto)
    tokenizer = checkpoint.tokenizer()
    network.generation_config = _greedy(network.generation_config, tokenizer)
    positions = getattr(network.config, "max_position_embeddings", None)  # GPT-2's n_positions too
    return CausalModel(network, find_blocks(network, ()), tokenizer, positions or 2**31)


def _greedy(shipped: GenerationConfig, tokenizer: Any) -> GenerationConfig:
    """Only how a text ends is kept: sampling, beams and penalties would differ between models."""
    end = shipped.eos_token_id
    ends = sorted({*(end if isinstance(end, list) else [end]), tokenizer.eos_token_id} - {None})
    return GenerationConfig(do_sample=False, num_beams=1, use_cache=True, eos_token_id=ends or None,
                            pad_token_id=tokenizer.pad_token_id)


def padded_left(inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Token ids and mask (B, T) with the padding moved in front, the order of tokens kept."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    order = mask.argsort(dim=1, stable=True)
    return ids.gather(1, order), mask.gather(1, order)


def restarting_positions(segments: Tensor) -> Tensor:
    """Places within each run of equal numbers, from 0 (R, T).

    transformers takes a restart for the boundary of a packed example and builds the
    block-diagonal causal mask that the attention implementation wants.
    """
    places = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    begins = torch.ones_like(segments, dtype=torch.bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return places - torch.where(begins, places, 0).cummax(dim=1).values


def packs(network: Any) -> bool:
    """Return whether examples in one row are computed as if alone, tried on seven tokens.

    Some architectures derive positions from the mask alone (OPT, BLOOM) or carry a state along
    the row (Mamba).
    """
    if "position_ids" not in inspect.signature(network.forward).parameters:
        return False
    device = next(network.parameters()).device
    ids = torch.arange(7, device=device)[None] + 1
    segments = torch.tensor([[1, 1, 1, 1, 2, 2, 2]], device=device)
    modes = {module: module.training for module in network.modules()}
    network.eval()
    with torch.no_grad():
        packed = network(input_ids=ids, position_ids=restarting_positions(segments)).logits
        alone = network(input_ids=ids[:, 4:]).logits
    for module, mode in modes.items():
        module.training = mode
    tolerance = 1e-3 if packed.dtype == torch.float32 else 5e-2
    return torch.allclose(packed[:, 4:], alone, rtol=tolerance, atol=tolerance)


def _count_positions(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give each token the number of real tokens before it, virtual and cached ones included.

    Padding in front would otherwise shift learned positions, and PEFT drops the positions that
    generation gives.
    """
    mask, read = kwargs.get("attention_mask"), kwargs.get("input_ids")
    read = kwargs.get("inputs_embeds") if read is None else read
    if read is None or not isinstance(mask, Tensor) or mask.ndim != 2:
        return args, kwargs
    positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
    return args, {**kwargs, "position_ids": positions[:, -read.shape[1]:]}
