"""Texts, or pairs of texts, with a label each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ftlab.backbones.base import Backbone
from ftlab.backbones.export_code import PlainExamples
from ftlab.backbones.preprocessing import Preprocessing, TextPreprocessing
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.batches import Collate, SplitDataset
from ftlab.data.check_backbone import text_reader
from ftlab.data.examples import Examples, SplitName, Stream, sources
from ftlab.data.export_snippets import AT_ONCE, with_tokenizer
from ftlab.data.ragged import lengths
from ftlab.data.sampling import Natural, Sampling
from ftlab.data.sources import own_splits, read, read_new
from ftlab.data.splits import Split, Subset
from ftlab.data.tables import Column
from ftlab.data.text_augment import TextAugment
from ftlab.data.text_normalise import TextNormalisation
from ftlab.data.token_cache import TokenCache
from ftlab.errors import Incompatible
from ftlab.tasks.base import Task
from ftlab.tasks.classification import Classification

_PREPARE = """
def prepare(texts):
    return dict(tokenizer(list(texts), truncation=True, max_length={length}, padding=True,
                          return_token_type_ids=False, return_tensors="pt"))
"""
_PREPARE_PAIRS = """
def prepare(pairs):  # of texts
    firsts, seconds = map(list, zip(*pairs))
    return dict(tokenizer(firsts, seconds, truncation=True, max_length={length}, padding=True,
                          return_token_type_ids={types}, return_tensors="pt"))
"""
_PREDICT = """
def predict({takes}):  # {size} at once, those of like length together
    {takes} = list({takes})
    order = sorted(range(len({takes})), key=lambda place: len(str({takes}[place])))
    outputs = torch.empty(len(order), {width})
    for start in range(0, len(order), {size}):
        places = order[start:start + {size}]
        with torch.no_grad():
            outputs[places] = compute(**prepare([{takes}[place] for place in places])).float()
    return tell(outputs)
