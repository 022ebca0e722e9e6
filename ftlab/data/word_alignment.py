"""Which token of a sentence begins which word, and so where the words' tags belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ftlab.backbones.task_model import IGNORED
from ftlab.data.ragged import LazySequence
from ftlab.data.token_cache import Tokenised


@dataclass(frozen=True)
class AlignedSentence:
    """One sentence in tokens.

    Attributes:
        tokens: ids, special ones included.
        labels: at the first token of a word its tag, elsewhere -100.
        words: at the first token of a word its position in the sentence, elsewhere -100.
        tags: of all words, those that were cut too.
    """

    tokens: Sequence[int]
    labels: list[int]
    words: Sequence[int]
    tags: list[int]


class Alignment(LazySequence[AlignedSentence]):
    """Sentences in tokens, with tags at the first token of each word.

    Args:
        made: by `in_tokens`.
        tags: one a word, of each sentence.
    """

    def __init__(self, made: Tokenised, tags: Sequence[list[int]]) -> None:
        self.tokens, self.words, self.covered = (
            made.columns[name] for name in ("tokens", "words", "found"))
        self.tags = tags

    def __len__(self) -> int:
        return len(self.tags)

    def row(self, index: int) -> AlignedSentence:
        words, tags = self.words[index], self.tags[index]
        labels = [tags[word] if word >= 0 else IGNORED for word in words]
        return AlignedSentence(self.tokens[index], labels, words, tags)

    def lost(self) -> list[int]:
        """How many words of each sentence have no token."""
        return [len(tags) - covered
                for tags, (covered,) in zip(self.tags, self.covered, strict=True)]


def in_tokens(tokenizer: Any, sentences: Sequence[list[str]], max_length: int) -> Tokenised:
    """`tokens` and `words` of each sentence as in `AlignedSentence`; in `found` how many words are there.

    Args:
        tokenizer: transformers' fast one.
        sentences: words of each.
        max_length: tokens of a sentence, special ones included.
    """
    if not sentences:
        return Tokenised({"tokens": [], "words": [], "found": []})
    if "ByteLevel" in str(tokenizer.backend_tokenizer.pre_tokenizer):
        # GPT-2 and RoBERTa have words with the space before them; without, "dog" is a suffix
        sentences = [[f" {word}" for word in words] for words in sentences]
    encoded = tokenizer(list(sentences), is_split_into_words=True, truncation=True,
                        max_length=max_length)
    words = [_begun(encoding.word_ids) for encoding in encoded.encodings]
    covered = [[sum(word >= 0 for word in row)] for row in words]
    return Tokenised({"tokens": encoded["input_ids"], "words": words, "found": covered})


def _begun(owners: Sequence[int | None]) -> list[int]:
    """The word that each token is the first of."""
    return [IGNORED if word is None or (i > 0 and owners[i - 1] == word) else word
            for i, word in enumerate(owners)]
