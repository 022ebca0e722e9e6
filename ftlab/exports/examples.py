"""The lines between raw examples and a network: `prepare` and `predict`, as the run did both."""

from __future__ import annotations

from typing import Any

from ftlab.backbones.preprocessing import (
    AudioPreprocessing,
    ImagePreprocessing,
    TextPreprocessing,
)
from ftlab.data.audio_classification import AudioClassification
from ftlab.data.base import DataModule
from ftlab.data.causal_lm import CausalLM
from ftlab.data.image import ImageClassification
from ftlab.data.seq2seq import Seq2Seq
from ftlab.data.speech_recognition import SpeechRecognition
from ftlab.data.text import TextClassification
from ftlab.data.token_classification import TokenClassification
from ftlab.exports.loading import Loading
from ftlab.exports.preprocessors import image_size
from ftlab.tasks.base import Task
from ftlab.tasks.classification import Classification
from ftlab.tasks.multi_label import MultiLabel
from ftlab.tasks.regression import Regression

_TOKENIZER = 'tokenizer = AutoTokenizer.from_pretrained(folder)'
_TOKENIZE = """
def prepare(texts):
    return dict(tokenizer(list(texts), truncation=True, max_length={length}, padding=True,
                          return_token_type_ids=False, return_tensors="pt"))
"""
_TOKENIZE_PAIRS = """
def prepare(pairs):  # of texts
    firsts, seconds = map(list, zip(*pairs))
    return dict(tokenizer(firsts, seconds, truncation=True, max_length={length}, padding=True,
                          return_token_type_ids={types}, return_tensors="pt"))
"""
_IMAGES = """
def prepare(images):  # paths, or open files
    ready = []
    for image in images:
        image = ImageOps.exif_transpose(Image.open(image)).convert("RGB")
        image = functional.pil_to_tensor(image)
        scale = max({height} / image.shape[-2], {width} / image.shape[-1])
        size = [math.ceil(edge * scale - 1e-6) for edge in image.shape[-2:]]
        image = functional.resize(image, size if scale <= 1 else [{height}, {width}],
                                  InterpolationMode({interpolation!r}), antialias=True)
        image = functional.center_crop(image, [{height}, {width}]).float() / 255
        ready.append(functional.normalize(image, {mean}, {std}))
    return {{{name!r}: torch.stack(ready).to({dtype})}}
"""
_SOUND = """
extractor = AutoFeatureExtractor.from_pretrained(folder)

def prepare(recording):  # a path, or an open file
    samples, rate = soundfile.read(recording, dtype="float32", always_2d=True)
    sound = samples.mean(axis=1)
    if rate != {rate}:
        common = math.gcd(rate, {rate})
        sound = resample_poly(sound, {rate} // common, rate // common).astype("float32")
    inputs = extractor([sound], sampling_rate={rate}, {how}, return_tensors="pt")
    return {{name: inputs[name].to({dtype} if inputs[name].is_floating_point() else torch.long)
            for name in {names}}}
"""
_CLASSES = """
classes = {names}

def predict({takes}):  # the class of each, and the probabilities of all classes
    with torch.no_grad():
        scores = {outputs}.float().softmax(dim=-1)
    return [classes[i] for i in scores.argmax(dim=-1)], scores.tolist()
"""
_LABELS = """
labels = {names}

def predict({takes}):  # the labels of each, and the probabilities of all labels
    with torch.no_grad():
        scores = {outputs}.float().sigmoid()
    chosen = [[name for name, score in zip(labels, row) if score > {threshold}]
              for row in scores.tolist()]
    return chosen, scores.tolist()
"""
_NUMBERS = """
def predict({takes}):  # a number for each
    with torch.no_grad():
        numbers = {outputs}.float().squeeze(-1)
    numbers = numbers * {train_standard_deviation} + {train_mean}
    return numbers.tolist()
"""
_TAGS = """
tags = {tags}

def predict(sentences):  # lists of words; a tag for each word
    found = []
    for words in sentences:
        encoded = tokenizer([{word} for word in words], is_split_into_words=True, truncation=True,
                            max_length={length}, return_token_type_ids=False, return_tensors="pt")
        with torch.no_grad():
            best = compute(**encoded)[0].argmax(dim=-1).tolist()
        first = {{}}
        for place, word in enumerate(encoded.word_ids(0)):
            first.setdefault(word, best[place])
        found.append([tags[first.get(number, 0)] for number in range(len(words))])
    return found
"""
_CONTINUE = """
def predict(prompts):  # what the model writes behind each
    written = []
    for prompt in prompts:
        {chat}inputs = tokenizer(prompt, add_special_tokens={special}, return_token_type_ids=False,
                           return_tensors="pt")
        ids = inputs["input_ids"]{closing}
        with torch.no_grad():
            tokens = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids),
                                    max_new_tokens={longest}, do_sample=False, num_beams=1,
                                    pad_token_id=tokenizer.pad_token_id)
        written.append(tokenizer.decode(tokens[0, ids.shape[1]:], skip_special_tokens=True,
                                        clean_up_tokenization_spaces=False))
    return written
"""
_REWRITE = """
def predict(texts):  # what the model writes for each
    written = []
    for text in texts:
        inputs = tokenizer([{prefix} + text], truncation=True, max_length={length},
                           return_token_type_ids=False, return_tensors="pt")
        with torch.no_grad():
            tokens = model.generate(**inputs, max_new_tokens={longest}, do_sample=False,
                                    num_beams=1)
        written.append(tokenizer.decode(tokens[0], skip_special_tokens=True,
                                        clean_up_tokenization_spaces=False))
    return written
"""
_HEAR = """
def predict(recordings):  # what is said in each
    written = []
    for recording in recordings:
        with torch.no_grad():
            tokens = model.generate(**prepare(recording), max_new_tokens={longest},
                                    do_sample=False, num_beams=1)
        written.append(tokenizer.decode(tokens[0], skip_special_tokens=True,
                                        clean_up_tokenization_spaces=False))
    return written
"""
_SPELL = """
def predict(recordings):  # what is said in each
    written = []
    for recording in recordings:
        with torch.no_grad():
            best = compute(**prepare(recording))[0].argmax(dim=-1)
        symbols = [symbol for symbol in best.unique_consecutive().tolist() if symbol != {blank}]
        written.append(tokenizer.decode(symbols, skip_special_tokens=True, group_tokens=False,
                                        clean_up_tokenization_spaces=False))
    return written
"""


