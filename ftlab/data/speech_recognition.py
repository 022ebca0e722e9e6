"""Recordings with a transcript each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from ftlab.backbones.base import Backbone
from ftlab.backbones.export_code import PlainExamples
from ftlab.backbones.preprocessing import AudioPreprocessing, Preprocessing
from ftlab.backbones.task_model import TaskModel
from ftlab.data.audio_augment import AudioAugment
from ftlab.data.audio_sources import AudioSource, Speakers
from ftlab.data.audio_store import Recordings
from ftlab.data.base import DataModule
from ftlab.data.batches import ExampleRow, SplitDataset
from ftlab.data.check_backbone import sound_reader
from ftlab.data.examples import Examples, SplitName, Stream, sources
from ftlab.data.export_snippets import with_sound
from ftlab.data.sampling import Natural, Sampling
from ftlab.data.splits import Split, Subset
from ftlab.data.tables import Column
from ftlab.errors import Incompatible, InputError
from ftlab.tasks.transcription import Transcription

_WRITE = """
def predict(recordings):  # what is said in each
    written = []
    for recording in recordings:
        with torch.no_grad():
            tokens = model.generate(**prepare(recording), max_new_tokens={longest},
                                    do_sample=False, num_beams=1)
        written.append(tokenizer.decode(tokens[0], skip_special_tokens=True,
                                        clean_up_tokenization_spaces=False))
    return written
"""
_SPELL = """
def predict(recordings):  # what is said in each
    written = []
    for recording in recordings:
        with torch.no_grad():
            best = compute(**prepare(recording))[0].argmax(dim=-1)
        symbols = [symbol for symbol in best.unique_consecutive().tolist() if symbol != {blank}]
        written.append(tokenizer.decode(symbols, skip_special_tokens=True, group_tokens=False,
                                        clean_up_tokenization_spaces=False))
    return written
