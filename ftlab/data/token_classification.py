"""Sentences whose words have a tag each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftlab.backbones.base import Backbone
from ftlab.backbones.export_code import PlainExamples
from ftlab.backbones.preprocessing import Preprocessing, TextPreprocessing
from ftlab.backbones.source import resolve_path
from ftlab.backbones.task_model import IGNORED, TaskModel
from ftlab.data import hub
from ftlab.data.base import DataModule
from ftlab.data.batches import ExampleRow, SplitDataset
from ftlab.data.check_backbone import text_reader
from ftlab.data.conll import Sentence, from_rows, read_conll
from ftlab.data.examples import Examples, SplitName, Stream, sources
from ftlab.data.export_snippets import with_tokenizer
from ftlab.data.ragged import lengths
from ftlab.data.sampling import Natural
from ftlab.data.sources import columns_of
from ftlab.data.splits import Split, Subset
from ftlab.data.tables import Column, read_table
from ftlab.data.token_cache import TokenCache
from ftlab.data.utf8 import note_replaced
from ftlab.data.word_alignment import Alignment, in_tokens
from ftlab.errors import InputError
from ftlab.tasks.class_names import class_name
from ftlab.tasks.spans import first_violation, is_tag, repaired
from ftlab.tasks.tagging import Tagging

_TABLES = (".jsonl", ".parquet")
_PREDICT = """
def predict(sentences):  # lists of words
    found = []
    for words in sentences:
        encoded = tokenizer([{word} for word in words], is_split_into_words=True, truncation=True,
                            max_length={length}, return_token_type_ids=False, return_tensors="pt")
        with torch.no_grad():
            outputs = compute(**encoded)[0]
        first = {{}}
        for place, word in enumerate(encoded.word_ids(0)):
            first.setdefault(word, outputs[place])
        nothing = torch.zeros_like(outputs[0])  # of words that were cut
        found.append(tell(torch.stack([first.get(i, nothing) for i in range(len(words))])))
    return found
