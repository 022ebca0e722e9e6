"""Presets that take more than layers: a budget of ranks, a start from data, rates, chosen tokens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, get_peft_model
from peft.tuners.adalora import RankAllocator
from safetensors.torch import load_file
from torch import nn

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible
from ftlab.tasks.classification import Classification
from ftlab.techniques.ada_lora import AdaLoRA, triplets
from ftlab.techniques.base import Technique
from ftlab.techniques.eva import EVA
from ftlab.techniques.lora_plus import LoRAPlus
from ftlab.techniques.p_tuning import PTuning
from ftlab.techniques.trainable_tokens import TrainableTokens
from ftlab.techniques.vb_lora import VBLoRA
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 16), nn.Linear(16, 10)
        for layer in (self.first, self.second):
            nn.init.normal_(layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def test_ada_lora__keeps_the_triplets_that_peft_keeps() -> None:
    """The budget, the importance and the cuts of PEFT's allocator, update by update."""
    steps, first, final = 40, 4, 15
    made = get_peft_model(Layers(), AdaLoraConfig(
        target_modules=["first", "second"], init_r=8, target_r=4, tinit=first, tfinal=final,
        total_step=steps))
    ours = AdaLoRA(rank=4, start_rank=8, warmup=first / steps, final=final / steps)
    ours.begin_fit(made, None, steps)  # type: ignore[arg-type]  # it reads no data
    theirs = RankAllocator(made, made.peft_config["default"], "default")
    optimizer = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], lr=0.05)
    kept = []
    for step in range(1, steps - final):
        optimizer.zero_grad()
        made(torch.randn(6, 12)).square().mean().backward()
        optimizer.step()
        before = [values.detach().clone() for _, values, _ in ours.layers]
        _, pattern = theirs.update_and_allocate(made, step)
        expected = [values.detach().clone() for _, values, _ in ours.layers]
        with torch.no_grad():
            for (_, values, _), old in zip(ours.layers, before, strict=True):
                values.copy_(old)
        ours.after_step(made, step)
        assert ours.budget(step) == theirs.budget_schedule(step)[0]
        for (_, values, _), other in zip(ours.layers, expected, strict=True):
            assert torch.equal(values, other)
        ours.steps = step
        with ours.evaluated(made):  # type: ignore[arg-type]  # looks at its own layers
            assert sum(int((values != 0).sum()) for _, values, _ in ours.layers) == 8
        for (_, values, _), other in zip(ours.layers, expected, strict=True):
            assert torch.equal(values, other)
        kept.append(ours.budget(step) if pattern is None else sum(map(sum, pattern.values())))
    assert kept[0] == 16
    assert kept[-1] == 8
    assert sorted(kept, reverse=True) == kept


def test_ada_lora__orthogonality_is_peft_s(tiny_bert: Path) -> None:
    task = Classification()
    task.fit(["a", "b"])
    model = HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0).build(task).eval()
    technique = AdaLoRA(orthogonality=0.3).bind(model, task).eval()
    batch = {"inputs": {"input_ids": torch.tensor([[2, 5, 3]]), "attention_mask": torch.ones(1, 3).long()},
             "target": torch.tensor([1])}
    plain = task.loss(model(batch), batch)
    added = [torch.linalg.norm(square - torch.eye(12))
             for p, _, q in triplets(model) for square in (p.T @ p, q @ q.T)]
    assert len(added) == 12
    total = plain + 0.3 * sum(added) / len(added)
    torch.testing.assert_close(technique.objective(model, task, batch), total)
    technique.orthogonality = 0.0
    assert torch.equal(technique.objective(model, task, batch), plain)


@pytest.fixture
def run(tiny_bert: Path, reviews: Path, tmp_path: Path) -> Callable[..., Run]:
    def make(technique: Technique, folder: str = "run", epochs: int = 2, **backbone: Any) -> Run:
        (tmp_path / folder).mkdir()
        return Run(HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0, **backbone),
                   TextClassification(str(reviews), max_length=16, batch_size=8), technique,
                   TrainerSettings(max_epochs=epochs), 3, "val/loss", tmp_path / folder)

    return make


@pytest.mark.parametrize("epochs", [1, 3])
def test_ada_lora__any_epoch_that_wins_has_the_final_budget(run: Callable[..., Run], epochs: int) -> None:
    one = run(AdaLoRA(rank=2, start_rank=5, final=0.0, lr=1e-2), epochs=epochs)
    execute(one, lambda event: None)
    kept = load_file(one.directory / "checkpoint" / "delta.safetensors")
    ranks = [int((value != 0).sum()) for name, value in kept.items() if "lora_E" in name]
    assert sum(ranks) <= 2 * 6
    assert sum(ranks) > 2 * 6 - 3  # a value may be zero by itself


