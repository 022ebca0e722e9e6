"""Tiny encoders whose tokenizer has a mask token, and such as reconstruct masked images."""

from collections.abc import Callable
from pathlib import Path

import torch
import transformers as hf
from families import LONGEST, WORDS, tokenizer

MASK = 18
_SMALL = {"vocab_size": 20, "pad_token_id": 0, "hidden_size": 16, "num_attention_heads": 2,
          "intermediate_size": 24, "num_hidden_layers": 3, "max_position_embeddings": LONGEST}

ENCODERS: dict[str, Callable[[], hf.PreTrainedModel]] = {
    "albert": lambda: hf.AlbertForMaskedLM(hf.AlbertConfig(**_SMALL, embedding_size=8)),
    "bert": lambda: hf.BertForMaskedLM(hf.BertConfig(**_SMALL)),
    "deberta": lambda: hf.DebertaV2ForMaskedLM(hf.DebertaV2Config(
        **_SMALL, relative_attention=True, position_buckets=4)),
    "distilbert": lambda: hf.DistilBertForMaskedLM(hf.DistilBertConfig(
        vocab_size=20, pad_token_id=0, dim=16, n_heads=2, hidden_dim=24, n_layers=3,
        max_position_embeddings=LONGEST)),
    "electra": lambda: hf.ElectraForMaskedLM(hf.ElectraConfig(**_SMALL, embedding_size=8)),
    "modernbert": lambda: hf.ModernBertForMaskedLM(hf.ModernBertConfig(
        **_SMALL, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3)),
    "mpnet": lambda: hf.MPNetForMaskedLM(hf.MPNetConfig(
        **_SMALL | {"max_position_embeddings": LONGEST + 2})),
    "roberta": lambda: hf.RobertaForMaskedLM(hf.RobertaConfig(
        **_SMALL | {"max_position_embeddings": LONGEST + 1})),
    "camembert": lambda: hf.CamembertForMaskedLM(hf.CamembertConfig(
        **_SMALL | {"max_position_embeddings": LONGEST + 1})),
    "xlm-roberta": lambda: hf.XLMRobertaForMaskedLM(hf.XLMRobertaConfig(
        **_SMALL | {"max_position_embeddings": LONGEST + 1})),
    "xlm": lambda: hf.XLMWithLMHeadModel(hf.XLMConfig(
        vocab_size=20, emb_dim=16, n_layers=3, n_heads=2, max_position_embeddings=LONGEST,
        pad_index=0, mask_token_id=MASK)),
}

_VIT = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24,
        "num_hidden_layers": 3, "image_size": 32, "patch_size": 8}
_SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 2]}

# their encoder_stride is the default, which none of them has
VISION: dict[str, Callable[[], hf.PreTrainedModel]] = {
    "deit": lambda: hf.DeiTForMaskedImageModeling(hf.DeiTConfig(**_VIT)),
    "focalnet": lambda: hf.FocalNetForMaskedImageModeling(hf.FocalNetConfig(
        **_SWIN, focal_levels=[1, 1], focal_windows=[3, 3], hidden_sizes=[8, 16])),
    "swin": lambda: hf.SwinForMaskedImageModeling(hf.SwinConfig(
        **_SWIN, num_heads=[1, 2], window_size=4)),
    "swinv2": lambda: hf.Swinv2ForMaskedImageModeling(hf.Swinv2Config(
        **_SWIN, num_heads=[1, 2], window_size=4)),
    "vit": lambda: hf.ViTForMaskedImageModeling(hf.ViTConfig(**_VIT)),
}
STRIDE = 8


def save(folder: Path, network: hf.PreTrainedModel) -> Path:
    """A network, and the families' tokenizer with a mask token, in a folder."""
    network.save_pretrained(folder)
    made = tokenizer(decoder=False)
    made.add_special_tokens({"mask_token": "[MASK]"})
    assert made.mask_token_id == MASK == len(WORDS) + 4
    made.save_pretrained(folder)
    return folder


def save_bert(folder: Path, family: str = "bert", head: bool = False, std: float = 0.02) -> Path:
    """A random encoder of a family, with its output layer or without."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ENCODERS[family]()
        for parameter in network.parameters():
            if parameter.ndim > 1 and std != 0.02:
                torch.nn.init.normal_(parameter, std=std)
    return save(folder, network if head else network.base_model)


def save_vit(folder: Path, family: str = "vit", head: bool = False) -> Path:
    """A random vision transformer of a family, with its decoder and mask token or without."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = VISION[family]()
        if head:
            network.config.encoder_stride = STRIDE
            network = type(network)(network.config)
            for parameter in network.parameters():  # large enough for every part to tell
                torch.nn.init.normal_(parameter, std=0.3)
    if head:
        network.save_pretrained(folder)
    else:
        bare = network.base_model
        bare.save_pretrained(folder, state_dict={name: tensor for name, tensor in
                                                 bare.state_dict().items() if "mask_token" not in name})
    hf.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
