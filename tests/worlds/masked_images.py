"""Images with masked patches, and a tiny ViT without a decoder of its own."""

from collections.abc import Callable
from typing import Any

from masked import save_vit

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.masked_images import MaskedImages
from ftlab.data.patch_masking import PatchMasking


def make(fixture: Callable[[str], Any]) -> Callable[[], tuple[HuggingFace, MaskedImages]]:
    folder, images = save_vit(fixture("tmp_path_factory").mktemp("masked_images")), fixture("shapes")
    return lambda: (HuggingFace(str(folder)),
                    MaskedImages(str(images), batch_size=8, masking=PatchMasking(size=8)))