"""


class TokenClassification(DataModule):
    """Sentences of words with a tag each, which the model reads from a word's first token.

    A source is a .jsonl or .parquet table with a list of words and a list of tags a row,
    `hf:NAME[:CONFIG[:SPLIT]]` with such columns, or any other file in CoNLL's columns: a word a
    line, a blank line between sentences. Words beyond `max_length` tokens are cut; they count as
    `O` in all metrics, which are over whole sentences, and `notes` says how many.

    Args:
        train: source of the training sentences.
        validation: source; carved from train when absent.
        test: source; carved from train when absent.
        word: column of the words; null for the first column, or `tokens` in a table.
        tag: column of the tags; null for the last column, or `tags` in a table.
        repair: let an `I-` tag that continues nothing begin an entity (which also reads IOB1)
            instead of refusing it; IOB2 only.
        max_length: tokens of a sentence, special ones included.
        batch_size: sentences a batch, over all devices.
        split: how absent splits are carved.
        subset: what part of a split is used.
        task: scheme of the tags, loss and metrics.
        workers: processes that load; 0 loads in the main process.
        bucketing: train on batches of sentences of like length, which saves padding;
            `ftlab.data.bucketing` says what stays random.
        encoding: of the text in the sources, for instance cp1252 or utf-16; null for UTF-8.
        tests: sources of further test sets by name; their metrics are `test.NAME/...`.
        beside: further examples that training batches bring along, by name.
        columns: what else is known of each example, by name (`group`, `domain`, `client`, `cluster`): a
            table's column, or a pattern of the example's id whose group is the value.
    """

    task: Tagging

    pipeline = "token-classification"

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        test: str | None = None,
        word: str | int | None = None,
        tag: str | int | None = None,
        repair: bool = False,
        max_length: int = 128,
        batch_size: int = 16,
        split: Split = Split(),
        subset: Subset = Subset(),
        task: Tagging = Tagging(),
        workers: int = 0,
        bucketing: bool = True,
        encoding: str | None = None,
        tests: dict[str, str] | None = None,
        beside: dict[str, Stream | str] | None = None,
        columns: dict[str, str | int] | None = None,
    ) -> None:
        super().__init__(sources(train, validation, test, tests, beside), task,
                         batch_size, split, subset, Natural(), None, workers, bucketing, encoding,
                         beside, columns)
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}")
        if repair and task.scheme != "IOB2":
            raise ValueError(f"repair is for the scheme IOB2, got {task.scheme}")
        self.word = word
        self.tag = tag
        self.repair = repair
        self.max_length = max_length
        self._preprocessing: TextPreprocessing | None = None
        self._rows: dict[SplitName, Alignment] = {}

    def own_splits(self, source: str) -> Sequence[SplitName]:
        return hub.named_splits(source) if source.startswith(hub.PREFIX) else ()

    def read(self, split: SplitName, source: str) -> Examples:
        return self._tagged(self._sentences(split, source), source)

    def _tagged(self, sentences: list[Sentence], source: str) -> Examples:
        """Sentences whose tags are held to the scheme; without tags where they have none."""
        mended = 0
        for i, sentence in enumerate(sentences):
            tags = self._checked(sentence) if sentence.tags else []
            mended += sum(a != b for a, b in zip(sentence.tags, tags, strict=True))
            sentences[i] = Sentence(sentence.name, sentence.words, tags, sentence.places)
        if mended:
            self.note(f"{mended} I- tags in {source} continued nothing; each begins an entity now")
        return Examples([s.name for s in sentences], [s.words for s in sentences],
                        [s.tags or None for s in sentences])

    def read_new(self, source: str, split: SplitName = "test") -> Examples:
        """Sentences, of which a table's cell or a file's column may lack the tags."""
        examples = self._tagged(self._sentences(split, source, optional=True), source)
        table = source.startswith(hub.PREFIX) or resolve_path(source).suffix.lower() in _TABLES
        examples.columns = columns_of(source, False, split) if table else {"tokens": examples.inputs}
        return examples

    def stand_ins(self, examples: Examples) -> list[Any]:
        return [[self.task.tags[0]] * len(words) for words in examples.inputs]

    def _sentences(self, split: SplitName, source: str,
                   optional: bool = False) -> list[Sentence]:
        words = "tokens" if self.word is None else self.word
        tags = "tags" if self.tag is None else self.tag
        if source.startswith(hub.PREFIX):
            name, rows = hub.read_hub(source, split, (words, tags), (tags,) if optional else ())
            return from_rows(name, source, [(row[0], row[1]) for row in rows], optional)
        path = resolve_path(source)
        if path.suffix.lower() in _TABLES:
            table, replaced = read_table(path, (words, tags), (tags,) if optional else ())
            self.note(*note_replaced(replaced, len(table), "rows", source))
            return from_rows(path.stem, path.name, [(row[0], row[1]) for row in table], optional)
        word, tag = (0 if self.word is None else self.word), (-1 if self.tag is None else self.tag)
        if not path.is_file() or isinstance(word, str) or isinstance(tag, str):
            raise InputError(f"{path}: CoNLL's columns have no names ({word!r}, {tag!r})"
                             if path.is_file() else f"{path} is not a file",
                             f"give numbers from 0, or a table ({', '.join(_TABLES)})")
        sentences, notes = read_conll(path, word, tag, optional)
        self.note(*notes)
        return sentences

    def _checked(self, sentence: Sentence) -> list[str]:
        """The tags, repaired where that is wanted; refused where they are not a sequence."""
        scheme = self.task.scheme
        for tag, place in zip(sentence.tags, sentence.places, strict=True):
            if not is_tag(class_name(tag, f"{place}: the tag"), scheme):
                raise InputError(f"{place}: {tag!r} is no tag of the scheme {scheme}",
                                 "mend the tag, or set the task's scheme: IOB2, IOBES or none")
        tags = repaired(sentence.tags) if self.repair else sentence.tags
        wrong = first_violation(tags, scheme)
        if wrong is not None:
            before = tags[wrong - 1] if wrong else "the beginning"
            after = tags[wrong] if wrong < len(tags) else "the end"
            raise InputError(
                f"{sentence.places[min(wrong, len(tags) - 1)]}: {after} cannot follow {before}",
                "mend the tags" + (", or set repair: true" if scheme == "IOB2" else ""))
        return tags

    @property
    def read_by(self) -> Column:
        return self.word if self.word is not None else "tokens"

    def prepare(self, split: SplitName, examples: Examples) -> list[bytes]:
        return [hashlib.sha256(json.dumps(words).encode()).digest() for words in examples.inputs]

    def connect(self, backbone: Backbone, seed: int) -> None:
        """Tokenise all splits.

        Raises:
            Incompatible: the backbone reads no texts.
            InputError: `max_length` is above what the backbone can read.
        """
        preprocessing = text_reader(backbone, self, max_length=self.max_length)
        self.load()
        self._seed = seed
        if preprocessing != self._preprocessing:
            self._preprocessing = preprocessing
            cache = TokenCache(self, preprocessing)
            for split in self.splits:
                self._align(split, cache)

    def _align(self, split: SplitName, cache: TokenCache) -> None:
        examples = self.splits[split]
        rows = Alignment(cache.made(in_tokens, examples.inputs, self.max_length), examples.targets)
        cache.check(split, rows.tokens)
        self._rows[split] = rows
        lost = rows.lost()
        if any(lost):
            self.note(f"{sum(lost)} words in {sum(n > 0 for n in lost)} of {len(rows)} {split} "
                      f"sentences have no token within max_length {self.max_length}; they count "
                      "as O")

    def dataset(self, split: SplitName, training: bool) -> SplitDataset:
        return _Sentences(self._rows[split], self.seed)

    def collate(self, training: bool) -> Callable[[Sequence[ExampleRow]], dict[str, Any]]:
        if self._preprocessing is None:
            raise RuntimeError("the loaders need `connect` with a backbone first")
        return _Collate(self._preprocessing.pad, self.task.stack)

    def export_code(self, preprocessing: Preprocessing, model: TaskModel) -> PlainExamples | None:
        if self.task.export_code() is None or not isinstance(preprocessing, TextPreprocessing):
            return None
        # these separate words by the space in front
        bytes_ = "ByteLevel" in str(preprocessing.tokenizer.backend_tokenizer.pre_tokenizer)
        code = _PREDICT.format(length=self.max_length, word='" " + word' if bytes_ else "word")
        return PlainExamples(with_tokenizer(code), "sentences", "words", cut_at=self.max_length)

    def lengths(self, split: SplitName) -> Sequence[int]:
        return lengths(self._rows[split].tokens)


class _Sentences(SplitDataset):
    def __init__(self, rows: Alignment, seed: int) -> None:
        super().__init__(rows, seed)
        self.tokens = rows.tokens

    def input(self, index: int) -> Sequence[int]:
        return self.tokens[index]


@dataclass(frozen=True)
class _Collate:
    """Rows -> batch; labels are padded on the side where the tokens are."""

    pad: Callable[[Sequence[Any]], dict[str, Tensor]]
    stack: Callable[[Sequence[Any]], dict[str, Any]]

    def __call__(self, rows: Sequence[ExampleRow]) -> dict[str, Any]:
        inputs = self.pad([row.input for row in rows])
        targets = [
            {"labels": _spread(row.target.labels, mask), "words": _spread(row.target.words, mask),
             "tags": row.target.tags}
            for row, mask in zip(rows, inputs["attention_mask"], strict=True)]
        return {"inputs": inputs, "target": self.stack(targets),
                "index": torch.tensor([row.position for row in rows])}


def _spread(values: Sequence[int], mask: Tensor) -> Tensor:
    spread = torch.full(mask.shape, IGNORED)
    spread[mask.bool()] = torch.tensor(values)
    return spread
