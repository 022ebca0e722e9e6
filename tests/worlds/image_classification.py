"""Images with a class each, and a tiny ResNet."""

from collections.abc import Callable
from typing import Any

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.image import ImageClassification
from ftlab.data.image_augment import ImageAugment


def make(fixture: Callable[[str], Any]) -> Callable[[], tuple[HuggingFace, ImageClassification]]:
    folder, images = fixture("tiny_resnet"), fixture("shapes")
    return lambda: (
        HuggingFace(str(folder)),
        ImageClassification(
            str(images), image_size=32, batch_size=8, augment=ImageAugment(policy="none")
        ),
    )
