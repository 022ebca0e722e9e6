"""SpeechRecognition and AudioClassification: what they read, refuse and change."""

import io
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speech import RATE, say

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.audio_augment import AudioAugment
from ftlab.data.audio_classification import AudioClassification
from ftlab.data.audio_decode import decode_audio, resample
from ftlab.data.audio_sources import Speakers
from ftlab.data.speech_recognition import SpeechRecognition
from ftlab.data.splits import Subset
from ftlab.errors import Incompatible, InputError
from ftlab.tasks.transcription import Transcription

PATTERN = "{label}_{speaker}_{index}"
QUIET = {"gain": 0, "noise": None, "shift": 0, "speed": 0, "time_masks": 0, "frequency_masks": 0}


@pytest.fixture
def table(spoken: Path) -> str:
    return str(spoken / "table.csv")


def speakers_of(data: SpeechRecognition | AudioClassification, spoken: Path) -> dict[str, set[str]]:
    rows = (spoken / "table.csv").read_text().splitlines()[1:]
    who = {f"table:{i}": row.split(",")[2] for i, row in enumerate(rows, 1)}
    return {name: {who.get(i) or i.split("_")[1] for i in examples.ids}
            for name, examples in data.splits.items()}


@pytest.mark.parametrize("make", [
    lambda spoken, **more: SpeechRecognition(str(spoken / "table.csv"), **more),
    lambda spoken, **more: SpeechRecognition(str(spoken / "words"), transcript="label",
                                             pattern=PATTERN, **more),
    lambda spoken, **more: AudioClassification(str(spoken / "words"), pattern=PATTERN, **more),
])
def test_speakers__are_in_one_split_alone(spoken: Path, make: Callable[..., Any]) -> None:
    data = make(spoken, speakers=Speakers(("cy",), ("di",)))
    data.load()
    assert speakers_of(data, spoken) == {"train": {"ann", "bob"}, "validation": {"cy"}, "test": {"di"}}
    carved = make(spoken, speakers=Speakers(test=("di",)))
    carved.load()
    assert speakers_of(carved, spoken)["test"] == {"di"}
    assert sum(map(len, carved.splits.values())) == 48


def test_speakers__are_refused_where_they_make_no_sense(spoken: Path, table: str) -> None:
    with pytest.raises(InputError, match="has no speaker 'eve'"):
        SpeechRecognition(table, speakers=Speakers(("eve",), ("di",))).load()
    with pytest.raises(InputError, match="nobody to train on"):
        SpeechRecognition(table, speakers=Speakers(("ann", "bob"), ("cy", "di"))).load()
    with pytest.raises(ValueError, match="in validation and in test: cy"):
        Speakers(("cy",), ("cy", "di"))
    with pytest.raises(ValueError, match="must name some"):
        Speakers()
    with pytest.raises(ValueError, match="test is given twice"):
        SpeechRecognition(table, test=table, speakers=Speakers(("cy",), ("di",)))
    with pytest.raises(InputError, match="who speaks by its files' names alone"):
        SpeechRecognition(str(spoken / "words"), speakers=Speakers(("cy",), ("di",))).load()


def test_folder__gives_labels_and_transcripts(spoken: Path, tmp_path: Path) -> None:
    for path in sorted((spoken / "words").iterdir())[::2]:
        word = path.stem.split("_")[0]
        (tmp_path / word).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / word)
        (tmp_path / word / f"{path.stem}.txt").write_text(f"{word}\n")
    classes, texts = AudioClassification(str(tmp_path)), SpeechRecognition(str(tmp_path))
    for data in (classes, texts):
        data.load()
        for examples in data.splits.values():
            assert examples.labels == [i.split("/")[0] for i in examples.ids]
    assert classes.task.classes == ["high", "hiss", "low"]
    missing = next(tmp_path.glob("low/*.txt"))
    missing.unlink()
    with pytest.raises(InputError, match=rf"no {missing.name} beside it"):
        SpeechRecognition(str(tmp_path)).load()
    soundfile.write(tmp_path / "stray.wav", say(["low"]), RATE)
    with pytest.raises(InputError, match=r"stray.wav is in no class folder"):
        AudioClassification(str(tmp_path)).load()


