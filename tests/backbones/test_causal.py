"""Causal language models: places of logits, positions, packing, generation, GGUF, new tokens."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf
from families import tokenizer

from ftlab.backbones import gguf_file
from ftlab.backbones.heads.causal import packs, restarting_positions
from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.batches import ExampleRow
from ftlab.data.sequence_packing import PackedCollate
from ftlab.errors import Incompatible, InputError
from ftlab.tasks.classification import Classification
from ftlab.tasks.language_modelling import LanguageModelling
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.lora import LoRA
from ftlab.techniques.prefix_tuning import PrefixTuning
from ftlab.techniques.prompt_tuning import PromptTuning
from ftlab.training import checkpoint

LLAMA = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2,
         "num_key_value_heads": 1, "num_hidden_layers": 2, "max_position_embeddings": 40,
         "bos_token_id": 2, "eos_token_id": 3}
NETWORKS: dict[str, Callable[[], hf.PreTrainedModel]] = {
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(
        vocab_size=20, n_embd=16, n_head=2, n_layer=2, n_positions=40, bos_token_id=2,
        eos_token_id=3)),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA, tie_word_embeddings=False)),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**LLAMA, sliding_window=3)),
    "opt": lambda: hf.OPTForCausalLM(hf.OPTConfig(
        vocab_size=20, hidden_size=16, ffn_dim=24, num_attention_heads=2, num_hidden_layers=2,
        word_embed_proj_dim=16, max_position_embeddings=40, bos_token_id=2, eos_token_id=3)),
}
TASK = LanguageModelling()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        path = tmp_path_factory.mktemp(name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = NETWORKS[name]()
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    torch.nn.init.normal_(parameter, std=0.5)
        # what a checkpoint may ship, and greedy decoding must not use
        network.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=3.0,
                                         max_length=5)
        network.save_pretrained(path)
        tokenizer(decoder=True).save_pretrained(path)
        return path

    return make


@pytest.fixture
def prompts() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randint(4, 20, (length,)) for length in (3, 7, 5, 1)]


def batch_of(rows: list[torch.Tensor], side: str) -> dict:
    width = max(len(row) for row in rows)
    ids, mask = torch.full((len(rows), width), 3), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(len(row)) if side == "right" else slice(width - len(row), width)
        ids[i, place], mask[i, place] = row, 1
    return {"inputs": {"input_ids": ids, "attention_mask": mask}}


def adapted(path: Path, technique: type | None) -> torch.nn.Module:
    model = HuggingFace(str(path)).build(TASK)
    if technique is not None:
        technique().adapt(model)
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.5)
    return model.eval().requires_grad_(False)


def token_by_token(model: torch.nn.Module, prompt: torch.Tensor, count: int,
                   end: int | None = 3) -> str:
    """Greedy decoding of one prompt without a cache."""
    ids = prompt[None]
    for _ in range(count):
        best = model({"inputs": {"input_ids": ids, "attention_mask": torch.ones_like(ids)}})[0, -1]
        ids = torch.cat([ids, best.argmax()[None, None]], dim=1)
        if ids[0, -1] == end:
            break
    return model.tokenizer.decode(ids[0, len(prompt):], skip_special_tokens=True)


@pytest.mark.parametrize("technique", [None, LoRA, PromptTuning, PrefixTuning])
@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
def test_generate__is_greedy_whatever_the_batch(name, technique, folder, prompts):
    model = adapted(folder(name), technique)
    want = [token_by_token(model, prompt, 8) for prompt in prompts]
    assert len(set(want)) > 1
    for side in ("left", "right"):
        assert model.generate(batch_of(prompts, side), 8) == want
    bounded = model.generate(batch_of(prompts, "left"), 1)
    assert max(len(text.split()) for text in bounded) <= 1 < max(len(text.split()) for text in want)


@pytest.mark.parametrize(("technique", "length"), [(None, 38), (PromptTuning, 18),
                                                   (PrefixTuning, 18)])
def test_generate__stays_within_the_positions(technique, length, folder):
    model = adapted(folder("gpt2"), technique)
    model.network.generation_config.eos_token_id = None  # only the positions end a text
    (text,) = model.generate(batch_of([torch.full((length,), 5)], "left"), 50)
    assert text


def test_generate__no_neighbours_length_ends_a_text(folder):
    model = adapted(folder("gpt2"), None)
    model.network.generation_config.eos_token_id = None
    prompts = [torch.full((length,), 5) for length in (2, 34, 38)]
    want = [token_by_token(model, prompt, count, end=None)
            for prompt, count in zip(prompts, (8, 6, 2), strict=True)]
    for side in ("left", "right"):
        assert model.generate(batch_of(prompts, side), 8) == want


@pytest.mark.parametrize("name, technique", [
    *((name, kind) for name in ("gpt2", "llama") for kind in (None, PromptTuning, PrefixTuning)),
    ("mistral", None),  # its window of three tokens would lose sight of virtual ones
])
def test_forward__logits_are_the_labels_whatever_the_padding(name, technique, folder, prompts):
    model = adapted(folder(name), technique)
    labels = torch.full((4, 5), -100)
    for i in range(4):
        labels[i, :i + 2] = torch.randint(4, 20, (i + 2,))
    both = model(batch_of(prompts, "right") | {"target": {"labels": labels}})
    assert both.shape == (4, 5, 20)
    for i, prompt in enumerate(prompts):
        target = {"labels": labels[i:i + 1, :i + 2]}
        alone = model(batch_of([prompt], "left") | {"target": target})
        torch.testing.assert_close(both[i, :i + 2], alone[0], rtol=1e-4, atol=1e-4)


def test_mask__of_an_example_is_its_own_whatever_the_batch(folder, prompts):
    """All its tokens but the last, which nothing follows, so that what is cached of it fits."""
    model = adapted(folder("gpt2"), None)
    labels = torch.full((4, 5), -100)
    for i in range(4):
        labels[i, :i + 2] = 4
    mask = model.arguments(batch_of(prompts, "right") | {"target": {"labels": labels}})["attention_mask"]
    assert mask.sum(dim=1).tolist() == [len(prompt) + i + 1 for i, prompt in enumerate(prompts)]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral"])
def test_packing__gives_the_unpacked_loss_and_gradients(name, implementation, folder, prompts):
    model = HuggingFace(str(folder(name)), dropout=0.0).build(TASK).train()
    model.network.set_attn_implementation(implementation)
    rows = [ExampleRow(prompt.tolist(), {"labels": torch.randint(4, 20, (k + 1,)).tolist(), "text": ""},
                k, 0) for k, prompt in enumerate(prompts)]
    packed = PackedCollate(12, pad=3, several=True, prompts=False)(rows)
    assert packed["inputs"]["input_ids"].shape[0] < len(rows)
    assert packed["index"].tolist() == [0, 1, 2, 3]
    plain = batch_of(prompts, "left") | {"target": TASK.stack([row.target for row in rows])}
    assert TASK.weight(packed) == TASK.weight(plain)
    gradients = []
    for batch in (packed, plain):
        model.zero_grad()
        loss = TASK.loss(model(batch), batch)
        loss.backward()
        gradients.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_packing__whole_rows_give_transformers_loss(folder, prompts):
    model = adapted(folder("llama"), None)
    rows = [ExampleRow(prompt[:1].tolist(), {"labels": prompt[1:].tolist()}, i, 0)
            for i, prompt in enumerate(prompts[:3])]
    apart = PackedCollate(12, pad=3, several=False, prompts=True)(rows)
    packed = PackedCollate(40, pad=3, several=True, prompts=True)(rows)
    virtual = adapted(folder("llama"), PromptTuning)
    assert virtual(apart).shape == (*apart["target"]["labels"].shape, 20)
    inputs = batch_of(prompts[:3], "right")["inputs"]
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    want = model.network(**inputs, labels=labels).loss
    for batch in (apart, packed):
        torch.testing.assert_close(TASK.loss(model(batch), batch), want)


def test_packing__is_refused_where_examples_would_mix(folder, prompts):
    assert packs(adapted(folder("gpt2"), None).network)
    model = adapted(folder("opt"), None)
    rows = [ExampleRow(prompt.tolist(), {"labels": [5, 3]}, i, 0) for i, prompt in enumerate(prompts)]
    with pytest.raises(Incompatible, match="OPTForCausalLM lets packed examples see each other"):
        model(PackedCollate(12, pad=3, several=True, prompts=False)(rows))


def test_restarting_positions():
    segments = torch.tensor([[1, 1, 2, 2, 2, 0], [1, 2, 0, 0, 0, 0]])
    assert restarting_positions(segments).tolist() == [[0, 1, 0, 1, 2, 0], [0, 0, 0, 1, 2, 3]]


@pytest.mark.parametrize("name", ["gpt2", "llama"])  # tied and untied
def test_new_tokens__start_near_the_mean_of_the_old_and_are_one_token_each(name, folder):
    path = folder(name)
    old = HuggingFace(str(path)).build(TASK).network
    backbone = HuggingFace(str(path), new_tokens=["<user>", "filmic"])
    assert backbone.preprocessing.encode(["a filmic plot"], 8)[0][0][1] == 19
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second = (backbone.build(TASK).network for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    for get in ("get_input_embeddings", "get_output_embeddings"):
        weight, was = getattr(first, get)().weight, getattr(old, get)().weight
        assert torch.equal(weight, getattr(second, get)().weight)
        assert torch.equal(weight[:18], was[:18])
        noise = (weight[18:] - was[:18].mean(dim=0)) / was[:18].std(dim=0)
        assert (noise.abs() < 0.4).all()
        assert (noise[0] - noise[1]).abs().max() > 0.05, "and tell each other apart"
    tied = first.get_input_embeddings().weight is first.get_output_embeddings().weight
    assert tied == (name == "gpt2")
    meta = backbone.build(TASK, meta=True)
    assert [p.shape for p in meta.parameters()] == [p.shape for p in first.parameters()]
    with pytest.raises(InputError, match="'film' of new_tokens is in its vocabulary already"):
        HuggingFace(str(path), new_tokens=["film"]).build(TASK)


@pytest.mark.parametrize("technique", [LoRA, FullFineTuning, PrefixTuning])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_new_tokens__survive_checkpoint_restore_and_merge(name, technique, folder, tmp_path,
                                                          prompts):
    backbone = HuggingFace(str(folder(name)), dropout=0.0, new_tokens=["<user>", "filmic"])
    ours, fresh = (technique().bind(backbone.build(TASK), TASK) for _ in range(2))
    rows = [torch.cat([prompt, torch.tensor([18, 19])]) for prompt in prompts]
    target = TASK.stack([{"labels": [19, 5], "text": ""}] * len(rows))
    batch = batch_of(rows, "left") | {"target": target}
    trained = [parameter for parameter in ours.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        TASK.loss(ours.model(batch), batch).backward()
        optimizer.step()
    names = {n for n, p in ours.model.named_parameters() if p.requires_grad}
    checkpoint.save(tmp_path, checkpoint.tensors(ours.model, names), {})
    start = fresh.model.eval()(batch)
    checkpoint.load(tmp_path, fresh.model)
    want = ours.model.eval()(batch)
    assert not torch.allclose(start, want)
    assert torch.equal(fresh.model.eval()(batch), want)
    assert fresh.model.generate(batch, 6) == ours.model.generate(batch, 6)
    if fresh.merge(fresh.model):
        torch.testing.assert_close(fresh.model(batch), want, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny quantised Llama in llama.cpp's format."""
    import gguf
    import numpy as np

    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    draw, q8 = np.random.default_rng(0), gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in {"context_length": 64, "embedding_length": 32, "block_count": 2,
                        "feed_forward_length": 64, "head_count": 2, "head_count_kv": 1,
                        "layer_norm_rms_eps": 1e-5, "rope_dimension_count": 16,
                        "vocab_size": 70}.items():
        getattr(writer, f"add_{name}")(value)
    tokens = ["<|endoftext|>", *(chr(48 + i) for i in range(66)), "Ġ", "ab", "bc"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * 69)
    writer.add_token_merges(["a b", "b c"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    shapes = {"token_embd": (70, 32)}
    for i in range(2):
        shapes |= {f"blk.{i}.{name}": shape for name, shape in {
            "attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32),
            "ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64)}.items()}
    for name, shape in shapes.items():
        values = draw.standard_normal(shape).astype(np.float32)
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, q8), raw_dtype=q8)
    for name in ("output_norm", *(f"blk.{i}.{kind}_norm" for i in range(2)
                                  for kind in ("attn", "ffn"))):
        writer.add_tensor(f"{name}.weight", draw.standard_normal(32).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_gguf__is_transformers_own_reading_unpacked_once(gguf, tmp_path, monkeypatch):
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path))
    backbone = HuggingFace(str(gguf))
    meta = backbone.build(TASK, meta=True)
    assert not list(tmp_path.rglob("*.safetensors")), "planning reads no weights"
    model = backbone.build(TASK).eval()
    assert [p.shape for p in meta.parameters()] == [p.shape for p in model.parameters()]
    ids = torch.tensor([[1, 2, 3]])
    own = hf.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name,
                                                  dtype=torch.float32)
    assert torch.equal(model.network(ids).logits, own(ids).logits)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    (unpacked,) = (tmp_path / "gguf").iterdir()
    assert backbone.fingerprint.startswith(unpacked.name.split("-")[0])
    # other forms read it as any folder; nothing is converted again, and gguf is not needed
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    task = Classification()
    task.fit(["a", "b"])
    assert HuggingFace(str(gguf), sha256=backbone.fingerprint[:8]).build(task).head.paths
    with pytest.raises(InputError, match="sha256 is"):
        HuggingFace(str(gguf), sha256="00").build(task)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors",
                                  "config.json.sha256"])
