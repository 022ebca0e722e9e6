"""A detector of torchvision as lines that need torchvision alone.

They build what `ftlab.backbones.detector_builders.assemble` builds, with the same names of weights;
an export is held to the model's own detections, so that the two cannot part unseen.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.ssd import SSD

from ftlab.backbones.export_code import CodeLines
from ftlab.backbones.feature_maps import Pyramid
from ftlab.backbones.forms.detection_model import Keep
from ftlab.backbones.weight_files import make_network

_TRUNK = """
body = torchvision.models.get_model({name!r}, weights=None{options})
for unused in {unused}:  # what follows the last map
    body.set_submodule(unused, nn.Identity())

class Trunk(nn.Module):  # a classification network that gives the maps of some of its modules
    def __init__(self, body, taps):  # taps: a module's path, and whether its channels lie last
        super().__init__()
        self.body, self.taps = body, taps

    def forward(self, images):
        maps = {{}}
        hooks = [self.body.get_submodule(path).register_forward_hook(
            lambda module, given, output, path=path: maps.update({{path: output}}))
            for path in self.taps]
        self.body(images)
        for hook in hooks:
            hook.remove()
        return [maps[path].movedim(-1, 1) if last else maps[path]
                for path, last in self.taps.items()]

trunk = Trunk(body, {taps})
"""
_PYRAMID = """
class Pyramid(nn.Module):  # a feature pyramid
    def __init__(self, trunk):
        super().__init__()
        self.trunk, self.out_channels = trunk, {width}
        self.fpn = FeaturePyramidNetwork({channels}, {width})

    def forward(self, images):
        maps = self.fpn(OrderedDict((str(i), x) for i, x in enumerate(self.trunk(images))))
{coarser}        return maps
"""
_COARSER = """\
        for i in range({first}, {end}):  # every second place of the one before
            maps[str(i)] = nn.functional.max_pool2d(maps[str(i - 1)], 1, 2)
