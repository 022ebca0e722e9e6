"""Texts with masked tokens, for pre-training on the texts of a domain or of a task."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftlab.backbones.base import Backbone
from ftlab.backbones.heads.masked import spelled
from ftlab.backbones.preprocessing import TextPreprocessing
from ftlab.backbones.source import resolve_path
from ftlab.data import hub
from ftlab.data.base import DataModule
from ftlab.data.batches import Collate, ExampleRow, SplitDataset
from ftlab.data.check_backbone import text_reader
from ftlab.data.examples import Examples, SplitName, Stream, sources
from ftlab.data.prompt_templates import TEXT_FILES, read_cells
from ftlab.data.ragged import lengths
from ftlab.data.sampling import Natural
from ftlab.data.sources import own_splits, read_inputs
from ftlab.data.splits import Split, Subset
from ftlab.data.tables import Column
from ftlab.data.token_cache import TokenCache
from ftlab.data.token_masking import Masking, pieces
from ftlab.errors import Incompatible, InputError
from ftlab.tasks.masked_language import MaskedLanguage


class MaskedLM(DataModule):
    """Texts of which some tokens are masked, to be named: pre-training goes on with them.

    A source is a .csv, .tsv, .jsonl or .parquet file; a .txt or .md file, whose paragraphs are
    texts; a folder of text files or of folders of them, each file a text; `package:NAME/PATH` for
    these within an installed package; or `hf:NAME[:CONFIG[:SPLIT]]`. Labels are not learned. They
    only stratify the splits that are carved, where each is of two texts at least, so that with the
    source, `label`, `split` and `subset` of a `TextClassification` the training texts are the same,
    and none of its test texts is seen. A text that is too long becomes several examples.

    As a stage it is domain-adaptive pre-training on a corpus of the domain, or task-adaptive
    pre-training on the training texts of the task itself:
    Gururangan et al. (2020), https://arxiv.org/abs/2004.10964

    Args:
        train: source of the training texts.
        validation: source; carved from train when absent.
        test: source; carved from train when absent.
        text: the text's column: a name, or a number (from 0) in a file without header.
        label: column of classes, which tables may lack: a name or a number; null for no strata,
            as of regression.
        max_length: tokens of an example, special ones included.
        masking: which tokens are to be named.
        batch_size: examples a batch, over all devices.
        split: how absent splits are carved.
        subset: what part of a split is used.
        task: loss and metrics.
        workers: processes that load; 0 loads in the main process.
        bucketing: train on batches of like length, which saves padding.
        encoding: of the text in the sources, for instance cp1252 or utf-16; null for UTF-8.
        tests: sources of further test sets by name; their metrics are `test.NAME/...`.
        beside: further examples that training batches bring along, by name.
        columns: what else is known of each example, by name (`group`, `domain`, `client`, `cluster`): a
            table's column, or a pattern of the example's id whose group is the value.
    """

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        test: str | None = None,
        text: str | int = "text",
        label: str | int | None = "label",
        max_length: int = 128,
        # B008: these defaults are the schema, and are frozen, stateless or copied
        masking: Masking = Masking(),
        batch_size: int = 32,
        split: Split = Split(),
        subset: Subset = Subset(),
        task: MaskedLanguage = MaskedLanguage(),
        workers: int = 0,
        bucketing: bool = True,
        encoding: str | None = None,
        tests: dict[str, str] | None = None,
        beside: dict[str, Stream | str] | None = None,
        columns: dict[str, str | int] | None = None,
    ) -> None:
        super().__init__(sources(train, validation, test, tests, beside), task, batch_size, split, subset,
                         Natural(), None, workers, bucketing, encoding, beside, columns)
        if max_length < 4:
            raise ValueError(f"max_length must be at least 4, got {max_length}")
        self.text = text
        self.label = label
        self.max_length = max_length
        self.augment = masking
        self._preprocessing: TextPreprocessing | None = None
        self._texts: dict[SplitName, Examples] = {}
        self._tokens: dict[SplitName, Sequence[Sequence[int]]] = {}
        self._special = np.zeros(0, dtype=bool)

    def own_splits(self, source: str) -> Sequence[SplitName]:
        return own_splits(source)

    def read(self, split: SplitName, source: str) -> Examples:
        if not source.startswith(hub.PREFIX) and resolve_path(source).suffix.lower() in TEXT_FILES:
            ids, cells, notes = read_cells(source, split, ["text"])
            self.note(*notes)
            return Examples(ids, [row["text"] for row in cells], [None] * len(ids))
        examples = read_inputs(source, split, "text", self.text, self.label)
        self.note(*examples.notes)
        return examples

    @property
    def read_by(self) -> Column:
        return self.text

    def prepare(self, split: SplitName, examples: Examples) -> list[bytes]:
        return [hashlib.sha256(text.encode()).digest() for text in examples.inputs]

    def connect(self, backbone: Backbone, seed: int) -> None:
        """Tokenise all splits.

        Raises:
            Incompatible: the backbone reads no texts, or its tokenizer has no mask token.
            InputError: `max_length` is above what the backbone reads, or no text has a token.
        """
        preprocessing = text_reader(backbone, self, max_length=self.max_length)
        if preprocessing.tokenizer.mask_token_id is None:
            raise Incompatible(f"MaskedLM needs a mask token, and the tokenizer of "
                               f"{type(backbone).__name__} has none",
                               "choose an encoder (BERT, RoBERTa) as the backbone")
        self.load()
        self._texts = self._texts or dict(self.splits)
        self._seed = seed
        if preprocessing != self._preprocessing:
            self._preprocessing = preprocessing
            self._special = _special(preprocessing)
            cache = TokenCache(self, preprocessing)
            for split in self.splits:
                self._tokenise(split, cache)

    def _tokenise(self, split: SplitName, cache: TokenCache) -> None:
        texts = self._texts[split]
        columns = cache.made(pieces, texts.inputs, self.max_length).columns
        self._special[columns["around"][0]] = True
        rows = [(row, owner) for row, (owner,) in zip(columns["ids"], columns["owners"], strict=True)
                if not self._special[row].all()]
        if not rows:
            raise InputError(f"{split} split of {self.sources[split] or self.sources['train']}: the "
                             "tokenizer knows no word of its texts",
                             "choose a backbone that was trained on texts of this kind")
        if lost := len(texts) - len({owner for _, owner in rows}):
            self.note(f"{lost} of {len(texts)} {split} texts are left out: the tokenizer knows no word of them")
        self._tokens[split] = [row for row, _ in rows]
        cache.check(split, self._tokens[split])
        self.splits[split] = texts.take([owner for _, owner in rows])
        counts, seen = Counter(owner for _, owner in rows), Counter[int]()
        for place, (_, owner) in enumerate(rows):
            seen[owner] += 1
            if counts[owner] > 1:
                self.splits[split].ids[place] += f":{seen[owner]}"

    def dataset(self, split: SplitName, training: bool) -> SplitDataset:
        return _Masked(self._tokens[split], self.seed, self.augment, self._special,
                       self.preprocessing.tokenizer, training)

    def collate(self, training: bool) -> Collate:
        return Collate(_Pad(self.preprocessing), self.task.stack)

    def lengths(self, split: SplitName) -> Sequence[int]:
        return lengths(self._tokens[split])

    @property
    def preprocessing(self) -> TextPreprocessing:
        """The connected backbone's preprocessing."""
        if self._preprocessing is None:
            raise RuntimeError("the loaders need `connect` with a backbone first")
        return self._preprocessing

    def check_predicts(self) -> None:
        raise Incompatible("the run names masked tokens, and predicts nothing of a new text",
                           "predict with a run that was fine-tuned for a task")