"""


class TextClassification(DataModule):
    """Texts, or pairs of texts, with one label each.

    A source is a .csv, .tsv, .jsonl or .parquet file, a folder of class folders of text files,
    `package:NAME/PATH` for such a file or folder within an installed package, or
    `hf:NAME[:CONFIG[:SPLIT]]`. Texts longer than `max_length` are cut; `notes` says how many.
    With `text_pair` an example is two texts (entailment, paraphrase), which the backbone's
    tokenizer joins in its own way, with token types where the network has them; of a pair that is
    too long the longer text is cut first. A source is a table then.

    Args:
        train: source of the training examples.
        validation: source; carved from train when absent.
        test: source; carved from train when absent.
        text: the text's column: a name, or a number (from 0) in a file without header.
        label: the label's column, a name or a number.
        text_pair: the second text's column, a name or a number; null for one text an example.
        max_length: tokens of a text or a pair, special ones included.
        batch_size: texts a batch, over all devices.
        split: how absent splits are carved.
        subset: what part of a split is used.
        sampling: how training texts are drawn.
        augment: random change of training texts, of a pair each by itself.
        normalise: change of all texts, once.
        classes: raw label -> class name, to rename or merge; every raw label must be named.
        task: what is predicted.
        workers: processes that load; 0 loads in the main process.
        bucketing: train on batches of texts of like length (before `augment`), which saves padding;
            `ftlab.data.bucketing` says what stays random.
        encoding: of the text in the sources, for instance cp1252 or utf-16; null for UTF-8.
        tests: sources of further test sets by name; their metrics are `test.NAME/...`.
        beside: further examples that training batches bring along, by name.
        columns: what else is known of each example, by name (`group`, `domain`, `client`, `cluster`): a
            table's column, or a pattern of the example's id whose group is the value.
    """

    pipeline = "text-classification"
    labelled = "text"

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        test: str | None = None,
        text: str | int = "text",
        label: str | int = "label",
        text_pair: str | int | None = None,
        max_length: int = 128,
        batch_size: int = 32,
        # B008: these defaults are the schema, and are frozen, stateless or copied
        split: Split = Split(),
        subset: Subset = Subset(),
        sampling: Sampling = Natural(),
        augment: TextAugment | None = None,
        normalise: TextNormalisation | None = None,
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
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}")
        self.text = text
        self.label = label
        self.text_pair = text_pair
        self.max_length = max_length
        self.augment = augment
        self.normalise = normalise
        self._preprocessing: TextPreprocessing | None = None
        self._tokens: dict[SplitName, Sequence[Sequence[int]]] = {}
        self._types: dict[SplitName, Sequence[Sequence[int]]] = {}

    def own_splits(self, source: str) -> Sequence[SplitName]:
        return own_splits(source)

    def read(self, split: SplitName, source: str) -> Examples:
        examples, notes = read(source, split, "text", self.text, self.label, self.text_pair)
        self.note(*notes)
        return examples

    def read_new(self, source: str, split: SplitName = "test") -> Examples:
        return read_new(source, "text", self.text, self.label, self.text_pair, split=split)

    @property
    def read_by(self) -> Column:
        return self.text

    def prepare(self, split: SplitName, examples: Examples) -> list[bytes]:
        if self.normalise is not None:
            change = self.normalise
            examples.inputs = [change(text) if isinstance(text, str) else tuple(map(change, text))
                               for text in examples.inputs]
        return [hashlib.sha256((text if isinstance(text, str) else json.dumps(text)).encode())
                .digest() for text in examples.inputs]

    def connect(self, backbone: Backbone, seed: int) -> None:
        """Tokenise all splits.

        Raises:
            Incompatible: the backbone reads no texts, or no pairs of them.
            InputError: `max_length` is above what the backbone can read.
        """
        preprocessing = text_reader(backbone, self, max_length=self.max_length)
        if self.text_pair is not None and (
                preprocessing.pairs is None or not preprocessing.pairs.separates):
            raise Incompatible(
                f"text_pair: the tokenizer of {type(backbone).__name__} puts nothing between two "
                "texts", "choose an encoder, or write both into one column with words between")
        self.load()
        self._seed = seed
        if preprocessing != self._preprocessing:
            self._preprocessing = preprocessing
            self._tokenise(preprocessing)

    def _tokenise(self, preprocessing: TextPreprocessing) -> None:
        cache = TokenCache(self, preprocessing)
        self._types = {}
        for split in self.splits:
            texts = self.splits[split].inputs
            encoded = cache.encoded if self.text_pair is None else cache.encoded_pairs
            columns, cut = encoded(texts, self.max_length)
            cache.check(split, columns["ids"])
            self._tokens[split] = columns["ids"]
            if self.token_types:
                self._types[split] = columns["types"]
            if cut and split == "train":
                self.note(f"{100 * cut / len(texts):.1f}% of training texts were cut at "
                          f"{self.max_length} tokens")

    def dataset(self, split: SplitName, training: bool) -> SplitDataset:
        targets = self.splits[split].targets
        if training and self.augment is not None:
            return _Augmented(self.splits[split].inputs, targets, self.seed, self.augment,
                              _Encode(self.preprocessing, self.max_length))
        return _Tokenised(self._tokens[split], targets, self.seed, self._types.get(split))

    def collate(self, training: bool) -> Collate:
        pairs = self.preprocessing.pairs
        pad = pairs.pad if pairs and self.token_types else self.preprocessing.pad
        return Collate(pad, self.task.stack)

    def lengths(self, split: SplitName) -> Sequence[int]:
        return lengths(self._tokens[split])

    def export_code(self, preprocessing: Preprocessing, model: TaskModel) -> PlainExamples | None:
        if self.task.output_type != "vector" or self.task.export_code() is None:
            return None
        notes = [] if self.normalise is None else [
            f"Texts were changed first by {type(self.normalise).__name__}({vars(self.normalise)}), "
            + "which the lines above leave to you."]
        prepare, takes, column = ((_PREPARE, "texts", "text") if self.text_pair is None else
                                  (_PREPARE_PAIRS, "pairs", "pair"))
        code = prepare.format(length=self.max_length, types=self.token_types)
        code += _PREDICT.format(takes=takes, size=AT_ONCE, width=self.task.outputs)
        return PlainExamples(with_tokenizer(code), takes, column, self.max_length, self.max_length,
                             notes=notes)

    @property
    def token_types(self) -> bool:
        """Return whether the connected backbone reads which text of a pair a token belongs to."""
        pairs = self.preprocessing.pairs
        return self.text_pair is not None and pairs is not None and pairs.types

    @property
    def preprocessing(self) -> TextPreprocessing:
        """The connected backbone's preprocessing."""
        if self._preprocessing is None:
            raise RuntimeError("the loaders need `connect` with a backbone first")
        return self._preprocessing


class _Tokenised(SplitDataset):
    """Token ids, with `types` pairs of ids and types."""

    def __init__(self, tokens: Sequence[Sequence[int]], targets: Sequence[Any], seed: int,
                 types: Sequence[Sequence[int]] | None) -> None:
        super().__init__(targets, seed)
        self.tokens = tokens
        self.types = types

    def input(self, index: int) -> Any:
        return self.tokens[index] if self.types is None else (self.tokens[index], self.types[index])


@dataclass(frozen=True)
class _Encode:
    """One text or pair, as `_Tokenised` has it."""

    preprocessing: TextPreprocessing
    max_length: int

    def __call__(self, text: str | tuple[str, str]) -> Any:
        if isinstance(text, str):
            return self.preprocessing.encode([text], self.max_length)[0][0]
        pairs = self.preprocessing.pairs
        assert pairs is not None  # `connect` has refused
        ids, types, _ = pairs.encode([text], self.max_length)
        return (ids[0], types[0]) if pairs.types else ids[0]


class _Augmented(SplitDataset):
    """Texts that are changed anew each epoch, so tokenised on access."""

    def __init__(self, texts: Sequence[Any], targets: Sequence[Any], seed: int,
                 augment: TextAugment, encode: Callable[[Any], Any]) -> None:
        super().__init__(targets, seed)
        self.texts = texts
        self.augment = augment
        self.encode = encode

    def input(self, index: int) -> Any:
        text = self.texts[index]
        if isinstance(text, str):
            return self.encode(self.augment(text, self.seed, self.epoch, index))
        return self.encode(tuple(self.augment(part, self.seed, self.epoch, index, place)
                                 for place, part in enumerate(text)))
