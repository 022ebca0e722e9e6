"""Language modelling: held against transformers' own loss, and closed formulas."""

import math

import pytest
import torch
import transformers as hf

from ftlab.errors import InputError
from ftlab.tasks.label_tokens import mean_log_likelihood
from ftlab.tasks.language_modelling import LanguageModelling


@pytest.fixture
def task() -> LanguageModelling:
    task = LanguageModelling()
    task.fit(["yes", "no"])
    return task


def test_loss__is_transformers_shifted_loss(task):
    torch.manual_seed(0)
    network = hf.GPT2LMHeadModel(hf.GPT2Config(
        vocab_size=20, n_embd=16, n_head=2, n_layer=1, n_positions=16, bos_token_id=2,
        eos_token_id=3)).eval()
    ids = torch.randint(4, 20, (3, 9))
    labels = ids.clone()
    labels[:, :4] = -100
    labels[1, 7:] = -100
    made = network(input_ids=ids, labels=labels)
    batch = {"target": {"labels": labels[:, 1:]}}
    torch.testing.assert_close(task.loss(made.logits[:, :-1], batch), made.loss)
    assert task.weight(batch) == 13


def test_scalars__perplexity_is_the_exponential_of_the_loss(task):
    found = task.scalars({"loss": torch.tensor(math.log(7.0))})
    assert found["perplexity"] == pytest.approx(7.0)
    assert not task.higher_is_better("perplexity")
    assert task.higher_is_better("exact_match")


def test_exact_match__whole_answers_white_space_at_the_ends_aside(task):
    metrics = task.collection()
    metrics.update({"text": [" yes", "yes and"]}, {"text": ["yes ", "yes"]})
    metrics.update({"text": ["no"]}, {"text": ["No"]})
    assert float(metrics.compute()["exact_match"]) == pytest.approx(1 / 3)


def test_records__score_is_the_mean_log_likelihood(task):
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]],
                                     [[0.2, 0.2, 0.6], [0.3, 0.3, 0.4]]]))
    labels = torch.tensor([[0, 1], [2, -100]])
    want = [(math.log(0.5) + math.log(0.8)) / 2, math.log(0.6)]
    assert mean_log_likelihood(logits, labels).tolist() == pytest.approx(want)
    records = task.records({"text": ["a", "b"], "logits": logits},
                           {"labels": labels, "text": ["x", "y"]})
    assert records["prediction"] == ["a", "b"]
    assert records["target"] == ["x", "y"]
    assert records["scores"] == pytest.approx(want)


def test_plain_text__nothing_is_generated():
    task = LanguageModelling()
    task.fit([None, None])
    assert task.encode(None, "row 1") is None
    assert not len(task.collection())
    assert not task.higher_is_better("perplexity")
    with pytest.raises(InputError, match="exact_match compares answers, and these data have none"):
        task.higher_is_better("exact_match")
    logits = torch.zeros(1, 2, 3)
    predictions = task.predict(None, {}, logits)  # a model would fail
    target = {"labels": torch.tensor([[0, 1]]), "text": ["x"]}
    assert task.records(predictions, target)["prediction"] == [None]


@pytest.mark.parametrize("label", [None, "  ", 3])
def test_encode__answers_must_be_texts(task, label):
    with pytest.raises(InputError, match="row 7"):
        task.encode(label, "row 7")


def test_bound_must_be_positive():
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1, got 0"):
        LanguageModelling(max_new_tokens=0)
