"""Images with coloured rectangles, and a small RetinaNet on a tiny ShuffleNet."""

from collections.abc import Callable
from typing import Any

from ftlab.backbones.torchvision_detector import Keep, Levels, TorchvisionDetector
from ftlab.data.box_augment import BoxAugment
from ftlab.data.object_detection import ObjectDetection


def make(
    fixture: Callable[[str], Any],
) -> Callable[[], tuple[TorchvisionDetector, ObjectDetection]]:
    weights, folder = fixture("tiny_trunk"), fixture("rectangles")
    return lambda: (
        TorchvisionDetector(
            "retinanet", "shufflenet_v2_x0_5", str(weights), image_size=64,
            levels=Levels(strides=(16,), width=16, anchor_scales=(1.0, 2.0), aspect_ratios=(1.0,)),
            keep=Keep(most=5),
        ),
        ObjectDetection(str(folder), augment=BoxAugment("none"), batch_size=8),
    )
