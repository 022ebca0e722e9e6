from collections.abc import Callable
from typing import Any

import jiwer
import pytest
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.task_model import IGNORED
from ftlab.errors import InputError
from ftlab.tasks.transcription import Transcription

TEXTS = st.lists(st.sampled_from(["two", "Two", "2.", "a  b", "um", "three", "thank you"]),
                 min_size=1, max_size=5).map(" ".join)


@pytest.fixture(params=["tiny_whisper", "tiny_wav2vec2"])
def folder(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
def batch_for() -> Callable[..., dict]:
    """Three recordings of 0.2 to 0.3 s with transcripts of one to three words."""
    def make(backbone: HuggingFace, seconds: tuple[float, ...] = (0.3, 0.2, 0.25)) -> dict:
        prepare = backbone.preprocessing
        draw = torch.Generator().manual_seed(0)
        waves = [torch.randn(int(16000 * s), generator=draw).numpy() for s in seconds]
        texts = ["low high hiss", "low", "high low"][:len(waves)]
        target = [{"labels": ids, "text": text}
                  for ids, text in zip(prepare.encode(texts), texts, strict=True)]
        return {"inputs": prepare.features(waves), "target": Transcription.stack(target),
                "index": torch.arange(len(waves))}

    return make


def test_loss__is_transformers_own(folder: Any, batch_for: Callable[..., dict]) -> None:
    backbone, task = HuggingFace(str(folder)), Transcription()
    model, batch = backbone.build(task).eval(), batch_for(backbone)
    network = model.network
    network.config.ctc_loss_reduction = "sum"
    with torch.no_grad():
        theirs = network(**batch["inputs"], labels=batch["target"]["labels"]).loss
        ours = task.loss(model(batch), batch)
    if "ctc" in type(model).__name__.lower():  # theirs is a sum, ours the mean over label tokens
        ours = ours * task.weight(batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_loss__of_batches_by_weight_is_that_of_the_whole(folder: Any,
                                                         batch_for: Callable[..., dict]) -> None:
    backbone, task = HuggingFace(str(folder)), Transcription()
    model, whole = backbone.build(task).eval(), batch_for(backbone)
    total = weight = 0.0
    with torch.no_grad():
        expected = task.loss(model(whole), whole)
        for i in range(3):
            one = {"inputs": {k: v[i:i + 1] for k, v in whole["inputs"].items()},
                   "target": {k: v[i:i + 1] for k, v in whole["target"].items()},
                   "index": whole["index"][i:i + 1]}
            total += float(task.loss(model(one), one)) * task.weight(one)
            weight += task.weight(one)
    assert total / weight == pytest.approx(float(expected), rel=1e-4)


def test_ctc_loss__ignores_frames_of_padding(tiny_wav2vec2: Any,
                                             batch_for: Callable[..., dict]) -> None:
    backbone, task = HuggingFace(str(tiny_wav2vec2)), Transcription()
    batch = batch_for(backbone)
    outputs = backbone.build(task).eval()(batch)
    outputs = {**outputs, "logits": outputs["logits"].detach().clone()}
    before = task.loss(outputs, batch)
    assert outputs["lengths"][1] < outputs["logits"].shape[1]
    outputs["logits"][1, outputs["lengths"][1]:] = 100 * torch.randn(outputs["logits"].shape[-1])
    assert torch.equal(task.loss(outputs, batch), before)


def test_ctc__decodes_as_transformers_pipeline(tiny_wav2vec2: Any,
                                               batch_for: Callable[..., dict]) -> None:
    backbone, task = HuggingFace(str(tiny_wav2vec2)), Transcription()
    model, batch = backbone.build(task).eval(), batch_for(backbone, (0.3,))
    tokenizer = hf.AutoTokenizer.from_pretrained(tiny_wav2vec2)
    network = hf.Wav2Vec2ForCTC.from_pretrained(tiny_wav2vec2).eval()
    with torch.no_grad():
        best = network(**batch["inputs"]).logits.argmax(dim=-1)
    best[(best >= 1) & (best <= 3)] = 0  # it would write special tokens out
    expected = tokenizer.batch_decode(best)
    assert expected[0]
    assert task.predict(model, batch, model(batch)) == expected == model.generate(batch, 5)


def test_ctc__reads_texts_off_outputs_that_are_there(tiny_wav2vec2: Any,
                                                     batch_for: Callable[..., dict]) -> None:
    backbone, task = HuggingFace(str(tiny_wav2vec2)), Transcription()
    model, batch = backbone.build(task).eval(), batch_for(backbone)
    outputs, runs = model(batch), []
    model.network.register_forward_pre_hook(lambda *_: runs.append(1))
    assert task.predict(model, batch, outputs) == model.decode(outputs)
    assert not runs
    assert task.predict(model, batch) == model.decode(outputs)
    assert runs


def test_ctc__collapses_repeats_and_drops_blanks(tiny_wav2vec2: Any) -> None:
    model = HuggingFace(str(tiny_wav2vec2)).build(Transcription())
    vocabulary = model.tokenizer.get_vocab()
    symbols = ["l", "l", "<pad>", "l", "o", "o", "|", "w", "w", "<pad>", "s", "s"]
    logits = torch.nn.functional.one_hot(
        torch.tensor([[vocabulary[s] for s in symbols]]), len(vocabulary)).float()
    assert model.decode({"logits": logits, "lengths": torch.tensor([10])}) == ["llo w"]


@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6))
def test_error_rates__are_jiwer_s(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = ([pair[i] for pair in pairs] for i in (0, 1))
    metrics = Transcription().collection()
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        metrics.update([hypothesis], {"text": [reference]})
    found = metrics.compute()
    references, hypotheses = ([" ".join(text.split()) for text in texts]
                              for texts in (references, hypotheses))
    assert float(found["wer"]) == pytest.approx(jiwer.wer(references, hypotheses))
    assert float(found["cer"]) == pytest.approx(jiwer.cer(references, hypotheses))
    right = [a == b for a, b in zip(references, hypotheses, strict=True)]
    assert float(found["exact_match"]) == pytest.approx(sum(right) / len(right))


@pytest.mark.parametrize(("normalise", "same"), [
    ("none", {("two", " two ")}),
    ("basic", {("two", " two "), ("two", " Two!")}),
    ("english", {("two", " two "), ("two", " Two!"), ("two", " 2."), ("it's", "It is")}),
])
def test_normalise__says_which_texts_are_the_same(normalise: Any, same: set) -> None:
    pairs = [("two", " two "), ("two", " Two!"), ("two", " 2."), ("it's", "It is"), ("two", "to")]
    for reference, hypothesis in pairs:
        metrics = Transcription(normalise).collection()
        metrics.update([hypothesis], {"text": [reference]})
        assert float(metrics.compute()["wer"] == 0) == ((reference, hypothesis) in same)
        records = Transcription(normalise).records([hypothesis], {"text": [reference]})
        assert records == {"target": [reference], "prediction": [hypothesis],
                           "scores": [float((reference, hypothesis) in same)]}


def test_whisper__writes_at_most_max_new_tokens(tiny_whisper: Any,
                                                batch_for: Callable[..., dict]) -> None:
    backbone = HuggingFace(str(tiny_whisper))
    batch = batch_for(backbone)
    lengths = []
    for longest in (1, 3, 50):  # it has positions for 12
        task = Transcription(max_new_tokens=longest)
        texts = task.predict(backbone.build(task).eval(), batch)
        lengths.append(max(len(text.split()) for text in texts))
    assert lengths[0] <= 1
    assert lengths[1] <= 3
    assert lengths[2] < 12


def test_whisper__begins_generation_as_training_does(tiny_whisper: Any,
                                                     batch_for: Callable[..., dict]) -> None:
    """Feeding back what was generated gives it again: the prompts are the same."""
    backbone, task = HuggingFace(str(tiny_whisper)), Transcription(max_new_tokens=4)
    model, batch = backbone.build(task).eval(), batch_for(backbone)
    texts = task.predict(model, batch)
    labels = backbone.preprocessing.encode(texts)
    batch["target"] = task.stack([{"labels": ids, "text": ""} for ids in labels])
    with torch.no_grad():
        best = model(batch).argmax(dim=-1)
    real = (batch["target"]["labels"] != IGNORED)
    real &= batch["target"]["labels"] > 2  # it may have ended by its bound, not by the end token
    assert real.any()
    assert torch.equal(best[real], batch["target"]["labels"][real])


@pytest.mark.parametrize(("label", "said"), [
    (3, "3 instead of a transcript"), (None, "the transcript is missing"), ("  ", "empty")])
def test_encode__refuses_what_is_no_transcript(label: Any, said: str) -> None:
    with pytest.raises(InputError, match=rf"here: .*{said}"):
        Transcription().encode(label, "here")


def test_higher_is_better() -> None:
    task = Transcription()
    assert [task.higher_is_better(name) for name in (*task.collection(), "loss")] == [
        False, True, False, False]
    with pytest.raises(InputError, match="unknown metric 'werr'"):
        task.higher_is_better("werr")


@pytest.mark.parametrize("settings", [{"normalise": "french"}, {"max_new_tokens": 0}])
def test_settings__are_checked(settings: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be"):
        Transcription(**settings)