def add_examples(loading: Loading, data: DataModule, preprocessing: Any, model: Any) -> None:
    """Add what leads from raw examples to predictions, where this room knows the data module."""
    task = data.task
    dtype = str(next(model.parameters()).dtype)
    if isinstance(preprocessing, TextPreprocessing):
        _add_text(loading, data, preprocessing)
    elif isinstance(preprocessing, ImagePreprocessing) and isinstance(data, ImageClassification):
        height, width = image_size(preprocessing, data)
        loading.imports |= {"import math", "from PIL import Image", "from PIL import ImageOps",
                            "from torchvision.transforms.v2 import InterpolationMode",
                            "from torchvision.transforms.v2 import functional"}
        loading.packages |= {"torchvision", "pillow"}
        prepare = _IMAGES.format(
            height=height, width=width, interpolation=preprocessing.interpolation,
            mean=list(preprocessing.mean), std=list(preprocessing.std),
            name=preprocessing.input_name, dtype=dtype)
        loading.takes = "images"
        _finish(loading, [prepare], task, "compute(**prepare(images))")
    elif isinstance(preprocessing, AudioPreprocessing):
        _add_sound(loading, data, preprocessing, model, dtype)


def _finish(loading: Loading, parts: list[str], task: Task, outputs: str) -> None:
    said: dict[str, Any] = {"takes": loading.takes, "outputs": outputs}
    if isinstance(task, Classification):
        last = _CLASSES.format(names=task.classes, **said)
        loading.gives_scores, loading.score_names = True, task.classes
    elif isinstance(task, MultiLabel):
        last = _LABELS.format(names=task.labels, threshold=task.threshold, **said)
        loading.gives_scores, loading.score_names = True, task.labels
    elif isinstance(task, Regression):
        last = _NUMBERS.format(**task.summary(), **said)
    else:
        loading.takes = ""
        return
    loading.examples = "\n\n".join(part.strip("\n") for part in [*parts, last])


