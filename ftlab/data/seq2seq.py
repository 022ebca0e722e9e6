"""Tables of source and target texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from ftlab.backbones.base import Backbone
from ftlab.backbones.export_code import PlainExamples
from ftlab.backbones.preprocessing import Preprocessing, TextPreprocessing
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.batches import Collate, SplitDataset
from ftlab.data.check_backbone import text_reader
from ftlab.data.examples import Examples, SplitName, Stream, sources
from ftlab.data.export_snippets import with_tokenizer
from ftlab.data.ragged import TextTargets, lengths
from ftlab.data.sampling import Natural
from ftlab.data.sources import own_splits, read, read_new
from ftlab.data.splits import Split, Subset
from ftlab.data.tables import Column
from ftlab.data.token_cache import TokenCache, Tokenised
from ftlab.tasks.sequence_to_sequence import SequenceToSequence

_PREDICT = """
def predict(texts):  # what the model writes for each
    written = []
    for text in texts:
        inputs = tokenizer([{prefix!r} + text], truncation=True, max_length={length},
                           return_token_type_ids=False, return_tensors="pt")
        with torch.no_grad():
            tokens = model.generate(**inputs, max_new_tokens={longest}, do_sample=False,
                                    num_beams=1)
        written.append(tokenizer.decode(tokens[0], skip_special_tokens=True,
                                        clean_up_tokenization_spaces=False))
    return written
