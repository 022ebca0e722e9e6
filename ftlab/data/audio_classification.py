"""Recordings with a label each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from ftlab.tasks.base import Task
from ftlab.tasks.classification import Classification

_PREDICT = """
def predict(recordings):
    recordings = list(recordings)
    outputs = torch.empty(len(recordings), {width})
    for place, recording in enumerate(recordings):
        with torch.no_grad():
            outputs[place] = compute(**prepare(recording))[0].float()
    return tell(outputs)
"""


class AudioClassification(DataModule):
    """Recordings with one label each.

    A source is a .csv, .tsv, .jsonl or .parquet file with paths of recordings (from the file's
    folder), a folder of recordings, `package:NAME/PATH` for either within an installed package,
    or `hf:NAME[:CONFIG[:SPLIT]]`. In a folder (searched with its subfolders) the label is the
    name of a recording's folder, or what `pattern` reads out of its name.
    Recordings are .wav, .flac, .ogg or .mp3; channels are averaged, and the rate becomes the
    backbone's. `load` decodes every recording once.

    Args:
        train: source of the training examples.
        validation: source; carved from train when absent.
        test: source; carved from train when absent.
        audio: the column of the recording's path: a name, or a number (from 0) in a file without
            header; not needed for a folder.
        label: the label's column, a name or a number, or its field in `pattern`.
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
        classes: raw label -> class name, to rename or merge; every raw label must be named.
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

    pipeline = "audio-classification"
    labelled = "audio"

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        test: str | None = None,
        audio: str | int = "audio",
        label: str | int = "label",
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
        task: Task = Classification(),
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
        described = AudioSource(audio, label, None if speakers is None else speaker, pattern,
                                "classes")
        self._recordings = Recordings(described, speakers, self.sources)
        self.augment = augment

    def own_splits(self, source: str) -> Sequence[SplitName]:
        return self._recordings.own_splits(source)

    def read(self, split: SplitName, source: str) -> Examples:
        examples, notes = self._recordings.read(split, source)
        self.note(*notes)
        return examples

    def read_new(self, source: str, split: SplitName = "test") -> Examples:
        return self._recordings.source.read_new(source, split)

    @property
    def read_by(self) -> Column:
        return self._recordings.source.audio

    def prepare(self, split: SplitName, examples: Examples) -> list[bytes]:
        return self._recordings.add(split, examples)

    def connect(self, backbone: Backbone, seed: int) -> None:
        """Take the backbone's sampling rate and features.

        Raises:
            Incompatible: the backbone reads no sound.
            InputError: a recording is too long or too short for it.
        """
        preprocessing = sound_reader(backbone, self)
        self.load()
        self.note(*self._recordings.connect(self.splits, preprocessing))
        self._seed = seed

    def dataset(self, split: SplitName, training: bool) -> SplitDataset:
        return self._recordings.dataset(split, self.splits[split].targets, self.seed,
                                        self.augment if training else None)

    def collate(self, training: bool) -> Callable[[Sequence[ExampleRow]], dict[str, Any]]:
        return self._recordings.collate(self.task.stack, 0 if self.views else self.seed,
                                        self.augment if training else None)

    def export_code(self, preprocessing: Preprocessing, model: TaskModel) -> PlainExamples | None:
        if (self.task.output_type != "vector" or self.task.export_code() is None
                or not isinstance(preprocessing, AudioPreprocessing)):
            return None
        code = _PREDICT.format(width=self.task.outputs)
        return PlainExamples(with_sound(code, preprocessing, model), "recordings", "audio")

    def lengths(self, split: SplitName) -> Sequence[int]:
        return self._recordings.lengths(split)

    def padded_lengths(self) -> Sequence[int] | None:
        return None if self._recordings.alike else self.lengths("train")
