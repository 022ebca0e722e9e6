from pathlib import Path

import pytest
import torch
import transformers as hf
from torch.nn.functional import normalize

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.preprocessing import ImagePreprocessing
from ftlab.errors import Incompatible, InputError
from ftlab.tasks.classification import Classification

TEXTS = ["good film", "the plot of a film was bad and very poor", "cast"]


def build(folder: Path, **settings):
    return HuggingFace(str(folder), **settings).build(Classification(), "embedding").eval()


@pytest.fixture(scope="module")
def tiny_siglip(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("siglip")
    for path in tiny_clip.glob("*token*"):
        (folder / path.name).write_bytes(path.read_bytes())
    layers = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
              "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf.SiglipModel(hf.SiglipConfig(
            text_config=layers | {"vocab_size": 22, "max_position_embeddings": 16},
            vision_config=layers | {"image_size": 32, "patch_size": 16})).save_pretrained(folder)
    hf.SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pooling", [None, "mean", "first"])
def test_sentence_encoder__is_transformers_pooled(tiny_bert, pooling):
    model = build(tiny_bert, pooling=pooling)
    embedded = model.embed_texts(TEXTS)
    network = hf.BertModel.from_pretrained(tiny_bert, add_pooling_layer=False).eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(tiny_bert)
    for text, vector in zip(TEXTS, embedded, strict=True):  # one by one: nothing is padded
        with torch.no_grad():
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            hidden = network(input_ids=ids).last_hidden_state[0]
        wanted = hidden[0] if pooling == "first" else hidden.mean(dim=0)
        torch.testing.assert_close(vector, normalize(wanted, dim=-1), rtol=1e-4, atol=1e-5)


def test_sentence_encoder__embeds_a_batch_as_it_embeds_texts(tiny_bert):
    model, prepare = build(tiny_bert), HuggingFace(str(tiny_bert)).preprocessing
    batch = {"inputs": prepare.pad(prepare.encode(TEXTS, 16)[0])}
    with torch.no_grad():
        torch.testing.assert_close(model(batch), model.embed_texts(TEXTS), rtol=1e-4, atol=1e-5)
    assert model.logit_scale is None


@pytest.mark.parametrize(("family", "network"),
                         [("tiny_clip", hf.CLIPModel), ("tiny_siglip", hf.SiglipModel)])
def test_dual_encoder__scores_as_transformers(request, family, network):
    folder = request.getfixturevalue(family)
    model, images = build(folder), torch.randn(4, 3, 32, 32)
    reference = network.from_pretrained(folder).eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    padding = "max_length" if network is hf.SiglipModel else "longest"
    inputs = tokenizer(TEXTS, padding=padding, max_length=16, return_tensors="pt")
    with torch.no_grad():
        wanted = reference(pixel_values=images, input_ids=inputs["input_ids"],
                           attention_mask=inputs["attention_mask"])
        embedded = model({"inputs": {"pixel_values": images}})
    ours = model.logit_scale * embedded @ model.embed_texts(TEXTS).T
    bias = getattr(reference, "logit_bias", torch.zeros(1)).detach()  # SigLIP's
    torch.testing.assert_close(ours + bias, wanted.logits_per_image, rtol=1e-4, atol=1e-4)


def test_dual_encoder__reads_images(tiny_clip):
    preprocessing = HuggingFace(str(tiny_clip)).preprocessing
    assert isinstance(preprocessing, ImagePreprocessing)
    assert preprocessing.size == (32, 32)
    assert preprocessing.fixed_size


@pytest.mark.parametrize("family", ["tiny_bert", "tiny_clip"])
def test_parameters__are_each_in_one_block(request, family):
    model = build(request.getfixturevalue(family))
    for name, _ in model.named_parameters():
        assert sum(block.holds(name) for block in model.blocks) == 1, name
    assert not list(model.head.parameters())


def test_embed_texts__is_the_same_in_parts_and_refuses_what_is_too_long(tiny_clip):
    model = build(tiny_clip)
    many = TEXTS * 30
    torch.testing.assert_close(model.embed_texts(many)[-3:], model.embed_texts(TEXTS))
    with pytest.raises(InputError, match="has 20 tokens, and the network reads 16"):
        model.embed_texts(["film " * 18])


def test_build__refuses_a_network_that_embeds_no_texts(tiny_resnet):
    with pytest.raises(Incompatible, match="resnet does not embed texts"):
        build(tiny_resnet)


def test_build__on_meta_has_the_same_parameters(tiny_clip):
    meta = HuggingFace(str(tiny_clip)).build(Classification(), "embedding", meta=True)
    shapes = [(n, p.shape) for n, p in build(tiny_clip).named_parameters()]
    assert [(n, p.shape) for n, p in meta.named_parameters()] == shapes
