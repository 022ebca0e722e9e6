"""Eight LoRA trials on one network against the same eight one after another.

    python tests/benchmarks/packed_adapters.py [--json]

An encoder of MiniLM's size (12 layers of 384) with random weights, texts of 64 tokens, ranks 4 to
16 and a learning rate each; steps with clipping, AdamW and schedule. The reference is a plain
PyTorch loop over PEFT models: the frozen part has no gradients and drops nothing out, batches and
dtype are the same. Where a pack declines, its runs are executed one after another: a ratio of 1.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn.attention import SDPBackend, sdpa_kernel

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.text import TextClassification
from ftlab.techniques.lora import LoRA
from ftlab.training.costs import uncached
from ftlab.training.declined import NotApplicable
from ftlab.training.packed import packing_check
from ftlab.training.packed.pack import Pack
from ftlab.training.packed.packed_adapters import adapted
from ftlab.training.packed.packed_member import Member
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

SLOTS = 8
TOKENS = 64
WORDS = [f"w{number}" for number in range(2000)]
ROUNDS = 5
EPOCHS = 20  # of the runs whose steps are measured, by which it is decided what is cached
CLOSE = {"32-true": 1e-4, "bf16-mixed": 5e-2}  # losses of 0.7 after a step each
ROWS = [  # batch, precision, last, goal
    (1, "32-true", None, 1.0), (4, "32-true", None, 1.0), (16, "32-true", None, 1.0),
    (1, "bf16-mixed", None, 2.0), (4, "bf16-mixed", None, 1.0), (16, "bf16-mixed", None, 1.0),
    (4, "32-true", 2, 3.0), (16, "32-true", 2, 3.0), (4, "bf16-mixed", 2, 3.0),
]
LIMITS = {None: "1 where products fill the cores", 2: "3.5"}
"""With the lower ten of twelve blocks cached and a backward twice a forward: (10 + 3 x 2) /
(3 x 2) of the whole, and less because LoRA computes no gradients of weights: (10 + 4) / 4."""


def make_folder(folder: Path, dropout: float) -> None:
    """A random encoder and its tokenizer."""
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    hf.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    config = hf.BertConfig(
        vocab_size=len(vocabulary), hidden_size=384, num_attention_heads=12,
        intermediate_size=1536, num_hidden_layers=12, max_position_embeddings=TOKENS,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    hf.BertModel(config).save_pretrained(folder)


def make_texts(path: Path) -> None:
    lines = ["text,label"]
    for number in range(160):
        words = [WORDS[(number * 7919 + place * 104729) % len(WORDS)]
                 for place in range(TOKENS - 2)]
        lines.append(f"{' '.join(words)},{'ab'[number % 2]}")
    path.write_text("\n".join(lines) + "\n")


def runs(folder: Path, batch: int, precision: Any, last: int | None) -> list[Run]:
    """Eight trials of a sweep's cell."""
    settings = TrainerSettings(max_epochs=EPOCHS, precision=precision, accelerator="cpu",
                               threads=torch.get_num_threads())
    record = {"backbone": {"source": "random"}, "data": {"init_args": {}}}
    return [
        Run(HuggingFace(str(folder), head_dropout=0.0),
            TextClassification(str(folder / "texts.csv"), max_length=TOKENS, batch_size=batch),
            LoRA(rank=4 if slot % 2 else 16, last=last, lr=1e-4 * 2**slot), settings, 0,
            "val/loss", folder, record)
        for slot in range(SLOTS)
    ]


def make_pack(folder: Path, batch: int, precision: Any, last: int | None) -> Pack:
    chosen = runs(folder, batch, precision, last)

    def silent(event: dict[str, Any]) -> None:
        pass

    members, failed, _ = adapted(chosen, [silent] * SLOTS, [lambda: False] * SLOTS)
    assert not failed, failed
    pack = Pack(list(members.values()))
    pack.attach()
    assert last is None or pack.said[0].startswith("prefix cache"), pack.said
    for member in pack.alive:
        member.begin(len(pack.batches))
        member.run.technique.train()
    return pack


