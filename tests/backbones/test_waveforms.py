"""A recording's outputs are its own: alone, or beside any other in a batch."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf

from ftlab.backbones.huggingface import HuggingFace
from ftlab.errors import Incompatible
from ftlab.tasks.transcription import Transcription

_SYMBOLS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghij"]
_SIZES = {"vocab_size": len(_SYMBOLS), "hidden_size": 24, "num_hidden_layers": 2,
          "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": [16, 16, 16],
          "conv_kernel": [10, 3, 3], "conv_stride": [5, 2, 2], "num_feat_extract_layers": 3,
          "pad_token_id": 0, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
          "classifier_proj_size": 16}
# what normalises the first convolution, whether the extractor gives a mask, and normalises
KINDS = {"base": ("group", False, True), "base_mask": ("group", True, True),
         "large": ("layer", True, True), "large_no_mask": ("layer", False, True),
         "loud": ("group", False, False)}
FAMILIES = {"Wav2Vec2": {}, "Hubert": {}, "WavLM": {}, "UniSpeechSat": {},
            "SEW": {"squeeze_factor": 2}, "Wav2Vec2Conformer": {},
            "Data2VecAudio": {"conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 3}}
CASES = [*(("Wav2Vec2", kind) for kind in KINDS if kind != "base"),
         *((name, "base") for name in FAMILIES)]


class _Task:
    output_type = "vector"
    auto_classes = ("AutoModelForAudioClassification",)
    outputs = 3


def folder_of(family: str, kind: str, path: Path) -> Path:
    norm, mask, normalise = KINDS[kind]
    path.mkdir()
    (path / "vocab.json").write_text(json.dumps({symbol: i for i, symbol in enumerate(_SYMBOLS)}))
    hf.Wav2Vec2CTCTokenizer(str(path / "vocab.json")).save_pretrained(path)
    hf.Wav2Vec2FeatureExtractor(return_attention_mask=mask,
                                do_normalize=normalise).save_pretrained(path)
    config = getattr(hf, f"{family}Config")(**{**_SIZES, **FAMILIES[family]},
                                            feat_extract_norm=norm)
    network = getattr(hf, f"{family}ForCTC")(config)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(path)
    return path


@pytest.fixture
def waves() -> list[np.ndarray]:
    """A short one, and a long one with another level."""
    draw = np.random.default_rng(0)
    return [(draw.normal(0, level, size) + offset).astype(np.float32)
            for size, level, offset in ((1501, 0.3, 0.0), (9000, 0.1, 0.3))]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.filterwarnings("ignore:Support for mismatched")  # of WavLM's own masks
@pytest.mark.parametrize(("family", "kind"), CASES)
def test_recording__is_written_down_as_transformers_does_it_alone(
    family: str, kind: str, waves: list[np.ndarray], tmp_path: Path
) -> None:
    folder = folder_of(family, kind, tmp_path / "network")
    backbone = HuggingFace(str(folder))
    model = backbone.build(Transcription()).eval()
    network = getattr(hf, f"{family}ForCTC").from_pretrained(folder).eval()
    extractor = hf.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    with torch.no_grad():
        found = model({"inputs": backbone.preprocessing.features(waves)})
        for place, wave in enumerate(waves):
            alone = network(**extractor(wave, sampling_rate=16000, return_tensors="pt")).logits[0]
            assert found["lengths"][place] == len(alone)
            torch.testing.assert_close(found["logits"][place, :len(alone)], alone,
                                       atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["base", "large", "large_no_mask"])
@pytest.mark.parametrize("pooling", ["own", "mean", "max", "first", "last"])
def test_recording__has_one_score(kind: str, pooling: str, waves: list[np.ndarray],
                                  tmp_path: Path) -> None:
    backbone = HuggingFace(str(folder_of("Wav2Vec2", kind, tmp_path / "network")), pooling=pooling)
    model = backbone.build(_Task()).eval()
    network = model.network
    with torch.no_grad():
        both = model({"inputs": backbone.preprocessing.features(waves)})
        for place, wave in enumerate(waves):
            inputs = backbone.preprocessing.features([wave])
            alone = model({"inputs": inputs})[0]
            torch.testing.assert_close(both[place], alone, atol=1e-5, rtol=1e-4)
            if pooling != "own":
                frames = network(input_values=inputs["input_values"]).last_hidden_state[0]
                pooled = {"mean": frames.mean(0), "max": frames.amax(0), "first": frames[0],
                          "last": frames[-1]}[pooling]
                torch.testing.assert_close(alone, model.pooled_head.linear(pooled),
                                           atol=1e-5, rtol=1e-4)


def test_padding__has_no_part_in_gradients(waves: list[np.ndarray], tmp_path: Path) -> None:
    backbone = HuggingFace(str(folder_of("Wav2Vec2", "base", tmp_path / "network")), dropout=0.0)
    model = backbone.build(Transcription()).eval()
    copied = copy.deepcopy(model)  # as wrappers do, which average weights
    norm = "network.wav2vec2.feature_extractor.conv_layers.0.layer_norm"

    def gradient(of: torch.nn.Module, together: list[np.ndarray]) -> torch.Tensor:
        of.zero_grad()
        output = of({"inputs": backbone.preprocessing.features(together)})
        output["logits"][0, :int(output["lengths"][0])].square().sum().backward()
        return of.get_submodule(norm).weight.grad.clone()

    alone = gradient(model, waves[:1])
    torch.testing.assert_close(gradient(model, waves), alone, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(gradient(copied, waves), alone, rtol=1e-3, atol=1e-3)


def test_moonshine__is_refused_in_a_line(tmp_path: Path) -> None:
    hf.MoonshineConfig(hidden_size=24).save_pretrained(tmp_path)
    hf.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(Incompatible, match="moonshine with Wav2Vec2FeatureExtractor is not supp"):
        _ = HuggingFace(str(tmp_path)).preprocessing
