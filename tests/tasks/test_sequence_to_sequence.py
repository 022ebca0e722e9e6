"""Sequence to sequence: loss held against transformers, metrics of generated texts."""

from collections.abc import Callable

import pytest
import torch
from families import TEXT

from ftlab.backbones.huggingface import HuggingFace
from ftlab.errors import InputError
from ftlab.tasks.sequence_to_sequence import SequenceToSequence


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss__equals_transformers(smoothing: float, backbone: Callable[..., HuggingFace],
                                   batch_of: Callable[..., dict]) -> None:
    task = SequenceToSequence(label_smoothing=smoothing)
    model, batch = backbone("t5").build(task).eval(), batch_of("t5")
    targets = [{"labels": ids, "text": "?"} for ids in ([4, 5, 3], [6, 3], [7, 8, 9, 10, 3], [3])]
    batch["target"] = task.stack(targets)
    theirs = model.network(**batch["inputs"], labels=batch["target"]["labels"])
    expected = theirs.loss if not smoothing else torch.nn.CrossEntropyLoss(
        label_smoothing=smoothing)(theirs.logits.flatten(0, 1), batch["target"]["labels"].flatten())
    torch.testing.assert_close(task.loss(model(batch), batch), expected)
    assert task.weight(batch) == 11


def test_predictions__are_generated_within_the_bound(backbone: Callable[..., HuggingFace],
                                                     batch_of: Callable[..., dict]) -> None:
    task = SequenceToSequence(max_new_tokens=3)
    model, batch = backbone("t5").build(task).eval(), batch_of("t5")
    texts = task.predict(model, batch)  # no target: inference
    assert len(texts) == len(batch["inputs"]["input_ids"])
    assert texts == model.generate(batch, 3)
    assert any(texts) and max(len(text.split()) for text in texts) <= 3
    records = task.records(texts, {"text": ["a", "b", "c", "d"]})
    assert records == {"target": ["a", "b", "c", "d"], "prediction": texts}


def test_metrics__read_the_text_and_know_their_direction() -> None:
    task = SequenceToSequence()
    metrics = task.collection()
    metrics.update(["a good film", "the plot of a film"], {"text": ["a good film", "the cast"]})
    numbers = task.scalars(metrics.compute())
    assert set(numbers) == {"exact_match", "rouge1", "rouge2", "rougeL", "bleu"}
    assert numbers["exact_match"] == 0.5
    assert all(task.higher_is_better(name) for name in numbers)
    assert not task.higher_is_better("loss")
    with pytest.raises(InputError, match="did you mean 'rougeL'"):
        task.higher_is_better("rouge")


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_other_networks__are_refused(family: str, backbone: Callable[..., HuggingFace]) -> None:
    assert family in TEXT
    with pytest.raises(InputError, match="writes no text"):
        backbone(family).build(SequenceToSequence())


def test_settings__are_checked() -> None:
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1, got 0"):
        SequenceToSequence(max_new_tokens=0)
    with pytest.raises(ValueError, match=r"label_smoothing .* got 1"):
        SequenceToSequence(label_smoothing=1)
    with pytest.raises(ValueError, match=r"bleu_tokenisation .* got 'words'"):
        SequenceToSequence(bleu_tokenisation="words")
    for label, says in (("  ", "the target is empty"), (3, "3 instead of a target"),
                        (None, "the target is missing")):
        with pytest.raises(InputError, match=f"row 3: {says}"):
            SequenceToSequence().encode(label, "a.csv, row 3")
