"""Images with a class for each pixel, and a tiny SegFormer with a decoder of its own."""

from collections.abc import Callable
from typing import Any

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.mask_augment import MaskAugment
from ftlab.data.semantic_segmentation import SemanticSegmentation


def make(fixture: Callable[[str], Any]) -> Callable[[], tuple[HuggingFace, SemanticSegmentation]]:
    folder, scenes = fixture("segmenter_folder")("segformer"), fixture("scenes")
    return lambda: (HuggingFace(str(folder)),
                    SemanticSegmentation(str(scenes), classes=["background", "disc", "square"],
                                         augment=MaskAugment("none"), batch_size=6))
