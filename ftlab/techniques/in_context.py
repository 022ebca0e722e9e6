from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch

from ftlab.backbones.preprocessing import TextPreprocessing
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible, InputError
from ftlab.techniques.base import Technique
from ftlab.techniques.label_likelihood import (
    LabelLikelihoods,
    PromptBuilder,
    decode,
    tokenise,
    without_special,
)

TEXT, LABEL = "{text}", "{label}"


class InContext(Technique):
    """Class by how probable a language model finds its label behind the text.

    Brown, Mann, Ryder, Subbiah et al. (2020), https://arxiv.org/abs/2005.14165; calibration:
    Zhao, Wallace, Feng, Klein, Singh (2021), https://arxiv.org/abs/2102.09690.

    The logits are log-likelihoods of the labels' words. Nothing trains: training examples stand
    in the prompt as demonstrations, drawn with the run's seed and in its order, so that the
    spread over seeds is that of the draw. The demonstrations' keys and values are computed once
    a run and count in no latency. A prompt that is too long loses its text's beginning.

    Args:
        template: a text that ends in `{label}`, with `{text}` before it.
        shots: demonstrations of each class.
        labels: class name -> the words that stand for it; a class that is not in it keeps its
            name.
        separator: between demonstrations, and before the text.
        per_token: divide a label's log-likelihood by its number of tokens.
        calibrate: subtract the labels' log-likelihoods for the text `N/A`.
    """

    trains = False
    output_type = "text"

    def __init__(self, template: str = "{text}\nCategory: {label}", shots: int = 0,
                 labels: dict[str, str] | None = None, separator: str = "\n\n",
                 per_token: bool = False, calibrate: bool = False) -> None:
        super().__init__()
        before, _, after = template.partition(TEXT)
        tail, placeholder, rest = after.partition(LABEL)
        if TEXT not in template or not placeholder or rest.strip() or LABEL in before:
            raise ValueError(f"template must have {TEXT} once and end in {LABEL}, got {template!r}")
        if shots < 0:
            raise ValueError(f"shots must not be negative, got {shots}")
        # a space belongs to the token of the word behind it
        self.head, self.tail = before, tail.rstrip(" ")
        self.gap = " " * (len(tail) - len(self.tail))
        self.shots = shots
        self.labels = dict(labels or {})
        self.separator = separator
        self.per_token = per_token
        self.calibrate = calibrate
        self.prompts: PromptBuilder | None = None

    def prepare(self, data: DataModule) -> None:
        classes: list[str] | None = getattr(data.task, "classes", None)
        reads = getattr(data, "preprocessing", None)
        if not isinstance(reads, TextPreprocessing) or classes is None:
            raise Incompatible(f"InContext names one class of several for a text, and "
                               f"{type(data).__name__} with {type(data.task).__name__} does not",
                               "leave it out for this data set")
        if getattr(data, "text_pair", None) is not None:
            raise Incompatible("InContext writes one text into its template, and text_pair gives "
                               "two", "leave it out, or write both into one column")
        for name in self.labels:
            if name not in classes:
                raise InputError(f"InContext: labels has {name!r}, which is no class",
                                 f"the classes are: {', '.join(classes)}")
        words = [self.gap + self.labels.get(name, name) for name in classes]
        tokenizer = reads.tokenizer
        self.prompts = PromptBuilder(
            tokenizer, self.head, self.tail, self._demonstrations(data, tokenizer, words),
            [_continuation(tokenizer, self.tail, word) for word in words], reads.longest)
        self.prompts.check()
        if reads.vocabulary is not None:
            reads.vocabulary.check([*self.prompts.prefix, *chain(*self.prompts.labels),
                                    *tokenise(tokenizer, self.head + self.tail)], "InContext")
        texts: Any = data.dataset("test", training=False)
        cut = sum(self.prompts.query(texts.input(i))[1] > 0 for i in range(len(texts)))
        if cut:
            data.note(f"{cut} of {len(texts)} test texts lose their beginning: with {self.shots} "
                      f"demonstrations a class and the template they are longer than the "
                      f"{self.prompts.longest} tokens that the network reads")

    def _demonstrations(self, data: DataModule, tokenizer: Any, words: Sequence[str]) -> str:
        """The drawn examples as the template writes them, classes in random order."""
        train, generator = data.splits["train"], np.random.default_rng(data.seed)
        drawn: list[int] = []
        for c, word in enumerate(words):
            # by id, so that the draw does not depend on the order of the rows
            examples = sorted((i for i, target in enumerate(train.targets) if target == c),
                         key=train.ids.__getitem__)
            if len(examples) < self.shots:
                raise InputError(f"InContext: {self.shots} shots, and train has {len(examples)} "
                                 f"examples of {word.strip()!r}", f"set shots: {len(examples)}")
            drawn += [examples[i] for i in generator.permutation(len(examples))[:self.shots]]
        texts: Any = data.dataset("train", training=False)
        written = ""
        for i in generator.permutation(drawn).astype(int).tolist():
            text = decode(tokenizer, without_special(tokenizer, texts.input(i)))
            written += self.head + text + self.tail + words[train.targets[i]] + self.separator
        return written

    def adapt(self, model: TaskModel) -> None:
        if self.prompts is None:
            raise RuntimeError("InContext needs `prepare` with the data first")
        network: Any = model.network
        if not {"input_ids", "past_key_values"} <= inspect.signature(network.forward).parameters.keys() \
                or network.config.is_encoder_decoder:
            raise Incompatible(f"InContext needs a language model that continues a text; "
                               f"{type(network).__name__} does not",
                               "choose a decoder (GPT-2, Llama, SmolLM2) as the backbone")
        model.requires_grad_(False).eval()
        device = next(model.parameters()).device
        if device.type == "meta":
            return  # planning: no parameters are added
        reading = LabelLikelihoods(self.prompts, self.per_token)
        if self.calibrate:
            empty = tokenise(self.prompts.tokenizer, "N/A")
            with torch.no_grad():
                reading.bias = reading.score(network, [self.prompts.query(empty)[0]], device)[0]
        model.reading = reading


def _continuation(tokenizer: Any, tail: str, word: str) -> list[int]:
    """Tokens of a label's words as they stand behind the template's end.

    Raises:
        InputError: the tokenizer makes one token of both.
    """
    before, whole = tokenise(tokenizer, tail), tokenise(tokenizer, tail + word)
    if whole[:len(before)] != before or len(whole) == len(before):
        raise InputError(f"InContext: the tokenizer does not separate {tail!r} from {word!r}",
                         "end the template in a word or a colon, and a space before {label}")
    return whole[len(before):]