"""


class Seq2Seq(DataModule):
    """Pairs of a source text and the target text to write for it.

    A source of examples is a .csv, .tsv, .jsonl or .parquet file, `package:NAME/PATH` for such a
    file within an installed package, or `hf:NAME[:CONFIG[:SPLIT]]`. Texts that are too long are
    cut, and `notes` says how many of each split. A target that is cut loses its end token, so
    that nothing learns to stop there; metrics always read the whole target.

    Args:
        train: source of the training examples.
        validation: source; carved from train when absent.
        test: source; carved from train when absent.
        source: the source text's column: a name, or a number (from 0) in a file without header.
        target: the target text's column, a name or a number.
        prefix: put before every source text, for instance "translate English to German: ".
        max_source_length: tokens of a source, prefix and special tokens included.
        max_target_length: tokens of a target, its end token included.
        batch_size: pairs a batch, over all devices.
        split: how absent splits are carved.
        subset: what part of a split is used.
        task: loss, generation and metrics.
        workers: processes that load; 0 loads in the main process.
        bucketing: train on batches of sources of like length, which saves padding;
            `ftlab.data.bucketing` says what stays random.
        encoding: of the text in the sources, for instance cp1252 or utf-16; null for UTF-8.
        tests: sources of further test sets by name; their metrics are `test.NAME/...`.
        beside: further examples that training batches bring along, by name.
        columns: what else is known of each example, by name (`group`, `domain`, `client`, `cluster`): a
            table's column, or a pattern of the example's id whose group is the value.
    """

    task: SequenceToSequence

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        test: str | None = None,
        source: str | int = "source",
        target: str | int = "target",
        prefix: str = "",
        max_source_length: int = 256,
        max_target_length: int = 64,
        batch_size: int = 16,
        split: Split = Split(),
        subset: Subset = Subset(),
        task: SequenceToSequence = SequenceToSequence(),
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
        for name, value in (("max_source_length", max_source_length),
                            ("max_target_length", max_target_length)):
            if value < 2:
                raise ValueError(f"{name} must be at least 2, got {value}")
        self.source = source
        self.target = target
        self.prefix = prefix
        self.max_source_length = max_source_length
        self.max_target_length = max_target_length
        self._preprocessing: TextPreprocessing | None = None
        self._sources: dict[SplitName, Sequence[Sequence[int]]] = {}
        self._targets: dict[SplitName, TextTargets] = {}

    def own_splits(self, source: str) -> Sequence[SplitName]:
        return own_splits(source)

    def read(self, split: SplitName, source: str) -> Examples:
        examples, notes = read(source, split, "text", self.source, self.target,
                               called=("source", "target"))
        self.note(*notes)
        return examples

    def read_new(self, source: str, split: SplitName = "test") -> Examples:
        return read_new(source, "text", self.source, self.target, called="source", split=split)

    @property
    def read_by(self) -> Column:
        return self.source

    def prepare(self, split: SplitName, examples: Examples) -> list[bytes]:
        return [hashlib.sha256(text.encode()).digest() for text in examples.inputs]

    def connect(self, backbone: Backbone, seed: int) -> None:
        """Tokenise all splits.

        Raises:
            Incompatible: the backbone reads no texts.
            InputError: a length is above what the backbone can read or write.
        """
        preprocessing = text_reader(backbone, self, "choose an encoder-decoder for text as the "
                                    "backbone", max_source_length=self.max_source_length,
                                    max_target_length=self.max_target_length)
        self.load()
        self._seed = seed
        if preprocessing != self._preprocessing:
            self._preprocessing = preprocessing
            cache = TokenCache(self, preprocessing)
            for split in self.splits:
                self._tokenise(split, cache)

    def _tokenise(self, split: SplitName, cache: TokenCache) -> None:
        examples = self.splits[split]
        texts = [self.prefix + text for text in examples.inputs]
        columns, cut = cache.encoded(texts, self.max_source_length)
        cache.check(split, columns["ids"])
        self._sources[split] = columns["ids"]
        self._note_cut(cut, split, "sources", f"at max_source_length {self.max_source_length}")
        targets = cache.made(_targets, examples.targets).columns["ids"]
        cache.check(split, targets)
        limit, bound = self.max_target_length, self.task.max_new_tokens
        self._note_cut(sum(length > limit for length in lengths(targets)), split, "targets",
                       f"at max_target_length {limit}, and lost their end token")
        end = cache.tokenizer.eos_token_id
        # the end is none of the text
        whole = [len(ids) - (list(ids[-1:]) == [end]) for ids in targets]
        if split != "train" and (longer := sum(length > bound for length in whole)):
            self.note(f"{longer} of {len(targets)} {split} targets have more tokens than "
                      f"max_new_tokens {bound}, so that no generated text can match them")
        self._targets[split] = TextTargets(targets, examples.targets, limit)

    def _note_cut(self, count: int, split: SplitName, what: str, how: str) -> None:
        if count:
            self.note(f"{count} of {len(self.splits[split])} {split} {what} were cut {how}")

    def dataset(self, split: SplitName, training: bool) -> SplitDataset:
        return _Pairs(self._sources[split], self._targets[split], self.seed)

    def collate(self, training: bool) -> Collate:
        if self._preprocessing is None:
            raise RuntimeError("the loaders need `connect` with a backbone first")
        return Collate(self._preprocessing.pad, self.task.stack)

    def export_code(self, preprocessing: Preprocessing, model: TaskModel) -> PlainExamples | None:
        code = _PREDICT.format(prefix=self.prefix, length=self.max_source_length,
                               longest=self.task.max_new_tokens)
        return PlainExamples(with_tokenizer(code), "texts", "text", cut_at=self.max_source_length)

    def lengths(self, split: SplitName) -> Sequence[int]:
        return lengths(self._sources[split])


class _Pairs(SplitDataset):
    def __init__(self, sources: Sequence[Sequence[int]], targets: Sequence[Any],
                 seed: int) -> None:
        super().__init__(targets, seed)
        self.sources = sources

    def input(self, index: int) -> Sequence[int]:
        return self.sources[index]


def _targets(tokenizer: Any, texts: Sequence[str]) -> Tokenised:
    return Tokenised({"ids": encode_targets(tokenizer, texts)})


def encode_targets(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of targets as their tokenizer writes them, each with an end token.

    Args:
        tokenizer: transformers' own; one that adds no end token gets it added here.
        texts: whole; nothing is cut.
    """
    if not texts:
        return []
    encoded = tokenizer(text_target=list(texts), verbose=False)["input_ids"]
    end = tokenizer.eos_token_id
    return [[*ids, end] if end is not None and end not in ids else list(ids) for ids in encoded]