def _special(preprocessing: TextPreprocessing) -> np.ndarray[Any, Any]:
    """True for each id of the vocabulary that stands for no part of a text, or has no embedding (V,).

    Raises:
        InputError: the mask token has none.
    """
    tokenizer, vocabulary = preprocessing.tokenizer, preprocessing.vocabulary
    special = np.ones(max(tokenizer.get_vocab().values()) + 1, dtype=bool)
    special[list(tokenizer.get_vocab().values())] = False
    special[tokenizer.all_special_ids] = True
    if vocabulary is not None:
        vocabulary.check([tokenizer.mask_token_id], "mask token")
        special[list(vocabulary.lacking)] = True
    return special


@dataclass(frozen=True)
class _Pad:
    """Rows of token ids and places -> the network's inputs and `places` (B, M), -1 for none."""

    preprocessing: TextPreprocessing

    def __call__(self, rows: Sequence[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
        places = [torch.tensor(row) for _, row in rows]
        return {**self.preprocessing.pad([ids for ids, _ in rows]),
                "places": nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=-1)}


class _Masked(SplitDataset):
    """Masked token ids and places; the target's `labels` are what stood there."""

    def __init__(self, tokens: Sequence[Sequence[int]], seed: int, masking: Masking,
                 special: np.ndarray[Any, Any], tokenizer: Any, training: bool) -> None:
        super().__init__(tokens, seed)
        self.masking = masking
        self.special = special
        self.tokenizer = tokenizer
        self.training = training

    def __getitem__(self, index: int) -> ExampleRow:
        ids = self.targets[index]
        key = (self.seed, self.epoch, index) if self.training else (index,)
        masked, places = self.masking(ids, self.special, self.tokenizer.mask_token_id, *key)
        labels = [ids[place] for place in places]
        text = "" if self.training else spelled(self.tokenizer, labels)
        return ExampleRow((masked, places), {"labels": labels, "text": text}, index, self.epoch)
