"""Encoder-decoders: held against transformers' logits and a greedy loop without cache."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf
from families import tokenizer

from ftlab.backbones.heads.encoder_decoder import EncoderDecoderModel, shift_right
from ftlab.backbones.huggingface import HuggingFace
from ftlab.errors import InputError
from ftlab.techniques.prefix_tuning import PrefixTuning

START, END, PAD = 0, 3, 0
LANGUAGE, TRANSCRIBE, NO_TIMESTAMPS = 5, 6, 7
LABELS = torch.tensor([[5, 6, END, -100], [7, 8, 9, END]])
TEXT = {
    "t5": lambda: hf.T5ForConditionalGeneration(hf.T5Config(
        vocab_size=20, d_model=16, d_kv=8, d_ff=24, num_heads=2, num_layers=2, pad_token_id=PAD,
        eos_token_id=END, decoder_start_token_id=START)),
    "bart": lambda: hf.BartForConditionalGeneration(hf.BartConfig(
        vocab_size=20, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, pad_token_id=PAD,
        bos_token_id=2, eos_token_id=END, decoder_start_token_id=2, forced_eos_token_id=END,
        max_position_embeddings=16)),
}
SPEECH = {
    "whisper": lambda: hf.WhisperForConditionalGeneration(hf.WhisperConfig(
        vocab_size=20, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, num_mel_bins=16,
        max_source_positions=8, max_target_positions=16, pad_token_id=PAD, bos_token_id=2,
        eos_token_id=END, decoder_start_token_id=2, suppress_tokens=None,
        begin_suppress_tokens=None)),
}
FAMILIES = sorted(TEXT | SPEECH)


class Writing:
    output_type = "text"
    auto_classes = ("AutoModelForSeq2SeqLM", "AutoModelForSpeechSeq2Seq")
    outputs = 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(2)
                network = (TEXT | SPEECH)[family]()
                for parameter in network.parameters():  # large enough for texts to differ
                    torch.nn.init.normal_(parameter, std=0.5)
            network.save_pretrained(made[family])
            words = tokenizer(decoder=False)
            words.cls_token = "[CLS]"
            words.save_pretrained(made[family])
            if family in SPEECH:
                hf.WhisperFeatureExtractor(feature_size=16, chunk_length=1).save_pretrained(
                    made[family])
        return made[family]

    return make


def build(folder: Path) -> EncoderDecoderModel:
    return HuggingFace(str(folder)).build(Writing()).eval()


def inputs_of(family: str) -> dict[str, torch.Tensor]:
    if family in SPEECH:
        return {"input_features": torch.randn(2, 16, 16)}
    ids = torch.tensor([[2, 7, 8, END, PAD], [2, 9, 10, 11, END]])
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


def greedy(network, inputs: dict, prompt: list[int], steps: int) -> list[list[int]]:
    """One example at a time, the whole text again at every step."""
    written = []
    for i in range(len(next(iter(inputs.values())))):
        one = {name: value[i:i + 1] for name, value in inputs.items()}
        if "attention_mask" in one:
            length = int(one["attention_mask"].sum())
            one = {name: value[:, :length] for name, value in one.items()}
        tokens = list(prompt)
        while len(tokens) < len(prompt) + steps and tokens[-1] != END:
            output = network(**one, decoder_input_ids=torch.tensor([tokens]), use_cache=False)
            tokens.append(int(output.logits[0, -1].argmax()))
        written.append(tokens)
    return written


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs__are_the_logits_that_transformers_gives_for_labels(family: str, folder) -> None:
    model, inputs = build(folder(family)), inputs_of(family)
    with torch.no_grad():
        ours = model({"inputs": inputs, "target": {"labels": LABELS}})
        theirs = model.network(**inputs, labels=LABELS)
    torch.testing.assert_close(ours, theirs.logits, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_generate__is_greedy(family: str, folder) -> None:
    model, inputs = build(folder(family)), inputs_of(family)
    prompt = [START if family == "t5" else 2]
    with torch.no_grad():
        expected = greedy(model.network, inputs, prompt, steps=6)
    texts = model.tokenizer.batch_decode(expected, skip_special_tokens=True)
    assert model.generate({"inputs": inputs}, 6) == texts
    assert any(texts)


@pytest.mark.parametrize("family", FAMILIES)
def test_generate__reads_no_target_and_is_bounded(family: str, folder) -> None:
    model = build(folder(family))
    model.network.generation_config.eos_token_id = 19  # the tiny networks do not write it
    model.network.generation_config.begin_suppress_tokens = [1]
    inputs, seen = inputs_of(family), []
    model.tokenizer.batch_decode = lambda tokens, **_: seen.append(tokens) or []
    model.generate({"inputs": inputs}, 3)
    assert seen[-1].shape[1] <= 4
    if family != "t5":  # its positions are relative
        model.generate({"inputs": inputs}, 10**6)
        assert seen[-1].shape[1] <= 16


def test_generate__leaves_positions_to_a_prefix(folder) -> None:
    model, seen = build(folder("bart")), []
    PrefixTuning(tokens=6).adapt(model)
    model.network.generation_config.eos_token_id = 19  # the tiny network does not write it
    model.tokenizer.batch_decode = lambda tokens, **_: seen.append(tokens) or []
    model.eval().generate({"inputs": inputs_of("bart")}, 10**6)
    assert 1 < seen[-1].shape[1] <= 16 - 6


def test_generate__takes_no_settings_of_the_checkpoint(folder, tmp_path: Path) -> None:
    plain, inputs = build(folder("bart")), inputs_of("bart")
    shutil.copytree(folder("bart"), tmp_path / "bart")
    path = tmp_path / "bart" / "generation_config.json"
    shipped = json.loads(path.read_text())
    shipped |= {"num_beams": 3, "do_sample": True, "top_k": 20, "temperature": 5.0, "min_length": 6,
                "no_repeat_ngram_size": 1, "length_penalty": 2.0, "early_stopping": True,
                "forced_eos_token_id": 9, "max_length": 3, "repetition_penalty": 9.0}
    path.write_text(json.dumps(shipped))
    assert build(tmp_path / "bart").generate({"inputs": inputs}, 6) == plain.generate(
        {"inputs": inputs}, 6)


def test_generate__begins_as_whisper_must(folder, tmp_path: Path) -> None:
    """Language, task and no timestamps first; suppressed tokens never."""
    shutil.copytree(folder("whisper"), tmp_path / "whisper")
    path = tmp_path / "whisper" / "generation_config.json"
    shipped = json.loads(path.read_text())
    shipped |= {"is_multilingual": True, "lang_to_id": {"<|en|>": LANGUAGE}, "language": "en",
                "task_to_id": {"transcribe": TRANSCRIBE, "translate": 1},
                "no_timestamps_token_id": NO_TIMESTAMPS, "suppress_tokens": [8, 9, 10],
                "forced_decoder_ids": [[1, None], [2, TRANSCRIBE]], "return_timestamps": False}
    shipped.pop("_from_model_config", None)  # with it, transformers reads its own keys alone
    path.write_text(json.dumps(shipped))
    model, inputs = build(tmp_path / "whisper"), inputs_of("whisper")
    prompt = [2, LANGUAGE, TRANSCRIBE, NO_TIMESTAMPS]
    seen: list[torch.Tensor] = []
    model.network.get_decoder().register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True)
    model.generate({"inputs": inputs}, 4)
    assert seen[0].tolist() == [prompt, prompt]
    assert all(step.shape == (2, 1) for step in seen[1:])  # keys and values are cached
    assert not torch.isin(torch.cat(seen[1:]), torch.tensor([8, 9, 10])).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks__hold_every_parameter_once_and_the_head_is_empty(family: str, folder) -> None:
    model = build(folder(family))
    assert not list(model.head.parameters())
    held = [name for block in model.blocks for name, _ in block.named_parameters()]
    assert sorted(held) == sorted(name for name, _ in model.named_parameters())
    names = [block.name for block in model.blocks]
    assert names[0] == "embeddings"
    assert [("encoder" in name) for name in names[1:]] == [True, True, False, False]
    network = model.network
    assert network.get_output_embeddings().weight is network.get_input_embeddings().weight


@pytest.mark.parametrize("family", FAMILIES)
def test_meta__has_the_same_shape(family: str, folder) -> None:
    model, backbone = build(folder(family)), HuggingFace(str(folder(family)))
    meta = backbone.build(Writing(), meta=True)
    assert {n: p.shape for n, p in meta.named_parameters()} == {
        n: p.shape for n, p in model.named_parameters()}


def test_no_start_token__is_refused(folder, tmp_path: Path) -> None:
    shutil.copytree(folder("t5"), tmp_path / "t5")
    path = tmp_path / "t5" / "config.json"
    config = json.loads(path.read_text())
    del config["decoder_start_token_id"]
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="no decoder_start_token_id"):
        build(tmp_path / "t5")


def test_shift_right() -> None:
    assert shift_right(LABELS, 2, 0).tolist() == [[2, 5, 6, END], [2, 7, 8, 9]]
    labels = torch.tensor([[5, -100, -100]])
    assert shift_right(labels, 2, 0).tolist() == [[2, 5, 0]]
