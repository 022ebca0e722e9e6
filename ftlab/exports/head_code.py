"""How a model reads its outputs off a network of transformers, written as code; and its own heads.

The lines define `compute`. A head that is the network's own needs no more than `.logits`; one that
ftlab puts on pooled features is a file of its own, and for texts a module of sentence-transformers,
which that library applies by itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor

from ftlab.backbones.heads.detection import TransformersDetector
from ftlab.backbones.heads.embedding import EmbeddingModel, SentenceEncoder
from ftlab.backbones.heads.masked_image import MaskedImageModel
from ftlab.backbones.heads.per_token import TokenHead
from ftlab.backbones.pooling import PooledHead
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.exports.loading_code import LoadingCode

_POOLED = {
    "mean": "(hidden * mask.unsqueeze(-1)).sum(dim=1) / mask.unsqueeze(-1).sum(dim=1)",
    "max": "hidden.masked_fill(mask.unsqueeze(-1) == 0, torch.finfo(hidden.dtype).min).amax(dim=1)",
    "first": "hidden[torch.arange(len(hidden)), mask.argmax(dim=1)]",
    "last": "hidden[torch.arange(len(hidden)), "
            "(mask * torch.arange(mask.shape[1])).argmax(dim=1)]",
}
_MODES = {"mean": "mean_tokens", "max": "max_tokens", "first": "cls_token", "last": "lasttoken"}
_LAYER = 'torch.nn.functional.linear({of}, head["{weight}"], {bias})'


def add_outputs(loading: LoadingCode, model: TaskModel, inputs: dict[str, Tensor], folder: Path,
                sentences: int | None) -> None:
    """Add `compute`, and write the head where it is ftlab's.

    Args:
        loading: says how `model` is loaded already.
        model: merged or not.
        inputs: of an example.
        folder: to write to.
        sentences: tokens of a text, where the folder shall be one of sentence-transformers too.

    Raises:
        Incompatible: a head that is only ftlab's.
    """
    head = model.pooled_head
    if isinstance(model, EmbeddingModel):
        _add_similarity(loading, model, folder, sentences)
    elif isinstance(model, MaskedImageModel):
        _add(loading, [], "model(**inputs).reconstruction")
    elif head is None:
        _add_logits(loading, model, inputs)
    elif isinstance(head, TokenHead):
        width = _width(model)
        _add(loading, [f"hidden = model(**inputs).last_hidden_state{width}"],
             _layer(loading, head.linear, "hidden", folder))
    elif isinstance(head, PooledHead):
        lines = _pooling(model, head, inputs)
        if head.normalize:
            lines.append("pooled = torch.nn.functional.normalize(pooled, dim=-1)")
        modules = sentences if "input_ids" in inputs else None
        _add(loading, lines, _layer(loading, head.linear, "pooled", folder, modules is not None))
        if modules is not None:
            _write_modules(folder, head.pooling, head.linear.in_features, head.normalize,
                           head.linear.out_features, True, modules)
    else:
        raise Incompatible(f"{type(head).__name__} is a head that only ftlab has",
                           "give the backbone another pooling")


def _add_logits(loading: LoadingCode, model: TaskModel, inputs: dict[str, Tensor]) -> None:
    if not isinstance(model, TransformersDetector):
        _add(loading, [], f"model(**inputs).logits{_width(model)}")
        return
    _add(loading, ["output = model(**inputs)"], "output.logits, output.pred_boxes")
    with torch.no_grad():
        lines = model.detect_lines(model({"inputs": inputs}))
    loading.add(lines)
    loading.network += f"\n\n{lines.code.strip()}"


def has_virtual_tokens(model: TaskModel) -> bool:
    """Return whether PEFT puts virtual tokens before what the network reads."""
    network: Any = model.network
    return isinstance(network, PeftModel) and network.active_peft_config.is_prompt_learning


def _width(model: TaskModel) -> str:
    """Drops the places of virtual tokens, which stand in front."""
    network: Any = model.network
    virtual = has_virtual_tokens(model) and not network.config.is_encoder_decoder
    per_token = type(model).__name__ != "LogitsModel"
    return '[:, -inputs["input_ids"].shape[1]:]' if virtual and per_token else ""


def _pooling(model: TaskModel, head: PooledHead, inputs: dict[str, Tensor]) -> list[str]:
    if "attention_mask" in inputs and "input_values" not in inputs:  # sound comes one by one
        virtual = has_virtual_tokens(model)
        return ['mask = inputs["attention_mask"]',
                "hidden = model(**inputs).last_hidden_state"
                + ("[:, -mask.shape[1]:]" if virtual else ""),
                f"pooled = {_POOLED[head.pooling]}"]
    with torch.no_grad():
        output: Any = model.network(**inputs)
    if head.pooling == "mean" and getattr(output, "pooler_output", None) is not None:
        return ["pooled = model(**inputs).pooler_output.flatten(1)"]
    hidden = "model(**inputs).last_hidden_state"
    if output.last_hidden_state.ndim == 4:
        hidden += ".flatten(2).transpose(1, 2)"
    of = {"mean": ".mean(dim=1)", "max": ".amax(dim=1)", "first": "[:, 0]", "last": "[:, -1]"}
    return [f"pooled = {hidden}{of[head.pooling]}"]


def _add_similarity(loading: LoadingCode, model: EmbeddingModel, folder: Path,
                    sentences: int | None) -> None:
    """Cosine similarities as a layer on features of unit length."""
    layer = None if model.scorer is None else model.scorer.linear()
    if layer is None:
        raise Incompatible("the model gives embeddings, and no layer makes classes of them",
                           "take the pre-trained model itself")
    rows, width = layer.weight.shape
    if isinstance(model, SentenceEncoder):
        lines = ['mask = inputs["attention_mask"]',
                 "hidden = model(**inputs).last_hidden_state",
                 f"pooled = {_POOLED[model.pooling]}"]
        if sentences is not None:
            _write_modules(folder, model.pooling, width, True, rows, layer.bias is not None,
                           sentences)
    else:
        sentences = None
        lines = ["pooled = model.get_image_features(**inputs).pooler_output"]
    lines.append("pooled = torch.nn.functional.normalize(pooled, dim=-1)")
    _add(loading, lines, _layer(loading, layer, "pooled", folder, sentences is not None, True))


def _layer(loading: LoadingCode, linear: torch.nn.Linear, of: str, folder: Path,
           module: bool = False, normalised: bool = False) -> str:
    """Write a linear layer; the expression that applies it."""
    names = ("linear.weight", "linear.bias") if module else ("weight", "bias")
    place = f"{3 if normalised else 2}_Dense/model.safetensors" if module else "head.safetensors"
    state = {names[0]: linear.weight.detach().contiguous()}
    if linear.bias is not None:
        state[names[1]] = linear.bias.detach().contiguous()
    (folder / place).parent.mkdir(exist_ok=True)
    save_file(state, folder / place)
    loading.imports.add("from safetensors.torch import load_file")
    loading.network += f'\nhead = load_file(f"{{folder}}/{place}")'
    bias = "None" if linear.bias is None else f'head["{names[1]}"]'
    return _LAYER.format(of=of, weight=names[0], bias=bias)


def _add(loading: LoadingCode, lines: list[str], result: str) -> None:
    body = "\n".join(f"    {line}" for line in [*lines, f"return {result}"])
    loading.network += f"\n\ndef compute(**inputs):\n{body}"


def _write_modules(folder: Path, pooling: str, width: int, normalize: bool, outputs: int,
                   bias: bool, longest: int) -> None:
    """The files by which sentence-transformers finds its modules: `encode` gives the logits."""
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else []), "Dense"]
    modules = [{"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "",
                "type": f"sentence_transformers.models.{kind}"} for i, kind in enumerate(kinds)]
    modes = {f"pooling_mode_{name}": mode == pooling for mode, name in _MODES.items()}
    dense = {"in_features": width, "out_features": outputs, "bias": bias,
             "activation_function": "torch.nn.modules.linear.Identity"}
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": False})
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **modes})
    if normalize:
        (folder / "2_Normalize").mkdir(exist_ok=True)
    _write(folder / f"{len(kinds) - 1}_Dense" / "config.json", dense)


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
