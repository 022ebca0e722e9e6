"""PEFT's own configurations for MetaMathQA, as entries of a study: their counts on Llama-3.2-3B, a step on a tiny Llama."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf
from families import tokenizer

from ftlab.backbones.quantization import quantized_layers
from ftlab.backbones.task_model import TaskModel
from ftlab.studies.components import build
from ftlab.studies.study import Study, load_study
from ftlab.tasks.language_modelling import LanguageModelling
from ftlab.techniques.base import Technique

STUDY = Path(__file__).parent.parent / "experiments" / "papers" / "peft_gsm8k.yaml"
QLORA = "backbones.llama.init_args.quantize={quant_type: nf4, double_quant: true}"
# "num_trainable_params" of method_comparison/MetaMathQA/results/*.json in huggingface/peft at commit 5d602fd;
# QLoRA has no result there, and LoRA's adapters
COUNTS = {"full": 3_212_749_824, "lora": 9_175_040, "rslora": 18_350_080, "dora": 9_289_728, "ia3": 286_720,
          "prompt": 614_400, "prefix": 11_468_800, "qlora": 9_175_040}
LLAMA_3B = {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
            "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128_256, "tie_word_embeddings": True,
            "bos_token_id": 2, "eos_token_id": 3, "dtype": "bfloat16"}
TINY = LLAMA_3B | {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
                   "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 20}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) for name in ("large", "tiny")}
    hf.LlamaConfig(**LLAMA_3B).save_pretrained(made["large"])  # no weights: counted on the meta device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf.LlamaForCausalLM(hf.LlamaConfig(**TINY)).save_pretrained(made["tiny"])
    for folder in made.values():
        tokenizer(decoder=True).save_pretrained(folder)
    return made


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Study]:
    monkeypatch.setenv("FTLAB_GSM8K", "gsm8k")
    return lambda *overrides: load_study(STUDY, overrides)


def made(study: Callable[..., Study], name: str, folder: Path, meta: bool) -> tuple[TaskModel, Technique]:
    """The model of an entry, adapted."""
    if name == "qlora":
        pytest.importorskip("bitsandbytes", reason="quantised bases are bitsandbytes'")
    here = f"backbones.llama.init_args.source={folder}", "backbones.llama.init_args.revision=null"
    checked = study(*here, *([QLORA] if name == "qlora" else []))
    (cell,) = (c for c in checked.cells if c.key.technique == name.replace("qlora", "lora"))
    technique, task = build(cell.technique), LanguageModelling()
    model = build(cell.backbone).build(task, meta=meta)
    technique.bind(model, task)
    return model, technique


@pytest.mark.parametrize("name", COUNTS)
def test_entry__trains_as_many_parameters_as_peft_s_result_file_says(
    name: str, study: Callable[..., Study], folders: dict[str, Path]
) -> None:
    model, _ = made(study, name, folders["large"], meta=True)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == COUNTS[name]
    assert all(p.is_meta for p in model.parameters())
    assert sum(p.numel() for p in model.trunk.parameters()) >= COUNTS["full"]


@pytest.mark.parametrize("name", ["lora", "rslora", "dora", "qlora"])
def test_entry__steps_on_a_tiny_llama__with_float32_adapters(
    name: str, study: Callable[..., Study], folders: dict[str, Path]
) -> None:
    model, technique = made(study, name, folders["tiny"], meta=False)
    assert len(quantized_layers(model)) == (14 if name == "qlora" else 0)
    adapters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in adapters.values()} == {torch.float32}
    ids = torch.randint(4, 18, (2, 9))
    batch = {"inputs": {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, "target": {"labels": ids}}
    optimizer = technique.optimizer(technique.param_groups(model))
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        logits = model.train()(batch)
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
