"""Images with a class each, and a tiny CLIP."""

from collections.abc import Callable
from typing import Any

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.image import ImageClassification
from ftlab.data.image_augment import ImageAugment


def make(fixture: Callable[[str], Any]) -> Callable[[], tuple[HuggingFace, ImageClassification]]:
    folder, images = fixture("tiny_clip"), fixture("shapes")
    return lambda: (
        HuggingFace(str(folder)),
        # words of its vocabulary: with two unknown ones all zero-shot scores are equal
        ImageClassification(str(images), batch_size=8, augment=ImageAugment(policy="none"),
                            classes={"left": "good", "right": "bad"}),
    )
