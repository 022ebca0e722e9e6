"""Texts are read off tokens as they were written."""

import pytest
import transformers as hf
from tokenizers import Tokenizer, models

from ftlab.backbones.heads.generation import written
from ftlab.backbones.huggingface import HuggingFace
from ftlab.tasks.language_modelling import LanguageModelling
from ftlab.tasks.sequence_to_sequence import SequenceToSequence
from ftlab.tasks.transcription import Transcription


def test_written__keeps_the_space_before_a_mark() -> None:
    raw = Tokenizer(models.WordLevel({"Bonjour": 0, "!": 1, "<end>": 2}, unk_token="<end>"))
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>",
                                           clean_up_tokenization_spaces=True)
    assert tokenizer.decode([0, 1, 2], skip_special_tokens=True) == "Bonjour!"
    assert written(tokenizer, [[0, 1, 2], [0, 0]]) == ["Bonjour !", "Bonjour Bonjour"]


@pytest.mark.parametrize(("family", "task"), [
    ("gpt2", LanguageModelling()), ("t5", SequenceToSequence()),
    ("tiny_whisper", Transcription()), ("tiny_wav2vec2", Transcription())])
def test_texts__are_not_cleaned_up(family, task, request, backbone, batch_of, monkeypatch) -> None:
    if family.startswith("tiny"):
        ours = HuggingFace(str(request.getfixturevalue(family)))
        batch = {"inputs": ours.preprocessing.features([[0.1] * 4000])}
    else:
        ours, batch = backbone(family), batch_of(family)
    model = ours.build(task).eval()
    model.tokenizer.clean_up_tokenization_spaces = True  # as many checkpoints have it
    cleaned = []
    monkeypatch.setattr(type(model.tokenizer), "clean_up_tokenization",
                        lambda self, text: cleaned.append(text) or text)
    model.generate(batch, 4)
    assert not cleaned
    model.tokenizer.decode([4])
    assert cleaned
