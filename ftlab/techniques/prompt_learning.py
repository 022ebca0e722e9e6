"""Techniques that put trained vectors before the text: what they need of a network."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

from peft import PromptLearningConfig, get_peft_model
from torch import nn

from ftlab.backbones.heads.causal import CausalModel
from ftlab.backbones.heads.per_token import PerTokenModel
from ftlab.backbones.task_model import TaskModel
from ftlab.backbones.text_preprocessing import positions
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible


def wrap_with_virtual_tokens(
    model: TaskModel, technique: str, config: PromptLearningConfig, argument: str,
    lengths: Mapping[str, int],
) -> None:
    """Wrap the network in PEFT's prompt learning; the virtual tokens and the head train.

    Args:
        model: the model to change.
        technique: for messages.
        config: PEFT's, without sizes and task type.
        argument: what the network's `forward` must take for it to work.
        lengths: the data's longest texts in tokens, by the setting that bounds them.

    Raises:
        Incompatible: the network does not read text, or cannot take virtual tokens, or has no
            positions for them beside the longest text.
    """
    network = model.network
    settings = getattr(network, "config", None)
    if settings is None or not _takes(network, "input_ids") or not _takes(network, argument):
        raise Incompatible(
            f"{technique} needs a text encoder or decoder whose forward takes `{argument}`; "
            f"{type(network).__name__} does not",
            "leave this technique out for this backbone",
        )
    generates = getattr(network, "can_generate", bool)()
    if settings.is_encoder_decoder and not generates:
        raise Incompatible(
            f"{technique} does not work with the encoder-decoder {type(network).__name__}",
            "take LoRA or IA3 for it",
        )
    if (argument == "inputs_embeds" and hasattr(network, "score")
            and not isinstance(model, PerTokenModel)):
        raise Incompatible(
            f"{technique}: {type(network).__name__} finds the last token by the input's ids, "
            "which virtual tokens hide from it",
            'give the backbone `pooling: "last"`',
        )
    if isinstance(model, CausalModel) and not _knows_padding(network):
        raise Incompatible(
            f"{technique}: {type(network).__name__} counts padding as distance, so that prompts of "
            "a batch would stand at different distances from the virtual tokens",
            "take LoRA or IA3 for it",
        )
    _require_room(technique, config.num_virtual_tokens, positions(settings), lengths)
    # PEFT can generate behind virtual tokens; a head of ours is outside it (see below)
    writer = settings.is_encoder_decoder  # a prompt goes before the source, a prefix to the decoder
    config.task_type = ("SEQ_2_SEQ_LM" if writer else
                        "CAUSAL_LM" if generates else "FEATURE_EXTRACTION")
    config.token_dim, config.num_layers, config.num_attention_heads = _sizes(settings, argument)
    # PEFT's own number for a prefix of an encoder-decoder: self- and cross-attention's cache
    config.num_transformer_submodules = 2 if writer and argument == "past_key_values" else 1
    model.requires_grad_(False)
    with warnings.catch_warnings():
        # PEFT warns that its task type adds no head: ours is part of the network already.
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(network, config)
    wrapped.register_forward_pre_hook(_without_token_types, with_kwargs=True)
    model.wrap(wrapped, inner="base_model")
    model.head.requires_grad_(True)
    if isinstance(model, CausalModel):  # what it generates stands behind the virtual tokens
        model.positions -= config.num_virtual_tokens


def _require_room(
    technique: str, tokens: int, longest: int | None, lengths: Mapping[str, int]
) -> None:
    for setting, length in lengths.items():
        if longest is not None and length + tokens > longest:
            raise Incompatible(
                f"{technique}: {tokens} virtual tokens and {setting} {length} are above the "
                f"{longest} positions of the network",
                f"set {setting}: {longest - tokens}" if longest > tokens + 1 else "set fewer tokens")


def bounds(data: DataModule, *settings: str) -> dict[str, int]:
    """Those of a data module's and its task's settings that bound texts, by name."""
    limits = {name: getattr(data, name, getattr(data.task, name, None)) for name in settings}
    return {name: value for name, value in limits.items() if value is not None}


def refuse_packing(data: DataModule, technique: str) -> None:
    """Refuse rows of several examples.

    Raises:
        Incompatible: the data module packs.
    """
    if data.packs:
        raise Incompatible(
            f"{technique} puts its virtual tokens before a row, and of a packed row only the "
            "first example would see them as in evaluation", "set packing: false")


def note_token_types(data: DataModule, technique: str) -> None:
    """Say that PEFT's virtual tokens come without token types, where the data have any."""
    if getattr(data, "token_types", False):
        data.note(f"{technique} reads both texts of a pair as the first: PEFT ignores token types "
                  "beside virtual tokens")


def _sizes(settings: Any, argument: str) -> tuple[int, int, int]:
    """Width of a virtual token, layers and attention heads."""
    heads = getattr(settings, "decoder_attention_heads", settings.num_attention_heads)
    layers = next((value for name in ("num_decoder_layers", "decoder_layers")
                   if isinstance(value := getattr(settings, name, None), int)),
                  settings.num_hidden_layers)
    width = settings.hidden_size
    if argument == "past_key_values" and hasattr(settings, "d_kv"):
        width = heads * settings.d_kv  # T5's keys and values need not fill the hidden size
    return width, layers, heads


def _takes(network: nn.Module, argument: str) -> bool:
    """Return whether an argument reaches the trunk, directly or through passed keywords."""
    parameters = inspect.signature(network.forward).parameters
    if argument in parameters:
        return True
    trunk = getattr(network, "base_model", network)
    passes_on = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return passes_on and argument in inspect.signature(trunk.forward).parameters


def _knows_padding(network: nn.Module) -> bool:
    """Positions count real tokens alone: they are given, or ALiBi's are made of the mask.

    What generates is padded in front, so that padding stands between virtual tokens and prompt.
    """
    return _takes(network, "position_ids") or any(
        hasattr(module, "build_alibi_tensor") for module in network.modules())


def _without_token_types(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    # PEFT ignores token types with a warning at every call; `note_token_types` says it once.
    return args, {name: value for name, value in kwargs.items() if name != "token_type_ids"}