"""


class SpeechRecognition(DataModule):
    """Recordings with a transcript each.

    A source is a .csv, .tsv, .jsonl or .parquet file with paths of recordings (from the file's
    folder), a folder of recordings, `package:NAME/PATH` for either within an installed package,
    or `hf:NAME[:CONFIG[:SPLIT]]`. In a folder (searched with its subfolders) the transcript is in
    a .txt file of the recording's name beside it, or is what `pattern` reads out of that name.
    Recordings are .wav, .flac, .ogg or .mp3; channels are averaged, and the rate becomes the
    backbone's. `load` decodes every recording once.

    Args:
        train: source of the training examples.
        validation: source; carved from train when absent.
        test: source; carved from train when absent.
        audio: the column of the recording's path: a name, or a number (from 0) in a file without
            header; not needed for a folder.
        transcript: the transcript's column, a name or a number, or its field in `pattern`.
        speaker: the speaker's column or field, read where `speakers` is given.
        pattern: names of the files in a folder, without ending, with a name in braces for each
            field, for instance "{label}_{speaker}_{index}".
        speakers: those in validation and test alone, to measure how well it goes with
            strangers.
        batch_size: recordings a batch, over all devices.
        split: how absent splits are carved.
        subset: what part of a split is used.
        sampling: how training recordings are drawn.
        augment: random change of training recordings.
        classes: raw transcript -> transcript, to write labels as words ("0" as "zero"); every raw
            transcript must be named.
        task: what is predicted.
        workers: processes that load; 0 loads in the main process.
        bucketing: train on batches of recordings of like length (before `augment`), which saves
            padding unless the backbone pads all alike (Whisper); `ftlab.data.bucketing` says what
            stays random.
        encoding: of the text in the sources, for instance cp1252 or utf-16; null for UTF-8.
        tests: sources of further test sets by name; their metrics are `test.NAME/...`.
        beside: further examples that training batches bring along, by name.
        columns: what else is known of each example, by name (`group`, `domain`, `client`, `cluster`): a
            table's column, or a pattern of the example's id whose group is the value.
    """

    pipeline = "automatic-speech-recognition"
    task: Transcription

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        test: str | None = None,
        audio: str | int = "audio",
        transcript: str | int = "transcript",
        speaker: str | int = "speaker",
        pattern: str | None = None,
        speakers: Speakers | None = None,
        batch_size: int = 16,
        # B008: these defaults are the schema, and are frozen, stateless or copied
        split: Split = Split(),
        subset: Subset = Subset(),
        sampling: Sampling = Natural(),
        augment: AudioAugment | None = None,
        classes: dict[str, str] | None = None,
        task: Transcription = Transcription(),
        workers: int = 0,
        bucketing: bool = True,
        encoding: str | None = None,
        tests: dict[str, str] | None = None,
        beside: dict[str, Stream | str] | None = None,
        columns: dict[str, str | int] | None = None,
    ) -> None:
        super().__init__(sources(train, validation, test, tests, beside), task,
                         batch_size, split, subset, sampling, classes, workers, bucketing, encoding,
                         beside, columns)
        described = AudioSource(audio, transcript, None if speakers is None else speaker, pattern,
                                "transcripts")
        self._recordings = Recordings(described, speakers, self.sources)
        self.augment = augment
        self._labels: dict[SplitName, list[dict[str, Any]]] = {}

    def own_splits(self, source: str) -> Sequence[SplitName]:
        return self._recordings.own_splits(source)

    def read(self, split: SplitName, source: str) -> Examples:
        examples, notes = self._recordings.read(split, source)
        self.note(*notes)
        return examples

    def read_new(self, source: str, split: SplitName = "test") -> Examples:
        return self._recordings.source.read_new(source, split)

    def stand_ins(self, examples: Examples) -> list[Any]:
        """One character, which any recording is long enough for."""
        return [label.strip()[:1] for label in super().stand_ins(examples)]

    @property
    def read_by(self) -> Column:
        return self._recordings.source.audio

    def prepare(self, split: SplitName, examples: Examples) -> list[bytes]:
        return self._recordings.add(split, examples)

    def connect(self, backbone: Backbone, seed: int) -> None:
        """Take the backbone's sampling rate and features, and encode the transcripts.

        Raises:
            Incompatible: the backbone reads no sound, or writes no text.
            InputError: a recording is too long or too short for it, or its
                vocabulary or length does not hold a transcript.
        """
        preprocessing = sound_reader(backbone, self)
        if preprocessing.encode is None:
            raise Incompatible(f"{type(backbone).__name__} has no vocabulary to write transcripts "
                               "in", "choose a checkpoint that has a tokenizer")
        self.load()
        self.note(*self._recordings.connect(self.splits, preprocessing))
        self._labels = {split: self._encoded(split, preprocessing) for split in self.splits}
        self._seed = seed

    def _encoded(self, split: SplitName,
                 preprocessing: AudioPreprocessing) -> list[dict[str, Any]]:
        """Label ids and text of each transcript."""
        assert preprocessing.encode is not None
        examples = self.splits[split]
        labels = preprocessing.encode(examples.targets)
        lengths = self._recordings.lengths(split)
        for place, text, ids, length in zip(examples.ids, examples.targets, labels, lengths,
                                            strict=True):
            self._check(f"{split} split, {place}", text, ids, length, preprocessing)
        return [{"labels": ids, "text": text}
                for ids, text in zip(labels, examples.targets, strict=True)]

    def _check(self, place: str, text: str, ids: Sequence[int], length: int,
               preprocessing: AudioPreprocessing) -> None:
        if unknown := preprocessing.unknown(text):
            shown = " ".join(sorted(unknown))
            raise InputError(f"{place}: the backbone's vocabulary lacks {shown} (of {text!r})",
                             "spell it with characters of the vocabulary; mind upper and lower "
                             "case")
        if preprocessing.longest_labels is not None:
            longest = min(preprocessing.longest_labels, self.task.max_new_tokens)
            if len(ids) > longest:
                raise InputError(f"{place}: its transcript has {len(ids)} tokens, more than the "
                                 f"{longest} that are written", "raise the task's max_new_tokens "
                                 f"(up to {preprocessing.longest_labels}), or cut the recording")
        if preprocessing.frames is not None:
            slowest = 1 + self.augment.speed if self.augment is not None else 1.0
            frames = preprocessing.frames(int(length / slowest))
            # a blank must stand between equal characters
            wanted = len(ids) + sum(a == b for a, b in pairwise(ids))
            if frames < wanted:
                raise InputError(f"{place}: its recording gives {frames} frames, too few for the "
                                 f"{wanted} that {text!r} needs",
                                 "remove it, or mend the transcript")

    def dataset(self, split: SplitName, training: bool) -> SplitDataset:
        return self._recordings.dataset(split, self._labels[split], self.seed,
                                        self.augment if training else None)

    def collate(self, training: bool) -> Callable[[Sequence[ExampleRow]], dict[str, Any]]:
        return self._recordings.collate(self.task.stack, 0 if self.views else self.seed,
                                        self.augment if training else None)

    def export_code(self, preprocessing: Preprocessing, model: TaskModel) -> PlainExamples | None:
        if not isinstance(preprocessing, AudioPreprocessing):
            return None
        code = (_WRITE.format(longest=self.task.max_new_tokens) if model.blank is None
                else _SPELL.format(blank=model.blank))
        notes = [] if model.blank is None else [
            ("pipeline(...) spells out special symbols such as <unk>, and what it hears in the "
             "padding of a batch: give it one recording at a time.")]
        return PlainExamples(with_sound(code, preprocessing, model, tokenizer=True), "recordings",
                             "audio", notes=notes)

    def lengths(self, split: SplitName) -> Sequence[int]:
        return self._recordings.lengths(split)

    def padded_lengths(self) -> Sequence[int] | None:
        return None if self._recordings.alike else self.lengths("train")
