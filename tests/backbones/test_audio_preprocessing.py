import json
import math
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.speech_settings import Speech
from ftlab.data.audio_classification import AudioClassification
from ftlab.data.audio_sources import Speakers
from ftlab.data.speech_recognition import SpeechRecognition
from ftlab.errors import Incompatible, InputError
from ftlab.tasks.classification import Classification
from ftlab.tasks.transcription import Transcription
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings
from ftlab.training.unused_parameters import unreached_parameters

UNRENDERED = True
DRAW = np.random.default_rng(0)
WAVES = [DRAW.normal(0, 0.1, n).astype(np.float32) for n in (4000, 6400)]


def digits() -> Classification:
    task = Classification()
    task.fit(["a", "b", "c"])
    return task


def changed(folder: Path, to: Path, name: str, **settings: object) -> Path:
    shutil.copytree(folder, to)
    content = json.loads((to / name).read_text())
    (to / name).write_text(json.dumps(content | settings))
    return to


@pytest.mark.parametrize("seconds", [None, 0.5])
def test_whisper__is_transformers_with_fewer_positions(tiny_whisper: Path,
                                                       seconds: float | None) -> None:
    backbone = HuggingFace(str(tiny_whisper), speech=Speech(seconds=seconds))
    prepare, task = backbone.preprocessing, Transcription()
    assert (prepare.longest, prepare.sampling_rate) == (seconds or 1.0, 16000)
    features = prepare.features(WAVES)["input_features"]
    extractor = hf.WhisperFeatureExtractor.from_pretrained(tiny_whisper)
    expected = extractor(WAVES, sampling_rate=16000, return_tensors="pt")["input_features"]
    width = int(prepare.longest * 100)
    assert features.shape == (2, 16, width)
    if seconds is None:
        assert torch.equal(features, expected)

    model = backbone.build(task).eval()
    network = hf.WhisperForConditionalGeneration.from_pretrained(tiny_whisper).eval()
    rows = network.model.encoder.embed_positions.weight[:width // 2].detach().clone()
    network.config.max_source_positions = width // 2
    network.model.encoder.embed_positions = torch.nn.Embedding.from_pretrained(rows)
    labels = task.stack([{"labels": ids, "text": ""} for ids in prepare.encode(["low", "high low"])])
    with torch.no_grad():
        ours = model({"inputs": {"input_features": features}, "target": labels})
        theirs = network(input_features=features, labels=labels["labels"]).logits
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("task", [Transcription(), digits()], ids=["text", "vector"])
def test_whisper__positions_are_fixed(tiny_whisper: Path, task: Transcription) -> None:
    model = HuggingFace(str(tiny_whisper), speech=Speech(seconds=0.5)).build(task)
    named = dict(model.named_parameters())
    assert not any("encoder.embed_positions" in name for name in named)
    buffers = [b for name, b in model.named_buffers() if "encoder.embed_positions" in name]
    assert [tuple(b.shape) for b in buffers] == [(25, 24)]
    shape = HuggingFace(str(tiny_whisper), speech=Speech(seconds=0.5)).build(task, meta=True)
    assert {n: p.shape for n, p in shape.named_parameters()} == {n: p.shape for n, p in named.items()}


def test_whisper__cannot_hear_more_than_it_has_positions_for(tiny_whisper: Path) -> None:
    backbone = HuggingFace(str(tiny_whisper), speech=Speech(seconds=2))
    for use in (lambda: backbone.preprocessing, lambda: backbone.build(Transcription())):
        with pytest.raises(InputError, match="seconds is 2, and it reads at most 1") as caught:
            use()
        assert caught.value.mend
    with pytest.raises(ValueError, match="seconds must be above 0"):
        Speech(seconds=0)


@pytest.mark.parametrize("setting", [{"seconds": 1.0}, {"language": "en"}])
def test_settings_of_whisper__are_refused_elsewhere(tiny_wav2vec2: Path, tiny_bert: Path,
                                                    setting: dict) -> None:
    for folder in (tiny_wav2vec2, tiny_bert):
        with pytest.raises(Incompatible, match=f"{next(iter(setting))} is a setting of Whisper"):
            _ = HuggingFace(str(folder), speech=Speech(**setting)).preprocessing


def test_whisper__of_many_languages_wants_one(tiny_whisper: Path, tmp_path: Path) -> None:
    folder = changed(tiny_whisper, tmp_path / "many", "config.json", vocab_size=51865)
    backbone = HuggingFace(str(folder))
    with pytest.raises(Incompatible, match="many languages"):
        backbone.preprocessing.encode(["low"])
    with pytest.raises(Incompatible, match="one language alone"):
        _ = HuggingFace(str(tiny_whisper), speech=Speech(language="de")).preprocessing
    with pytest.raises(ValueError, match=r"language must be one that Whisper knows.*'klingon'"):
        Speech(language="klingon")
    for known in ("en", "English", "mandarin"):
        assert Speech(language=known).language == known


def test_whisper__of_many_languages_classifies_without_one(tiny_whisper: Path, spoken: Path,
                                                           tmp_path: Path) -> None:
    folder = changed(tiny_whisper, tmp_path / "many", "config.json", vocab_size=51865)
    data = AudioClassification(str(spoken / "words"), pattern="{label}_{speaker}_{index}")
    data.connect(HuggingFace(str(folder)), 0)
    assert next(iter(data.test_dataloader()))["inputs"]["input_features"].shape[1:] == (16, 100)


@pytest.mark.shared
def test_whisper__labels_are_the_tokenizer_s(shared: Path) -> None:
    backbone = HuggingFace(str(shared / "models" / "whisper-tiny-en"))
    start, *expected = hf.AutoTokenizer.from_pretrained(backbone.source)(" two words")["input_ids"]
    assert start == 50257
    assert backbone.preprocessing.encode(["two words"]) == [expected]
    assert backbone.preprocessing.longest == 30
    assert backbone.preprocessing.longest_labels == 448


@pytest.mark.parametrize("mask", [True, False])
def test_wav2vec2__inputs_are_its_feature_extractor_s(tiny_wav2vec2: Path, tmp_path: Path,
                                                      mask: bool) -> None:
    folder = changed(tiny_wav2vec2, tmp_path / "wav2vec2", "preprocessor_config.json",
                     return_attention_mask=mask)
    prepare = HuggingFace(str(folder)).preprocessing
    extractor = hf.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    # each alone, then padded, as transformers' pipelines do: without a mask the extractor would
    # scale a waveform by its padding too, and so by its neighbours
    alone = [extractor(wave, sampling_rate=16000) for wave in WAVES]
    expected = extractor.pad([{"input_values": each["input_values"][0]} for each in alone],
                             return_tensors="pt")
    found = prepare.features(WAVES)
    assert torch.equal(found["input_values"], expected["input_values"])
    # said whatever the extractor says, or padding would be heard
    assert found["attention_mask"].sum(-1).tolist() == [len(wave) for wave in WAVES]
    assert math.isinf(prepare.longest)


@pytest.mark.parametrize("samples", [10, 401, 402, 16000])
def test_wav2vec2__frames_are_counted_as_it_makes_them(tiny_wav2vec2: Path, samples: int) -> None:
    backbone = HuggingFace(str(tiny_wav2vec2))
    frames = backbone.preprocessing.frames(samples)
    network = backbone.build(Transcription()).network
    assert frames == max(0, int(network._get_feat_extract_output_lengths(samples)))
    if frames:
        assert network(torch.zeros(1, samples)).logits.shape[1] == frames


def test_wav2vec2__says_which_characters_it_lacks(tiny_wav2vec2: Path) -> None:
    unknown = HuggingFace(str(tiny_wav2vec2)).preprocessing.unknown
    assert unknown("low high") == set()
    assert unknown("Low ähigh!") == unknown("ä !L") == {"L", "ä", "!"}
    assert {character for character, lacks in unknown.lacks.items() if lacks} == {"L", "ä", "!"}


def test_wav2vec2__training_changes_nothing_at_random(tiny_wav2vec2: Path) -> None:
    """No masks and no dropped layers of transformers' own: augmentation is the data module's."""
    backbone = HuggingFace(str(tiny_wav2vec2), dropout=0.0)
    model = backbone.build(Transcription())
    batch = {"inputs": backbone.preprocessing.features(WAVES)}
    with torch.no_grad():
        torch.testing.assert_close(model.train()(batch)["logits"], model.eval()(batch)["logits"])
    assert not any("masked_spec_embed" in name for name, _ in model.named_parameters())


def test_wav2vec2__every_parameter_is_used_and_in_one_block(tiny_wav2vec2: Path) -> None:
    backbone = HuggingFace(str(tiny_wav2vec2))
    model = backbone.build(Transcription()).eval()
    assert unreached_parameters(model, {"inputs": backbone.preprocessing.features(WAVES)}) == {}
    held = [name for block in model.blocks for name, _ in block.named_parameters()]
    assert sorted(held) == sorted(name for name, _ in model.named_parameters())
    assert any("parametrizations.weight.original0" in name for name in held)
    last = [name for name, _ in model.blocks[-1].named_modules()]
    assert {"network.lm_head", "network.dropout"} <= set(last)


def test_ctc__needs_an_output_layer(tiny_wav2vec2: Path, tmp_path: Path) -> None:
    folder = changed(tiny_wav2vec2, tmp_path / "plain", "config.json",
                     architectures=["Wav2Vec2ForPreTraining"])
    with pytest.raises(Incompatible, match="pre-trained without transcripts"):
        HuggingFace(str(folder)).build(Transcription())


def test_ctc__new_characters_are_a_new_head(tiny_wav2vec2: Path, spoken: Path,
                                            tmp_path: Path) -> None:
    folder = tmp_path / "plain"  # as wav2vec2-base: pre-trained without transcripts
    hf.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    hf.Wav2Vec2ForCTC.from_pretrained(tiny_wav2vec2).wav2vec2.save_pretrained(folder)
    backbone = HuggingFace(str(folder), speech=Speech(characters="abcdefghijklmnopqrstuvwxyz'"))
    prepare = backbone.preprocessing
    assert prepare.unknown("low é'") == {"é"}
    ids = prepare.encode(["high low"])[0]
    model = backbone.build(Transcription())
    assert [name for name, _ in model.head.named_parameters()] == [
        "network.lm_head.weight", "network.lm_head.bias"]
    assert model.network.lm_head.out_features == 27 + 3  # blank, unknown, between words
    frames = torch.nn.functional.one_hot(torch.tensor(ids), 30)[None].float()
    said = model.decode({"logits": frames, "lengths": torch.tensor([len(ids)])})
    assert said == ["high low"]

    data = SpeechRecognition(str(spoken / "table.csv"), speakers=Speakers(("cy",), ("di",)))
    events: list[dict] = []
    run = Run(backbone, data, LinearProbe(lr=3e-2, solver=None), TrainerSettings(max_epochs=3), 0, "val/loss",
              tmp_path)
    metrics = execute(run, events.append)
    course = [e["metrics"]["train/epoch_loss"] for e in events
              if e["event"] == "metrics" and "train/epoch_loss" in e["metrics"]]
    assert course[-1] < course[0]
    assert metrics["cost/trainable_parameters"] == 24 * 30 + 30


def test_characters__are_of_speech_encoders(tiny_whisper: Path) -> None:
    with pytest.raises(Incompatible, match="characters is a setting of speech encoders"):
        HuggingFace(str(tiny_whisper), speech=Speech(characters="ab")).build(Transcription())
    with pytest.raises(ValueError, match="characters must differ"):
        Speech(characters="aa")


def test_ctc__refuses_another_network_s_vocabulary(tiny_wav2vec2: Path, tmp_path: Path) -> None:
    folder = changed(tiny_wav2vec2, tmp_path / "other", "vocab.json", **{c: 99 for c in "xyz"})
    with pytest.raises(InputError, match="its tokenizer has"):
        HuggingFace(str(folder)).build(Transcription())


def test_preprocessing__goes_to_loader_workers(tiny_whisper: Path, tiny_wav2vec2: Path) -> None:
    for folder in (tiny_whisper, tiny_wav2vec2):
        prepare = HuggingFace(str(folder)).preprocessing
        sent = pickle.loads(pickle.dumps(prepare))
        features = sent.features(WAVES)
        assert all(torch.equal(v, prepare.features(WAVES)[k]) for k, v in features.items())
        assert sent.encode(["low"]) == prepare.encode(["low"])
        assert sent.unknown("low") == set()


@pytest.mark.parametrize("fixture", ["tiny_whisper", "tiny_wav2vec2"])
def test_labels__know_white_space_as_one_plain_space(fixture: str,
                                                     request: pytest.FixtureRequest) -> None:
    prepare = HuggingFace(str(request.getfixturevalue(fixture))).preprocessing
    [plain] = prepare.encode(["high low"])
    for text in ("high\tlow", " high  low ", "high\nlow", "high\u00a0low"):
        assert prepare.encode([text]) == [plain], repr(text)
        assert prepare.unknown(text) == set()


def test_without_feature_extractor__is_refused(tiny_wav2vec2: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(tiny_wav2vec2, folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="no feature extractor"):
        _ = HuggingFace(str(folder)).preprocessing


def settled(folder: Path, to: Path, **settings: object) -> Path:
    """A copy whose feature extractor's file says this and no more."""
    shutil.copytree(folder, to)
    (to / "preprocessor_config.json").write_text(json.dumps(settings))
    return to


def test_extractor__class_fills_in_what_its_file_leaves_out(tiny_wav2vec2: Path,
                                                            tmp_path: Path) -> None:
    folder = settled(tiny_wav2vec2, tmp_path / "named",
                     feature_extractor_type="Wav2Vec2FeatureExtractor")
    found = HuggingFace(str(folder)).preprocessing.features(WAVES)["input_values"]
    for row, wave in zip(found, WAVES, strict=True):  # each scaled by itself, whatever its padding
        alone = hf.Wav2Vec2FeatureExtractor()(wave, sampling_rate=16000, return_tensors="pt")
        assert torch.equal(row[:len(wave)], alone["input_values"][0])


@pytest.mark.parametrize(("fixture", "settings", "match"), [
    ("tiny_wav2vec2", {"sampling_rate": 16000, "feature_size": 1},
     "lacks do_normalize, and names no class"),
    ("tiny_wav2vec2", {"feature_extractor_type": "Ours", "do_normalize": True, "feature_size": 1},
     "lacks sampling_rate, and transformers has no Ours"),
    ("tiny_whisper", {"feature_size": 16}, "lacks sampling_rate, hop_length, n_fft"),
    ("tiny_whisper", {"feature_extractor_type": "WhisperFeatureExtractor"},
     "makes 80 bands, and it reads 16")])
def test_extractor__leaves_out_what_nobody_fills_in(
    fixture: str, settings: dict[str, object], match: str, request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    folder = settled(request.getfixturevalue(fixture), tmp_path / "bare", **settings)
    with pytest.raises(InputError, match=match):
        _ = HuggingFace(str(folder)).preprocessing


def test_extractor__from_another_folder(tiny_whisper: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(tiny_whisper, folder)
    (folder / "preprocessor_config.json").unlink()
    plain = HuggingFace(str(tiny_whisper)).preprocessing
    other = HuggingFace(str(folder), preprocessor=str(tiny_whisper)).preprocessing
    assert torch.equal(plain.features(WAVES)["input_features"],
                       other.features(WAVES)["input_features"])


@pytest.mark.parametrize("fixture", ["tiny_whisper", "tiny_wav2vec2"])
def test_classifier__is_the_architecture_s_own(fixture: str,
                                               request: pytest.FixtureRequest) -> None:
    backbone = HuggingFace(str(request.getfixturevalue(fixture)))
    model = backbone.build(digits()).eval()
    head = {name.split(".")[1] for name, _ in model.head.named_parameters()}
    assert head == {"projector", "classifier"}
    with torch.no_grad():
        logits = model({"inputs": backbone.preprocessing.features(WAVES)})
    assert logits.shape == (2, 3)
