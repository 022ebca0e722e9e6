"""Fixtures: tiny random networks of many families, from configs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from ftlab.backbones.huggingface import HuggingFace

WORDS = ["a", "b", "c", "good", "bad", "film", "plot", "the", "of", "and", "very",
         "not", "is", "was"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
LONGEST = 32
_TEXT = {"vocab_size": 20, "pad_token_id": 0}
_BERT = _TEXT | {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24,
                 "num_hidden_layers": 3, "max_position_embeddings": LONGEST}
_VIT = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24,
        "num_hidden_layers": 3, "image_size": 32, "patch_size": 8}

# three repeated elements each, or what the comment says
TEXT = {
    "bert": lambda: hf.BertModel(hf.BertConfig(**_BERT)),
    "bert_mlm": lambda: hf.BertForMaskedLM(hf.BertConfig(**_BERT)),
    "roberta": lambda: hf.RobertaForMaskedLM(
        hf.RobertaConfig(**_BERT | {"max_position_embeddings": LONGEST + 1})),
    "distilbert": lambda: hf.DistilBertModel(hf.DistilBertConfig(
        **_TEXT, dim=16, n_heads=2, hidden_dim=24, n_layers=3, max_position_embeddings=LONGEST)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(
        vocab_size=20, n_embd=16, n_head=2, n_layer=3, n_positions=LONGEST,
        bos_token_id=2, eos_token_id=3)),
    "t5": lambda: hf.T5ForConditionalGeneration(hf.T5Config(
        **_TEXT, d_model=16, d_kv=8, d_ff=24, num_heads=2, num_layers=3, eos_token_id=3,
        decoder_start_token_id=0)),  # 3 + 3
    "deberta": lambda: hf.DebertaV2Model(hf.DebertaV2Config(
        **_BERT, relative_attention=True, norm_rel_ebd="layer_norm", position_buckets=4)),
    "bart": lambda: hf.BartModel(hf.BartConfig(
        **_TEXT, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, bos_token_id=2,
        eos_token_id=3, decoder_start_token_id=2, forced_eos_token_id=3,
        max_position_embeddings=LONGEST)),  # 2 + 2
}
IMAGE = {
    "vit": lambda: hf.ViTModel(hf.ViTConfig(**_VIT), add_pooling_layer=False),
    "resnet": lambda: hf.ResNetModel(hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[2, 1], layer_type="basic")),
    "swin": lambda: hf.SwinModel(hf.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 2], num_heads=[1, 2],
        window_size=4)),
    "convnext": lambda: hf.ConvNextModel(hf.ConvNextConfig(
        hidden_sizes=[8, 16], depths=[1, 2], num_stages=2)),
}

PROCESSORS = {
    "vit": lambda: hf.ViTImageProcessor(size={"height": 32, "width": 32}),
    "resnet": lambda: hf.ConvNextImageProcessor(size={"shortest_edge": 48}),
    "swin": lambda: hf.ViTImageProcessor(size={"height": 32, "width": 32}, resample=3),
    "convnext": lambda: hf.ConvNextImageProcessor(size={"shortest_edge": 48}),
}


class _Task:
    output_type = "vector"
    auto_classes = ("AutoModelForSequenceClassification", "AutoModelForImageClassification")
    outputs = 3


def tokenizer(decoder: bool) -> hf.PreTrainedTokenizerFast:
    """Of a decoder: no padding token and no special tokens added, as GPT-2's."""
    vocabulary = {word: i for i, word in enumerate(SPECIAL + WORDS)}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = {"unk_token": "[UNK]", "eos_token": "[SEP]"}
    if not decoder:
        raw.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
        tokens["pad_token"] = "[PAD]"
    return hf.PreTrainedTokenizerFast(tokenizer_object=raw, **tokens)


@pytest.fixture(scope="session")
def save(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny network of a family, made once."""
    folders: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in folders:
            folder = tmp_path_factory.mktemp(family)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                network = (TEXT | IMAGE)[family]()
                for parameter in network.parameters():  # large enough for every part to tell
                    torch.nn.init.normal_(parameter, std=0.5)
            network.save_pretrained(folder)
            if family in PROCESSORS:
                PROCESSORS[family]().save_pretrained(folder)
            if family in TEXT:
                tokenizer(decoder=family == "gpt2").save_pretrained(folder)
            folders[family] = folder
        return folders[family]

    return make


@pytest.fixture
def backbone(save: Callable[[str], Path]) -> Callable[..., HuggingFace]:
    return lambda family, **settings: HuggingFace(str(save(family)), **settings)


@pytest.fixture
def task() -> _Task:
    return _Task()


@pytest.fixture
def batch_of(backbone: Callable[..., HuggingFace]) -> Callable[..., dict]:
    """A batch a family's network can read: four texts of different length, or four images."""
    def make(family: str) -> dict:
        if family in IMAGE:
            return {"inputs": {"pixel_values": torch.randn(4, 3, 32, 32)}}
        prepare = backbone(family).preprocessing
        ids, _ = prepare.encode(["good film", "the plot of a film was bad", "c", "a b"], 16)
        return {"inputs": prepare.pad(ids)}

    return make


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
