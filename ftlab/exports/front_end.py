"""Processors of an exported folder, set so that pipelines read raw examples as training did."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel

from ftlab.backbones.base import Form
from ftlab.backbones.export_code import PlainExamples
from ftlab.backbones.preprocessing import (
    AudioPreprocessing,
    ImageFit,
    Preprocessing,
    TextPreprocessing,
)
from ftlab.exports.preprocessors import write_preprocessor
from ftlab.tasks.base import Task


@dataclass(frozen=True)
class FrontEnd:
    """How raw examples become a network's inputs.

    Attributes:
        preprocessing: of the network that is written.
        fit: how images get their size; None where there are none.
        examples: as the data module says them; None where it says nothing.
    """

    preprocessing: Preprocessing
    fit: ImageFit | None
    examples: PlainExamples | None

    def write(self, task: Task, config: Any, *folders: Path) -> None:
        """Write tokenizer, image processor or feature extractor into each folder.

        Args:
            task: whose network it is.
            config: the network's.
            folders: to write to.
        """
        told = self._told(task.form)
        for folder in folders:
            write_preprocessor(told, self.fit, task, config, folder)

    def _told(self, form: Form) -> Preprocessing:
        """With a tokenizer that says of itself what the data module tells ours at every call."""
        if isinstance(self.preprocessing, TextPreprocessing):
            told: dict[str, Any] = {}
            if self.examples is not None and self.examples.cut_at is not None:
                told = {"model_max_length": self.examples.cut_at,
                        "truncation_side": self.examples.cut_from}
            if form != "text":  # transformers counts positions from the padding
                told["padding_side"] = "right"
            if form == "tokens" and _in_bytes(self.preprocessing.tokenizer):
                told["add_prefix_space"] = True  # a word is encoded as within a sentence
            tokenizer = _as_trained(self.preprocessing.tokenizer, told)
            return replace(self.preprocessing, tokenizer=tokenizer)
        if isinstance(self.preprocessing, AudioPreprocessing) and self.preprocessing.encode:
            if form != "text":  # nothing is written, and a tokenizer may want to know a language
                return replace(self.preprocessing, encode=None)
            encode: Any = self.preprocessing.encode
            tokenizer = _as_trained(encode.tokenizer(), {})
            return replace(self.preprocessing, encode=replace(encode, tokenizer=lambda: tokenizer))
        return self.preprocessing


def _as_trained(tokenizer: Any, told: dict[str, Any]) -> Any:
    """A copy that is told something, and saves it: transformers saves what it was made with."""
    own = copy.deepcopy(tokenizer)
    # what is written stays as it was written
    for name, value in {**told, "clean_up_tokenization_spaces": False}.items():
        setattr(own, name, value)
        own.init_kwargs[name] = value
    if "add_prefix_space" in told:
        before = own.backend_tokenizer.pre_tokenizer
        before.add_prefix_space = True
        own.backend_tokenizer.pre_tokenizer = before
    return own


def _in_bytes(tokenizer: Any) -> bool:
    return isinstance(tokenizer.backend_tokenizer.pre_tokenizer, ByteLevel)