def _add_text(loading: Loading, data: DataModule, preprocessing: TextPreprocessing) -> None:
    loading.imports.add("from transformers import AutoTokenizer")
    tokenizer, task = preprocessing.tokenizer, data.task
    if isinstance(data, TextClassification):
        loading.takes = "texts" if data.text_pair is None else "pairs"
        template = _TOKENIZE if data.text_pair is None else _TOKENIZE_PAIRS
        prepare = template.format(length=data.max_length, types=data.token_types)
        _finish(loading, [_TOKENIZER, prepare], task, f"compute(**prepare({loading.takes}))")
        return
    if isinstance(data, TokenClassification):
        bytelevel = "ByteLevel" in str(tokenizer.backend_tokenizer.pre_tokenizer)
        code = _TAGS.format(tags=data.task.tags, length=data.max_length,
                            word='" " + word' if bytelevel else "word")
        loading.takes = "sentences"
    elif isinstance(data, CausalLM) and data.prompt is not None:
        chat = ('prompt = tokenizer.apply_chat_template(\n            [{"role": "user", "content": '
                'prompt}], tokenize=False, add_generation_prompt=True)\n        ')
        closing = {tokenizer.eos_token_id, tokenizer.sep_token_id} - {None}
        ends = not data.chat and set(tokenizer("a")["input_ids"][-1:]) & closing
        code = _CONTINUE.format(chat=chat if data.chat else "", special=not data.chat,
                                closing="[:, :-1]" if ends else "",
                                longest=data.task.max_new_tokens)
        loading.takes = "prompts"
    elif isinstance(data, Seq2Seq):
        code = _REWRITE.format(prefix=repr(data.prefix), length=data.max_source_length,
                               longest=data.task.max_new_tokens)
        loading.takes = "texts"
    else:
        return
    loading.examples = f"{_TOKENIZER}\n\n{code.strip()}"


def _add_sound(loading: Loading, data: DataModule, preprocessing: AudioPreprocessing, model: Any,
               dtype: str) -> None:
    longest = round(preprocessing.longest * preprocessing.sampling_rate) \
        if preprocessing.spectrogram else 0
    names = ["input_features"]
    if not preprocessing.spectrogram:
        extractor: Any = getattr(preprocessing.features, "extractor", None)
        names = ["input_values", *(["attention_mask"] if extractor.return_attention_mask else [])]
    loading.imports |= {"import math", "import soundfile", "from scipy.signal import resample_poly",
                        "from transformers import AutoFeatureExtractor"}
    loading.packages |= {"soundfile", "scipy"}
    prepare = _SOUND.format(
        rate=preprocessing.sampling_rate, names=names, dtype=dtype,
        how=f"max_length={longest}" if preprocessing.spectrogram else "padding=True")
    loading.takes = "recordings"
    if isinstance(data, AudioClassification):
        _finish(loading, [prepare], data.task,
                "torch.cat([compute(**prepare(each)) for each in recordings])")
    elif isinstance(data, SpeechRecognition):
        loading.imports.add("from transformers import AutoTokenizer")
        blank = getattr(model, "blank", None)
        code = (_HEAR.format(longest=data.task.max_new_tokens) if blank is None
                else _SPELL.format(blank=blank))
        loading.examples = f'{_TOKENIZER}\n\n{prepare.strip()}\n\n{code.strip()}'
    else:
        loading.takes = ""