def in_precision(precision: str) -> AbstractContextManager[Any]:
    """As both sides compute: in bfloat16 with the attention that is the faster one on CPUs.

    The fused one's backward takes up to four times as long there, which would hide the rest.
    """
    stack = ExitStack()
    if precision == "bf16-mixed":
        stack.enter_context(torch.autocast("cpu", torch.bfloat16))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
    return stack


def one_after_another(members: list[Member], total: int) -> Callable[[Any], list[float]]:
    """A plain loop over models of their own; it takes a batch for each."""
    precision, parts = members[0].run.settings.precision, []
    for member in members:
        technique = member.run.technique
        optimizer = technique.optim.build(technique.param_groups(member.model))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step, technique=technique: technique.optim.factor(step, total))
        trained = [p for p in member.model.parameters() if p.requires_grad]
        parts.append((member.model, technique.task, optimizer, schedule, trained))

    def step(batch: Any) -> list[float]:
        losses = []
        for model, task, optimizer, schedule, trained in parts:
            optimizer.zero_grad()
            with in_precision(precision):
                loss = task.loss(model(batch), batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss))
        return losses

    return step


def packed(pack: Pack) -> Callable[[Any], list[float]]:
    """A step of all; it takes rows."""

    def step(rows: Any) -> list[float]:
        losses = pack.step(*pack.batch_of(rows))
        pack.update(step=1)
        return [float(loss) for loss in losses]

    return step


def prepared(pack: Pack) -> tuple[Callable[[Any], list[float]], str]:
    """How the product would go on, and why where it is not packed."""
    pack.context = lambda: in_precision(pack.run.settings.precision)
    try:
        packing_check.check(pack)
    except NotApplicable as reason:
        # on the first one's network and cache, which is as much work as on each one's own
        loop = one_after_another(pack.alive[:1] * SLOTS, EPOCHS * len(pack.batches))
        return lambda rows: loop(rows.drawn[0]), str(reason)
    return packed(pack), ""


def measure(
    folder: Path, batch: int, precision: str, last: int | None, goal: float
) -> dict[str, Any]:
    """A row: the same steps by both, in turn."""
    reference = make_pack(folder, batch, precision, last)
    alone = one_after_another(reference.alive, EPOCHS * len(reference.batches))
    pack = make_pack(folder, batch, precision, last)
    ours, declined = prepared(pack)
    rows, steps = list(pack.batches.epoch(0)), max(1, 4 // batch)
    times: list[tuple[float, float]] = []
    for number in range(ROUNDS + 1):
        some = rows[number * steps : (number + 1) * steps]
        begin = time.perf_counter()
        losses = [alone(uncached(each.drawn[0])) for each in some]
        between = time.perf_counter()
        own = [ours(each) for each in some]
        end = time.perf_counter()
        if number:
            times.append(((between - begin) / steps, (end - between) / steps))
        elif not declined:
            gap = (torch.tensor(losses) - torch.tensor(own)).abs().max()
            assert gap < CLOSE[precision], gap
    theirs, took = (statistics.median(each) for each in zip(*times, strict=True))
    if declined and last is None:  # the same is done
        took = theirs
    where = "all 12 blocks" if last is None else f"the last {last} of 12 blocks, cached"
    return {
        "name": f"{SLOTS} LoRAs on {where}, batch {batch}, {precision}"
                + (f" (declined: {declined})" if declined else ""),
        "reference_seconds": round(theirs, 4), "ours_seconds": round(took, 4),
        "ratio": round(theirs / took, 2),
        "spread": [round(a / b, 2) for a, b in times],
        "limit": LIMITS[last], "goal": f"at least {goal:g}",
    }


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one object a row")
    parser.add_argument("--dropout", type=float, default=0.0, help="of the network")
    said = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    with tempfile.TemporaryDirectory() as name:
        os.environ["FTLAB_CACHE"] = name
        folder = Path(name)
        torch.manual_seed(0)
        make_folder(folder, said.dropout)
        make_texts(folder / "texts.csv")
        for row in ROWS:
            found = measure(folder, *row)
            print(json.dumps(found) if said.json else
                  f"{found['name']}: {found['ratio']:.2f} times as fast, {found['spread']} "
                  f"({found['ours_seconds']:.4g} s against {found['reference_seconds']:.4g} s; "
                  f"limit {found['limit']}, goal {found['goal']})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