def test_gguf__unpacked_is_made_again_where_it_is_damaged(gguf, tmp_path, monkeypatch, caplog, name):
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path))
    folder = gguf_file.unpacked(str(gguf), weights=True)
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    harms = [lambda path: path.write_bytes(kept[name][:-9] + bytes([kept[name][-9] ^ 4])
                                           + kept[name][-8:]),
             lambda path: path.write_bytes(b"")]
    if not name.endswith(".sha256"):  # without it, a folder that an earlier ftlab has made
        harms.append(lambda path: path.unlink())
    for harm in harms:
        harm(folder / name)
        assert gguf_file.unpacked(str(gguf), weights=True) == folder
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept
        (said,) = [r.getMessage() for r in caplog.records if "damaged" in r.getMessage()]
        assert said.startswith(f"damaged cache, made again: {folder}: {name.removesuffix('.sha256')}")
        caplog.clear()
    gguf_file.unpacked(str(gguf), weights=True)
    assert not [r for r in caplog.records if "damaged" in r.getMessage()]


def test_gguf__is_read_without_what_lies_beside_it(gguf, tmp_path, monkeypatch):
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whoever is asked says yes
    file, marker = Path(shutil.copy(gguf, tmp_path)), tmp_path / "marker"
    (tmp_path / "evil.py").write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n\nclass Evil:\n    pass\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "Nothing", "auto_map": {"AutoTokenizer": [None, "evil.Evil"]}}))
    HuggingFace(str(file)).build(TASK)
    assert not marker.exists()


def test_gguf__refusals(gguf, tmp_path, monkeypatch):
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path))
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(gguf.read_bytes()[:40])
    with pytest.raises(InputError, match="cannot be read as GGUF"):
        HuggingFace(str(damaged)).build(TASK)
    with pytest.raises(InputError, match="no such file"):
        HuggingFace("absent.gguf").build(TASK)
    monkeypatch.setattr(gguf_file.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError) as error:
        HuggingFace(str(gguf)).build(TASK)
    assert "ftlab[gguf]" in error.value.mend
    assert not list((tmp_path / "gguf").rglob("*.*json"))
