"""Fixtures: spoken words made of tones, and tiny random speech networks."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = {"low": 300.0, "high": 1800.0, "hiss": None}
SPEAKERS = ("ann", "bob", "cy", "di")
RATE = 8000


def say(words: Sequence[str], seconds: float = 0.1, pitch: float = 1.0, seed: int = 0) -> np.ndarray:
    """A tone or a noise for each word, at 8 kHz."""
    draw = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    parts = [np.sin(2 * np.pi * WORDS[word] * pitch * time) if WORDS[word]
             else draw.normal(0, 0.5, len(time)) for word in words]
    return (0.3 * np.concatenate(parts) + draw.normal(0, 0.01, len(time) * len(words))).clip(-1, 1)


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 recordings `{word}_{speaker}_{index}.wav` of one word, and a table of 48 of two words."""
    folder = tmp_path_factory.mktemp("data") / "spoken"
    (folder / "words").mkdir(parents=True)
    lines = ["audio,transcript,speaker"]
    names = list(WORDS)
    for i in range(48):
        speaker, word, second = SPEAKERS[i % 4], names[i // 4 % 3], names[i // 12 % 3]
        pitch = 0.9 + 0.05 * (i % 4)
        length = 0.1 + 0.002 * (i % 7)
        soundfile.write(folder / "words" / f"{word}_{speaker}_{i}.wav",
                        say([word], 2 * length, pitch, i), RATE)
        soundfile.write(folder / f"{i:02}.wav", say([word, second], length, pitch, i), RATE)
        lines.append(f"{i:02}.wav,{word} {second},{speaker}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def tiny_whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Whisper of two and two layers that reads one second."""
    folder = tmp_path_factory.mktemp("tiny") / "whisper"
    symbols = ["<end>", "<start>", "<unk>", *WORDS]
    raw = Tokenizer(models.WordLevel({s: i for i, s in enumerate(symbols)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 0)])
    hf.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", bos_token="<start>",
                               eos_token="<end>", pad_token="<end>").save_pretrained(folder)
    hf.WhisperFeatureExtractor(feature_size=16, chunk_length=1).save_pretrained(folder)
    config = hf.WhisperConfig(
        vocab_size=len(symbols), num_mel_bins=16, d_model=24, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, max_source_positions=50, max_target_positions=12, pad_token_id=0,
        bos_token_id=1, eos_token_id=0, decoder_start_token_id=1, classifier_proj_size=16,
        suppress_tokens=None, begin_suppress_tokens=None, init_std=0.2)
    _save(hf.WhisperForConditionalGeneration, config, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random wav2vec2 of three layers with an output layer of characters."""
    folder = tmp_path_factory.mktemp("tiny") / "wav2vec2"
    folder.mkdir()
    symbols = ["<pad>", "<s>", "</s>", "<unk>", "|", *sorted(set("".join(WORDS)))]
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({symbol: i for i, symbol in enumerate(symbols)}))
    hf.Wav2Vec2CTCTokenizer(str(vocabulary)).save_pretrained(folder)
    hf.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    config = hf.Wav2Vec2Config(
        vocab_size=len(symbols), hidden_size=24, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, conv_dim=(16, 16, 16), conv_stride=(5, 4, 4),
        conv_kernel=(10, 8, 4), num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
        num_feat_extract_layers=3, feat_extract_norm="layer", pad_token_id=0,
        classifier_proj_size=16, mask_time_length=4, layerdrop=0.1, initializer_range=0.2)
    _save(hf.Wav2Vec2ForCTC, config, folder)
    return folder


def _save(network: type, config: hf.PretrainedConfig, folder: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network(config).save_pretrained(folder)
