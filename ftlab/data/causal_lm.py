"""Prompts with responses, or plain texts, for language models."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ftlab.backbones.base import Backbone
from ftlab.backbones.export_code import PlainExamples
from ftlab.backbones.preprocessing import Preprocessing, TextPreprocessing
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.batches import Collate, ExampleRow, SplitDataset
from ftlab.data.causal_export_snippets import answering, notes_of
from ftlab.data.causal_tokens import Pairs, chunks_of, conversations_of, pairs_of
from ftlab.data.check_backbone import text_reader
from ftlab.data.conversations import (
    conversation_column,
    read_conversations,
    read_new_conversations,
)
from ftlab.data.examples import Examples, SplitName, Stream, sources
from ftlab.data.prompt_templates import Template, read_cells
from ftlab.data.ragged import TextTargets, lengths
from ftlab.data.sampling import Natural
from ftlab.data.sequence_packing import ChatCollate, PackedCollate
from ftlab.data.sources import columns_of, own_splits
from ftlab.data.splits import Split, Subset
from ftlab.data.tables import Column
from ftlab.data.token_cache import TokenCache
from ftlab.errors import Incompatible, InputError
from ftlab.statistics.clusters import CLUSTER
from ftlab.tasks.language_modelling import LanguageModelling
from ftlab.tasks.spelling import renamed


class CausalLM(DataModule):
    """Prompts and the responses to write behind them; or, without a prompt, plain texts.

    A source is a .csv, .tsv, .jsonl or .parquet file, `package:NAME/PATH` for such a file within
    an installed package, or `hf:NAME[:CONFIG[:SPLIT]]`. `prompt` and `response` are templates
    over its columns; in a file without header these are numbers, as in
    `{prompt: "Review: {0} Sentiment:", response: " {1}"}`.

    A response ends with the tokenizer's end token. A prompt that is too long is cut from its
    left, and `notes` says how many were; a response is never cut. Plain texts are `response`
    alone (`prompt: null`), from a table, or from a .txt or .md file or a folder of these, whose
    paragraphs are texts. They start behind the tokenizer's first token; one that is too long
    becomes several examples that overlap in one token, so that each token is predicted once.

    Conversations are a column of `messages`, lists of {role, content}, which the tokenizer's own
    chat template writes. All turns of the assistant are learned, and nothing else; answers are
    generated for the last one, given all before it. Messages of tools are left out. A conversation
    that is too long loses its oldest turns.

    Evaluation measures the responses alone, whatever training learns.

    Args:
        train: source of the training examples.
        validation: source; carved from train when absent.
        test: source; carved from train when absent.
        prompt: template of the prompt; null for plain text.
        response: template of the response, or of the plain text.
        classes: cell -> text, to rename what the response's columns hold; every cell must be
            named.
        messages: column of conversations, in place of prompt and response; null for these.
        chat: put the prompt into the tokenizer's chat template, as a user's turn.
        completion_only: learn the response alone, not the prompt.
        max_length: tokens of prompt and response together.
        packing: train on several examples a row, with the same results.
        batch_size: examples a batch, over all devices.
        split: how absent splits are carved.
        subset: what part of a split is used.
        task: loss, generation and metrics.
        workers: processes that load; 0 loads in the main process.
        bucketing: train on batches of examples of like length, which saves padding where `packing`
            does not; `ftlab.data.bucketing` says what stays random.
        encoding: of the text in the sources, for instance cp1252 or utf-16; null for UTF-8.
        tests: sources of further test sets by name; their metrics are `test.NAME/...`.
        beside: further examples that training batches bring along, by name.
        columns: what else is known of each example, by name (`group`, `domain`, `client`, `cluster`): a
            table's column, or a pattern of the example's id whose group is the value.
    """

    pipeline = "text-generation"
    task: LanguageModelling

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        test: str | None = None,
        prompt: str | None = "{prompt}",
        response: str = "{response}",
        classes: dict[str, str] | None = None,
        messages: str | int | None = None,
        chat: bool = False,
        completion_only: bool = True,
        max_length: int = 256,
        packing: bool = False,
        batch_size: int = 16,
        # B008: these defaults are the schema, and are frozen, stateless or copied
        split: Split = Split(),
        subset: Subset = Subset(),
        task: LanguageModelling = LanguageModelling(),
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
        if max_length < 2:
            raise ValueError(f"max_length must be at least 2, got {max_length}")
        if chat and prompt is None:
            raise ValueError("chat must be false for plain text (prompt: null), got true")
        if {*(columns or {})} - {CLUSTER} and prompt is None and messages is None:
            raise ValueError(f"columns must be {{{CLUSTER}: COLUMN}} or left out for plain text (prompt: "
                             f"null), whose pieces train joined to those of other texts, got {columns}")
        if messages is not None and (prompt, response, classes, chat) != (
                "{prompt}", "{response}", None, False):
            raise ValueError("messages has prompts and responses in it: prompt, response, classes "
                             f"and chat must not be given with it, got messages: {messages!r}")
        self.messages = messages
        self.prompt = None if prompt is None else Template(prompt, "prompt")
        self.response = Template(response, "response")
        self.renamed = classes
        self.chat = chat
        self.completion_only = completion_only
        self.max_length = max_length
        self.packs = packing
        self._preprocessing: TextPreprocessing | None = None
        self._texts: dict[SplitName, Examples] = {}
        self._pairs: dict[SplitName, Pairs] = {}

    def own_splits(self, source: str) -> Sequence[SplitName]:
        return own_splits(source)

    def read(self, split: SplitName, source: str) -> Examples:
        if self.messages is not None:
            examples, notes = read_conversations(source, split, self.messages)
            self.note(*notes)
            return examples
        columns = [*(self.prompt.columns if self.prompt else ()), *self.response.columns]
        try:
            ids, cells, notes = read_cells(source, split, columns)
        except InputError as error:
            if (chats := conversation_column(source)) is None:
                raise
            raise InputError(error.what, f"{error.mend}; {chats!r} has conversations: set "
                             f"messages: {chats} in place of prompt and response") from error
        self.note(*notes)
        responses = [self._response(row, f"{source}, {place}")
                     for row, place in zip(cells, ids, strict=True)]
        if self.prompt is None:
            return Examples(ids, responses, [None] * len(ids))
        return Examples(ids, [self.prompt.fill(row) for row in cells], responses)

    def read_new(self, source: str, split: SplitName = "test") -> Examples:
        """Prompts, and the responses of those rows that have whole ones."""
        if self.messages is not None:
            return read_new_conversations(source, self.messages, split)
        if self.prompt is None:
            return self.read(split, source)
        asked, answers = self.prompt.columns, self.response.columns
        ids, cells, notes = read_cells(source, split, [*asked, *answers], set(answers) - set(asked))
        labels = [self._response(row, f"{source}, {place}") if row.keys() >= set(answers) else None
                  for row, place in zip(cells, ids, strict=True)]
        return Examples(ids, [self.prompt.fill(row) for row in cells], labels,
                        columns=columns_of(source, isinstance(asked[0], int), split), notes=notes)

    def _response(self, row: Mapping[Column, str], place: str) -> str:
        return self.response.fill(row if self.renamed is None else {
            column: renamed(row[column], self.renamed, place) for column in self.response.columns})

    @property
    def read_by(self) -> Column | None:
        return self.messages if self.prompt is None or self.messages is not None else self.prompt.columns[0]

    def prepare(self, split: SplitName, examples: Examples) -> list[bytes]:
        return [hashlib.sha256((text if isinstance(text, str) else json.dumps(text)).encode())
                .digest() for text in examples.inputs]

    def connect(self, backbone: Backbone, seed: int) -> None:
        """Tokenise all splits.

        Raises:
            Incompatible: the backbone reads no texts, or has no chat template.
            InputError: `max_length` is above what the backbone reads, or a response is.
        """
        preprocessing = text_reader(backbone, self, max_length=self.max_length)
        self.load()
        self._texts = self._texts or dict(self.splits)
        self._seed = seed
        if preprocessing != self._preprocessing:
            self._preprocessing = preprocessing
            cache = TokenCache(self, preprocessing)
            for split in self.splits:
                self._tokenise(split, cache)

    def _tokenise(self, split: SplitName, cache: TokenCache) -> None:
        examples = self._texts[split]
        if self.prompt is None:
            self.splits[split], pairs = chunks_of(examples, cache, self.max_length)
            self._keep(split, pairs, cache)
            return
        pairs, notes = self._pairs_of(examples, split, cache)
        self.note(*notes)
        self._keep(split, pairs, cache)
        bound = self.task.max_new_tokens  # the end token is none of the text
        if longer := sum(length - 1 > bound for length in lengths(pairs.responses)):
            self.note(f"{longer} of {len(examples)} {split} responses have more tokens than "
                      f"max_new_tokens {bound}, so that no generated text can match them")
        if without := self.task.unanswerable(examples.targets):
            self.note(f"{without} of {len(examples)} {split} responses have no number where "
                      f"final_number: {self.task.final_number} looks for it; answers to them "
                      "count as wrong")

    def _pairs_of(self, examples: Examples, split: SplitName,
                  cache: TokenCache) -> tuple[Pairs, list[str]]:
        where = f"{split} split of {self.sources[split] or self.sources['train']}"
        if self.messages is not None:
            return conversations_of(examples, cache, self.max_length, where)
        pairs, cut = pairs_of(examples, cache, self.max_length, self.chat, where)
        note = (f"{cut} of {len(examples)} {split} prompts were cut from the left, at "
                f"{self.max_length} tokens with their responses")
        return pairs, [note] if cut else []

    def _keep(self, split: SplitName, pairs: Pairs, cache: TokenCache) -> None:
        cache.check(split, pairs.prompts, pairs.responses)
        self._pairs[split] = pairs

    def dataset(self, split: SplitName, training: bool) -> SplitDataset:
        return _Pairs(self._pairs[split], self.seed)

    def collate(self, training: bool) -> Callable[[Sequence[ExampleRow]], dict[str, Any]]:
        if self._preprocessing is None:
            raise RuntimeError("the loaders need `connect` with a backbone first")
        if training and (self.packs or not self.completion_only):
            return PackedCollate(self.max_length, self._preprocessing.tokenizer.pad_token_id,
                                 self.packs, not self.completion_only)
        if self.messages is not None:
            return ChatCollate(self._preprocessing.tokenizer.pad_token_id)
        return Collate(self._preprocessing.pad, self.task.stack)

    def export_code(self, preprocessing: Preprocessing, model: TaskModel) -> PlainExamples | None:
        if self.prompt is None or not isinstance(preprocessing, TextPreprocessing):
            return None
        turns = ("conversations" if self.messages is not None else
                 "prompts" if self.chat else "")
        room, longest = self._room(), self.task.max_new_tokens
        return PlainExamples(
            answering(preprocessing.tokenizer, model, turns, room, longest), "prompts", "prompt",
            cut_at=room, cut_from="left",
            notes=notes_of(model, turns, self.prompt.text, room, longest))

    def _room(self) -> int:
        """Tokens of a prompt behind which no response is known (`stand_ins`)."""
        labels, responses = self._texts["train"].labels, self._pairs["train"].responses
        least = min(range(len(labels)), key=lambda place: len(str(labels[place])))
        return self.max_length - len(responses[least])

    def unlabelled(self, places: Sequence[int]) -> list[ExampleRow] | None:
        if self.prompt is None or self._preprocessing is None:
            return None
        examples = self._texts["test"].take(places)
        examples.targets = [self.task.encode(label, "train") for label in self.stand_ins(examples)]
        pairs, _ = self._pairs_of(examples, "test", TokenCache(self, self._preprocessing))
        rows = _Pairs(pairs, self.seed)
        return [rows[number]._replace(position=place) for number, place in enumerate(places)]

    def check_predicts(self) -> None:
        if self.prompt is None:
            raise Incompatible("the run models plain texts, and predicts no answers",
                               "predict with a run that has prompts")

    def lengths(self, split: SplitName) -> Sequence[int]:
        pairs = self._pairs[split]
        return list(map(operator.add, lengths(pairs.prompts), lengths(pairs.responses)))


class _Pairs(SplitDataset):
    def __init__(self, pairs: Pairs, seed: int) -> None:
        super().__init__(TextTargets(pairs.responses, pairs.texts, learned=pairs.learned), seed)
        self.prompts = pairs.prompts

    def input(self, index: int) -> Sequence[int]:
        return self.prompts[index]