@pytest.mark.parametrize("arguments", [
    {"rank": 12}, {"rank": 0}, {"orthogonality": -1.0}, {"warmup": 0.6, "final": 0.5}])
def test_ada_lora__bad_values(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="got"):
        AdaLoRA(**arguments)


def test_eva__starts_along_the_inputs_principal_components(run: Callable[..., Run]) -> None:
    one = run(EVA(rank=4, batches=3))
    one.data.load()
    one.data.connect(one.backbone, 3)
    technique = one.technique
    model = technique.bind(one.backbone.build(one.data.task), one.data.task).eval().model
    layer = next(m for n, m in model.named_modules() if n.endswith("layer.1.attention.self.value"))
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for batch, _ in zip(one.data.train_dataloader(), range(3), strict=False):
            before = model(batch)
            seen[-1] = seen[-1][batch["inputs"]["attention_mask"].bool()]
    hook.remove()
    rows = torch.cat(seen).double()
    expected = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False).Vh[:4]
    technique.begin_fit(model, one.data, 10)
    start = layer.lora_A["default"].weight.detach().double()
    torch.testing.assert_close((start @ expected.T).abs(), torch.eye(4).double(), rtol=0, atol=1e-4)
    assert not model.training
    with torch.no_grad():
        assert torch.equal(model(batch), before)


def test_rates(tiny_bert: Path) -> None:
    task = Classification()
    task.fit(["a", "b"])
    for technique, mark, ratio in ((LoRAPlus(ratio=8, lr=0.1), ".lora_B.", 8),
                                   (VBLoRA(lr=0.1), ".vblora_logits_", 10)):
        model = HuggingFace(str(tiny_bert), pooling="mean").build(task)
        technique.bind(model, task)
        rates = {id(p): group["lr"] for group in technique.param_groups(model) for p in group["params"]}
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        assert len(rates) == len(trained)
        for name, parameter in trained.items():
            assert rates[id(parameter)] == pytest.approx(0.1 * (ratio if mark in name else 1)), name
    with pytest.raises(ValueError, match=r"ratio must be at least 1, got 0\.5"):
        LoRAPlus(ratio=0.5)
    with pytest.raises(ValueError, match="top must be from 1 to 4, the vectors, got 5"):
        VBLoRA(vectors=4, top=5)


@pytest.mark.parametrize(("tokens", "ids"), [(None, [2, 3]), (["film", "good"], [4, 10])])
def test_trainable_tokens__move_and_no_others(
    run: Callable[..., Run], tokens: list[str] | None, ids: list[int]
) -> None:
    one = run(TrainableTokens(tokens, lr=1e-2))
    execute(one, lambda event: None)
    table = one.technique.model.trunk.get_input_embeddings()
    everything = torch.arange(table.num_embeddings)
    with torch.no_grad():
        moved = (table(everything) != table.weight).any(dim=1).nonzero().flatten().tolist()
    assert one.technique.ids == ids
    assert set(moved) <= set(ids)
    assert set(moved) & set(ids)


def test_trainable_tokens__refusals(run: Callable[..., Run]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        TrainableTokens([])
    with pytest.raises(Incompatible, match="the tokenizer has no token 'goodness'"):
        execute(run(TrainableTokens(["goodness"])), lambda event: None)


def test_trainable_tokens__beside_new_ones(run: Callable[..., Run]) -> None:
    one = run(TrainableTokens(["film"]), new_tokens=["excellent"])
    execute(one, lambda event: None)
    table = one.technique.model.trunk.get_input_embeddings()
    assert table.new_token_ids.tolist() == [10, 22]


def test_p_tuning__prompts_are_what_its_network_makes_of_embeddings(tiny_bert: Path) -> None:
    task = Classification()
    task.fit(["a", "b"])
    model = HuggingFace(str(tiny_bert), pooling="mean").build(task).eval()
    PTuning(tokens=3, width=7).bind(model, task)
    encoder = model.network.prompt_encoder["default"]
    table = encoder.embedding.weight
    expected = table
    for layer in encoder.mlp_head:
        expected = layer(expected)
    torch.testing.assert_close(model.network.get_prompt(1)[0], expected)
    assert [p.shape for p in encoder.mlp_head.parameters() if p.ndim > 1] == [(7, 32), (7, 7), (32, 7)]
    assert all(p.requires_grad for p in encoder.parameters())