def test_classes__rename_what_the_file_names_say(spoken: Path) -> None:
    data = SpeechRecognition(str(spoken / "words"), pattern=PATTERN, transcript="label",
                             classes={"low": "LOW", "high": "H I", "hiss": "S"})
    data.load()
    assert {label for e in data.splits.values() for label in e.labels} == {"LOW", "H I", "S"}


@pytest.mark.parametrize(("pattern", "said"), [
    ("{word}_{index}", "has no field {label}"),
    ("{label}-{speaker}", "does not fit the pattern"),
    ("{label}_{label}_{index}", "{label} twice"),
    ("{0}_{1}", "is no name of a field"),
])
def test_pattern__that_does_not_fit_is_refused(spoken: Path, pattern: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        AudioClassification(str(spoken / "words"), pattern=pattern).load()


def broken(folder: Path, row: str, write: Callable[[Path], object]) -> SpeechRecognition:
    """A table of 20 good recordings and one that `write` makes, as row 21."""
    lines = ["audio,transcript"]
    for i in range(20):
        soundfile.write(folder / f"{i}.wav", say(["low"], seed=i), RATE)
        lines.append(f"{i}.wav,low")
    write(folder / "bad.wav")
    (folder / "table.csv").write_text("\n".join([*lines, row]) + "\n")
    return SpeechRecognition(str(folder / "table.csv"), task=Transcription(max_new_tokens=6))


def of(seconds: float) -> Callable[[Path], object]:
    return lambda path: soundfile.write(path, say(["low"], seconds), RATE)


@pytest.mark.parametrize(("row", "write", "said"), [
    ("bad.wav,low", lambda path: path.write_bytes(b"RIFF nonsense"), "bad.wav .* does not decode"),
    ("bad.wav,low", lambda path: soundfile.write(path, np.zeros(0), RATE), "is empty"),
    ("bad.wav,low", lambda path: soundfile.write(path, np.full(99, np.nan), RATE, subtype="FLOAT"),
     "not finite"),
    ("gone.wav,low", of(0.1), "row 21: no such recording .*gone.wav"),
    ("bad.wav,", of(0.1), "row 21: the transcript is missing"),
    ("bad.wav,  ", of(0.1), "row 21: the transcript is missing"),
])
def test_load__names_the_row_of_bad_input(tmp_path: Path, row: str, said: str,
                                          write: Callable[[Path], object]) -> None:
    with pytest.raises(InputError, match=said):
        broken(tmp_path, row, write).load()


@pytest.mark.parametrize(("fixture", "row", "seconds", "said"), [
    ("tiny_whisper", "bad.wav,low", 1.2, "table:21: 1.20 s is longer than the 1 s"),
    ("tiny_whisper", "bad.wav,low low low low low low", 0.1, "table:21: its transcript has 7 tok"),
    ("tiny_wav2vec2", "bad.wav,Löw", 0.1, "table:21: the backbone's vocabulary lacks L ö"),
    ("tiny_wav2vec2", "bad.wav,low", 0.002, "table:21: 0.002 s is too short"),
    ("tiny_wav2vec2", "bad.wav,low high high", 0.05, "table:21: .* frames, too few for the 13"),
])
def test_connect__names_the_row_that_the_backbone_cannot_use(
        tmp_path: Path, request: pytest.FixtureRequest, fixture: str, row: str, seconds: float,
        said: str) -> None:
    data = broken(tmp_path, row, of(seconds))
    with pytest.raises(InputError, match=said):
        data.connect(HuggingFace(str(request.getfixturevalue(fixture))), 0)


def test_connect__refuses_what_reads_no_sound_or_writes_no_text(
        table: str, tiny_bert: Path, tiny_wav2vec2: Path, tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match="yields sound; HuggingFace reads texts"):
        SpeechRecognition(table).connect(HuggingFace(str(tiny_bert)), 0)
    mute = tmp_path / "mute"
    shutil.copytree(tiny_wav2vec2, mute)
    for name in ("vocab.json", "tokenizer_config.json"):
        (mute / name).unlink()
    with pytest.raises(Incompatible, match="has no vocabulary"):
        SpeechRecognition(table).connect(HuggingFace(str(mute)), 0)
    AudioClassification(str(Path(table).parent / "words"), pattern=PATTERN).connect(
        HuggingFace(str(mute)), 0)


def test_connect__says_the_resampling_once(table: str, tiny_whisper: Path) -> None:
    data = SpeechRecognition(table)
    for seed in (0, 1):
        data.connect(HuggingFace(str(tiny_whisper)), seed)
    assert data.notes == ["48 of 48 recordings are resampled from 8000 to 16000 Hz"]
    batch = next(iter(data.test_dataloader()))
    assert batch["inputs"]["input_features"].shape[1:] == (16, 100)
    assert batch["target"]["labels"].shape[0] == len(batch["target"]["text"])


def test_table__that_is_not_utf8_is_cleaned_and_said(table: str, tiny_wav2vec2: Path,
                                                     tmp_path: Path) -> None:
    folder = Path(shutil.copytree(Path(table).parent, tmp_path / "spoken"))
    text = (folder / "table.csv").read_text().replace("02.wav,low", "02.wav,café")
    (folder / "table.csv").write_bytes(text.encode("latin-1"))
    data = SpeechRecognition(str(folder / "table.csv"))
    data.load()
    assert len(data.fingerprint) == 64
    assert f"1 of 48 rows in {folder / 'table.csv'} is not UTF-8; bytes replaced" in data.notes
    with pytest.raises(InputError, match=r"vocabulary lacks .*\ufffd"):
        data.connect(HuggingFace(str(tiny_wav2vec2)), 0)


def test_loaders__go_to_spawned_workers(spoken: Path, tiny_wav2vec2: Path, tmp_path: Path) -> None:
    mute = Path(shutil.copytree(tiny_wav2vec2, tmp_path / "mute"))
    for name in ("vocab.json", "tokenizer_config.json"):
        (mute / name).unlink()
    data = AudioClassification(str(spoken / "words"), pattern=PATTERN, augment=AudioAugment())
    data.connect(HuggingFace(str(mute)), 0)
    loader = data.train_dataloader()
    dataset, collate = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
    rows = [loader.dataset[i] for i in range(3)]
    assert torch.equal(collate([dataset[i] for i in range(3)])["inputs"]["input_values"],
                       loader.collate_fn(rows)["inputs"]["input_values"])


def test_files_on_disk__give_the_same_batches_as_memory(
        table: str, tiny_wav2vec2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    for limit in (2**30, 0):
        monkeypatch.setattr("ftlab.data.audio_store.IN_MEMORY", limit)
        data = SpeechRecognition(table, augment=AudioAugment())
        data.connect(HuggingFace(str(tiny_wav2vec2)), 0)
        batches.append([next(iter(loader)) for loader in
                        (data.train_dataloader(), data.test_dataloader())])
    for a, b in zip(*batches, strict=True):
        assert torch.equal(a["inputs"]["input_values"], b["inputs"]["input_values"])
        assert a["target"]["text"] == b["target"]["text"]


@pytest.mark.parametrize("kind", ["WAV", "MP3", "FLAC", "OGG"])
def test_decode__a_file_cut_short_is_refused(kind: str) -> None:
    stream = io.BytesIO()
    soundfile.write(stream, say(["low"], 1.0), RATE, format=kind)
    whole = stream.getvalue()
    assert abs(len(decode_audio(whole, "whole")[0]) - RATE) <= 1
    with pytest.raises(InputError, match=r"a\.b is cut short: 0\.\d+ of the 1\.00 s|not decode|empty"):
        decode_audio(whole[:len(whole) // 2], "a.b")


@pytest.mark.parametrize("said", [2**32 - 1, 2**31 - 1])
def test_decode__a_stream_does_not_know_how_long_it_is(said: int) -> None:
    stream = io.BytesIO()
    soundfile.write(stream, say(["low"], 0.5), RATE, format="WAV")
    whole = stream.getvalue()
    assert whole[36:40] == b"data"
    size = said.to_bytes(4, "little")
    assert len(decode_audio(whole[:4] + size + whole[8:40] + size + whole[44:], "it")[0]) == RATE / 2


def test_decode__averages_channels(tmp_path: Path) -> None:
    left, right = say(["low"]), say(["high"])
    for ending in ("wav", "flac"):
        path = tmp_path / f"a.{ending}"
        soundfile.write(path, np.stack([left, right], axis=1), RATE)
        wave, rate = decode_audio(path.read_bytes(), "here")
        assert rate == RATE
        np.testing.assert_allclose(wave, (left + right) / 2, atol=1e-4)
    for ending in ("ogg", "mp3"):
        path = tmp_path / f"a.{ending}"
        soundfile.write(path, left, RATE)
        assert len(decode_audio(path.read_bytes(), "here")[0]) >= len(left)


@given(rate=st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000]),
       wanted=st.sampled_from([8000, 16000]), size=st.integers(200, 3000))
@settings(deadline=None, max_examples=25)
def test_resample__keeps_a_tone(rate: int, wanted: int, size: int) -> None:
    wave = np.sin(2 * np.pi * 440 * np.arange(size) / rate).astype(np.float32)
    changed = resample(wave, rate, wanted)
    assert len(changed) == -(-size * wanted // rate)
    assert changed.dtype == np.float32
    expected = np.sin(2 * np.pi * 440 * np.arange(len(changed)) / wanted)
    inner = slice(len(changed) // 4, 3 * len(changed) // 4)
    np.testing.assert_allclose(changed[inner], expected[inner], atol=0.03)


# Augmentation


@pytest.mark.parametrize("fixture", ["tiny_whisper", "tiny_wav2vec2"])
def test_augment__follows_from_seed_epoch_and_example(
        table: str, fixture: str, request: pytest.FixtureRequest) -> None:
    backbone = HuggingFace(str(request.getfixturevalue(fixture)))

    def inputs(seed: int, epoch: int, workers: int = 0) -> torch.Tensor:
        data = SpeechRecognition(table, augment=AudioAugment(), workers=workers)
        data.connect(backbone, seed)
        loader = data.train_dataloader()
        loader.dataset.set_epoch(epoch)
        rows = [loader.dataset[i] for i in range(4)]
        return next(iter(loader.collate_fn(rows)["inputs"].values()))

    assert torch.equal(inputs(0, 0), inputs(0, 0))
    for other in (inputs(0, 1), inputs(1, 0)):
        assert other.shape != inputs(0, 0).shape or not torch.equal(inputs(0, 0), other)


def test_augment__leaves_evaluation_alone(table: str, tiny_whisper: Path) -> None:
    found = []
    for augment in (None, AudioAugment()):
        data = SpeechRecognition(table, augment=augment)
        data.connect(HuggingFace(str(tiny_whisper)), 0)
        found.append(next(iter(data.test_dataloader()))["inputs"]["input_features"])
    assert torch.equal(*found)


@given(size=st.integers(50, 4000), key=st.integers(0, 99), longest=st.sampled_from([0.3, np.inf]))
@settings(deadline=None, max_examples=50)
def test_change__keeps_what_it_says(size: int, key: int, longest: float) -> None:
    wave = np.random.default_rng(1).normal(0, 0.1, size).astype(np.float32)

    def change(**only: Any) -> np.ndarray:
        changed = AudioAugment(**QUIET | only).change(wave, 16000, longest, 0, 0, key)
        assert changed.dtype == np.float32
        assert len(changed) <= longest * 16000
        return changed

    np.testing.assert_array_equal(change(), wave)
    ratio = change(gain=6.0) / wave
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
    assert 10 ** (-6 / 20) <= ratio[0] <= 10 ** (6 / 20)
    added = change(noise=20.0) - wave
    assert 15 < 10 * np.log10(np.mean(wave**2) / np.mean(added**2)) < 55
    moved = change(shift=0.05)
    silence = len(moved) - size if longest == np.inf else np.argmax(moved != 0)
    np.testing.assert_array_equal(moved[silence:], wave[:len(moved) - silence])
    assert 0 <= silence <= 0.05 * 16000
    quick = change(speed=0.1)
    assert 0.89 * size - 1 <= len(quick) <= 1.12 * size + 1


def test_change__cuts_at_what_the_network_reads() -> None:
    wave = np.ones(4800, np.float32)
    late = AudioAugment(**QUIET | {"shift": 0.1})
    lengths = {len(late.change(wave, 16000, longest, 0, 0, key)) for key in range(5)
               for longest in (0.3, np.inf)}
    assert min(lengths) == 4800 and len(lengths) == 6


@given(key=st.integers(0, 99), frames=st.integers(1, 60))
@settings(deadline=None)
def test_masks__of_spectrograms_are_its_mean(key: int, frames: int) -> None:
    augment = AudioAugment(time_masks=1, time_mask=0.3, frequency_masks=1, frequency_mask=0.3)
    before = torch.randn(20, 60, generator=torch.Generator().manual_seed(key))
    after = before.clone()
    augment.mask_spectrogram(after, frames, 0, 0, key)
    masked = after != before
    assert torch.allclose(after[masked], before[:, :frames].mean())
    bands, times = masked[:, :frames].all(dim=1), masked.all(dim=0)
    assert torch.equal(masked[:, :frames], bands[:, None] | times[None, :frames])
    assert not masked[:, frames:].any()
    assert bands.sum() <= 6 or bands.all()
    assert times.sum() <= 0.3 * frames


def test_masks__of_waveforms_silence_a_span_and_a_band() -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    spans = AudioAugment(**QUIET | {"time_masks": 1, "time_mask": 0.5})
    bands = AudioAugment(**QUIET | {"frequency_masks": 1, "frequency_mask": 0.5})
    for key in range(5):
        masked = spans.mask_waveform(wave, 0, 0, key)
        silent = np.flatnonzero(masked == 0)
        assert len(silent) <= 2000
        assert len(silent) == 0 or silent[-1] - silent[0] + 1 == len(silent)
        np.testing.assert_allclose(masked[masked != 0], wave[masked != 0], atol=1e-5)
        spectrum = np.abs(np.fft.rfft(bands.mask_waveform(wave, 0, 0, key)))
        gone = np.flatnonzero(spectrum < 1e-3)
        kept = np.setdiff1d(np.arange(len(spectrum)), gone)
        np.testing.assert_allclose(spectrum[kept], np.abs(np.fft.rfft(wave))[kept], rtol=1e-3,
                                   atol=1e-3)
    assert any(len(np.flatnonzero(spans.mask_waveform(wave, 0, 0, k) == 0)) for k in range(5))


@pytest.mark.parametrize("wrong", [{"gain": -1}, {"speed": 1}, {"time_mask": 1.5},
                                   {"frequency_masks": -1}])
def test_augment__checks_its_settings(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be at least 0"):
        AudioAugment(**wrong)


@pytest.mark.shared
def test_fsdd__by_unseen_speaker(shared: Path) -> None:
    data = AudioClassification(str(shared / "data" / "fsdd" / "recordings"), pattern=PATTERN,
                               speakers=Speakers(("theo",), ("lucas",)),
                               subset=Subset(limit=100, splits=("train", "validation", "test")))
    data.load()
    assert data.task.classes == [str(digit) for digit in range(10)]
    assert {name: len(examples) for name, examples in data.splits.items()} == {
        "train": 100, "validation": 100, "test": 100}
    assert all("_lucas_" in i for i in data.splits["test"].ids)