"""
_EXTRA = """
def extra(channels, width):
    half, layer = max(1, width // 2), partial(Conv2dNormActivation, activation_layer=nn.ReLU6)
    return nn.Sequential(layer(channels, half, 1), layer(half, half, 3, 2, groups=half),
                         layer(half, width, 1))

class Extra(nn.Module):  # further layers of stride 2
    def __init__(self, trunk):
        super().__init__()
        self.trunk = trunk
        self.extra = nn.ModuleList(extra(given, {width}) for given in {before})

    def forward(self, images):
        maps = self.trunk(images)
        for layer in self.extra:
            maps.append(layer(maps[-1]))
        return OrderedDict((str(i), x) for i, x in enumerate(maps))
"""
_FASTER_RCNN = """
model = FasterRCNN(
    Pyramid(trunk),
    rpn_anchor_generator=AnchorGenerator({sizes}, {ratios}),
    box_roi_pool=MultiScaleRoIAlign({names}, output_size=7, sampling_ratio=2),
    box_head=TwoMLPHead({pooled}, {hidden}),
    box_predictor=FastRCNNPredictor({hidden}, {labels}){options})
"""
_ONE_STAGE = """
model = {kind}(
    Pyramid(trunk), {labels},
    anchor_generator=AnchorGenerator({sizes}, {ratios}){options})
"""
_SSD = """
anchors = DefaultBoxGenerator({ratios}, scales={scales})
head = SSDLiteHead({channels}, anchors.num_anchors_per_location(), {labels},
                   partial(nn.BatchNorm2d, eps=0.001, momentum=0.03))
model = SSD(Extra(trunk), anchors, {size}, {labels}, head=head{options})
"""
_WHOLE = """
model = torchvision.models.get_model(
    {name!r}, weights=None, weights_backbone=None, num_classes={labels}{options})
"""
_TRANSFORM = """
# as every detector of torchvision, `model` takes a list of images with values from 0 to 1, of any
# size; `prepare` below resizes them as in training, antialiased
model.transform = GeneralizedRCNNTransform(
    {low}, {high}, {mean}, {std},
    size_divisible={multiple}, fixed_size=({width}, {height}))
"""
_DETECT = """
def detect(images):  # one, with values from 0 to 1: (1, 3, {height}, {width})
    found = model(list(images))[0]
    return found["boxes"], found["labels"]{offset}, found["scores"]
"""
_DETECTION = "from torchvision.models.detection."


def whole_lines(name: str, network: nn.Module, classes: int, keep: Keep, proposals: int) -> CodeLines:
    """Of one of torchvision's whole detectors.

    Args:
        name: in torchvision.models.
        network: as it was built.
        classes: of objects.
        keep: which detections are kept.
        proposals: of a Faster R-CNN.
    """
    code = _WHOLE.format(name=name, labels=classes + background(network),
                         options=_options(network, keep, proposals))
    return CodeLines(code, ["import torchvision"], ["torchvision"])


def assembled_lines(trunk: str, network: Any, classes: int, keep: Keep, proposals: int,
                    image_size: tuple[int, int]) -> CodeLines:
    """Of a detector that was put on a trunk.

    Args:
        trunk: its name in torchvision.models.
        network: as it was built; what can be read off it is.
        classes: of objects.
        keep: which detections are kept.
        proposals: of a Faster R-CNN.
        image_size: height and width.
    """
    neck = network.backbone
    taps = neck.trunk.taps
    said: dict[str, Any] = {
        "kind": type(network).__name__, "labels": classes + background(network),
        "options": _options(network, keep, proposals), "channels": [tap.channels for tap in taps]}
    pyramid = isinstance(neck, Pyramid)
    imports = ["import torchvision", "from collections import OrderedDict", "from torch import nn"]
    if pyramid:
        coarser = _COARSER.format(first=len(taps), end=len(taps) + neck.further)
        said |= {"width": neck.out_channels, "coarser": coarser if neck.further else ""}
        anchors = getattr(network, "rpn", network).anchor_generator
        ratios = anchors.aspect_ratios  # of every map the same
        said |= {"sizes": anchors.sizes, "ratios": f"({ratios[0]},) * {len(ratios)}"}
        imports += ["from torchvision.ops import FeaturePyramidNetwork",
                    f"{_DETECTION}anchor_utils import AnchorGenerator"]
    if isinstance(network, FasterRCNN):
        hidden = network.roi_heads.box_head.fc6.out_features
        said |= {"names": network.roi_heads.box_roi_pool.featmap_names, "hidden": hidden,
                 "pooled": network.roi_heads.box_head.fc6.in_features}
        imports += ["from torchvision.ops import MultiScaleRoIAlign", *(
            f"{_DETECTION}faster_rcnn import {name}"
            for name in ("FasterRCNN", "FastRCNNPredictor", "TwoMLPHead"))]
        template = _FASTER_RCNN
    elif pyramid:
        imports.append(f"{_DETECTION}{said['kind'].lower()} import {said['kind']}")
        template = _ONE_STAGE
    else:
        channels, further = neck.channels, len(neck.extra)
        said |= {"channels": channels, "width": channels[-1], "before": channels[-1 - further:-1],
                 "ratios": network.anchor_generator.aspect_ratios, "size": image_size,
                 "scales": network.anchor_generator.scales}
        imports += ["from functools import partial", f"{_DETECTION}ssd import SSD",
                    "from torchvision.ops import Conv2dNormActivation",
                    f"{_DETECTION}ssdlite import SSDLiteHead",
                    f"{_DETECTION}anchor_utils import DefaultBoxGenerator"]
        template = _SSD
    code = [_trunk(trunk, neck.trunk.body, taps), (_PYRAMID if pyramid else _EXTRA).format(**said),
            template.format(**said)]
    return CodeLines("\n\n".join(part.strip() for part in code), imports, ["torchvision"])


def transform_lines(image_size: tuple[int, int], mean: Any, std: Any, multiple: int) -> CodeLines:
    """What makes a batch of images with values from 0 to 1, on which the network stands."""
    height, width = image_size
    code = _TRANSFORM.format(low=min(image_size), high=max(image_size), mean=list(mean),
                             std=list(std), multiple=multiple, width=width, height=height)
    return CodeLines(code, [f"{_DETECTION}transform import GeneralizedRCNNTransform"])


def detect_lines(network: nn.Module, image_size: tuple[int, int]) -> str:
    """Defines `detect`."""
    height, width = image_size
    return _DETECT.format(height=height, width=width, offset=" - 1" * background(network))


def background(network: nn.Module) -> int:
    """Labels in front of those of the classes."""
    return 1 if isinstance(network, FasterRCNN | SSD) else 0


def _trunk(name: str, body: Any, taps: Any) -> str:
    options = ""
    if hasattr(body, "transform_input"):  # GoogLeNet, Inception
        options = (", aux_logits=False, init_weights=False, "
                   f"transform_input={body.transform_input}")
    kept = {path for path, module in body.named_modules() if not isinstance(module, nn.Identity)}
    unused: list[str] = []
    for path, module in make_network(name, pretrained=False, empty=True).named_modules():
        if path not in kept and not isinstance(module, nn.Identity) \
                and not any(path.startswith(f"{above}.") for above in unused):
            unused.append(path)
    return _TRUNK.format(name=name, options=options, unused=unused,
                         taps={tap.path: tap.channels_last for tap in taps})


def _options(network: nn.Module, keep: Keep, proposals: int) -> str:
    box = "box_" if isinstance(network, FasterRCNN) else ""
    options: dict[str, Any] = {f"{box}score_thresh": keep.score, f"{box}nms_thresh": keep.overlap,
                               f"{box}detections_per_img": keep.most}
    if box:
        options |= {f"rpn_{when}_nms_top_n_{mode}": proposals
                    for when in ("pre", "post") for mode in ("train", "test")}
    return "".join(f",\n    {name}={value!r}" for name, value in options.items())
