"""A step of a network of 12 blocks with `checkpoint_activations`, against the same without.

    python tests/benchmarks/checkpointed_blocks.py [--json]

A random Llama of 12 blocks, 768 wide, and a random BERT of 12 blocks, 256 wide, whose dropout draws random
numbers for which a CPU takes as long as for the products. 4 texts of 128 tokens, full fine-tuning, one thread.
Activations are the bytes of tensors that are alive after the forward pass beyond those before it;
gradients of both are held to each other. CPU seconds of steps in turn, the
least of each counts.
"""

import argparse
import json
import os
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: two threads on two cores time less evenly

import torch
import transformers

from ftlab.backbones.find_blocks import find_blocks
from ftlab.backbones.task_model import LogitsModel
from ftlab.training import activation_checkpointing
from ftlab.training.live_bytes import LiveBytes

LAYERS, BATCH, LENGTH, REPEATS = 12, 4, 128, 7


def llama() -> tuple[torch.nn.Module, str]:
    return transformers.LlamaForSequenceClassification(transformers.LlamaConfig(
        vocab_size=500, hidden_size=768, num_attention_heads=12, intermediate_size=2048,
        num_hidden_layers=LAYERS, pad_token_id=0, use_cache=False)), "score"


def bert() -> tuple[torch.nn.Module, str]:
    return transformers.BertForSequenceClassification(transformers.BertConfig(
        vocab_size=500, hidden_size=256, num_attention_heads=4, intermediate_size=1024,
        num_hidden_layers=LAYERS, max_position_embeddings=LENGTH)), "classifier"


def make_model(make: Callable[[], tuple[torch.nn.Module, str]], recomputing: bool) -> LogitsModel:
    torch.manual_seed(0)
    network, head = make()
    model = LogitsModel(network, find_blocks(network, [head]), [head]).train()
    if recomputing:
        activation_checkpointing.install(model)
    return model


def step(model: LogitsModel, batch: dict[str, object]) -> None:
    torch.manual_seed(1)
    model.zero_grad(set_to_none=True)
    model(batch).logsumexp(dim=1).mean().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print an object a row")
    as_json = parser.parse_args().json
    ids = torch.randint(1, 500, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
    batch = {"inputs": {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, "index": torch.arange(BATCH)}
    for make in (llama, bert):
        for row in compared(batch, make):
            print(json.dumps(row) if as_json else f"{row['name']}: {row['ratio']:.3f} (goal {row['goal']})")


def compared(batch: dict[str, object], make: Callable[[], tuple[torch.nn.Module, str]]
             ) -> list[dict[str, object]]:
    models = {name: make_model(make, name == "recomputed") for name in ("kept", "recomputed")}
    activations, seconds = {}, {name: float("inf") for name in models}
    for name, model in models.items():
        with LiveBytes() as live:
            weights = live.add(model.parameters())
            outputs = model(batch)
            activations[name] = live.now - weights
        del outputs
        step(model, batch)
    for (path, one), other in zip(models["kept"].named_parameters(), models["recomputed"].parameters(),
                                  strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=path)
    for _ in range(REPEATS):
        for name, model in models.items():
            begin = time.process_time()
            step(model, batch)
            seconds[name] = min(seconds[name], time.process_time() - begin)
    said = make.__name__
    return [
        {"name": f"activations, {said}", "reference_bytes": activations["kept"],
         "ours_bytes": activations["recomputed"],
         "ratio": activations["recomputed"] / activations["kept"], "goal": 0.5},
        {"name": f"step, {said}", "reference_seconds": seconds["kept"], "ours_seconds": seconds["recomputed"],
         "ratio": seconds["recomputed"] / seconds["kept"], "limit": 4 / 3, "goal": 1.35 if make is llama else None}]


if __name__ == "__main__":
    main()
