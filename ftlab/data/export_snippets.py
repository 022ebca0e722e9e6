"""Lines without ftlab that several data modules share: how a file becomes a network's inputs."""

from __future__ import annotations

from torch import nn

from ftlab.backbones.export_code import CodeLines
from ftlab.backbones.preprocessing import AudioPreprocessing, ImageFit, ImagePreprocessing
from ftlab.data.image_decode import FORMATS

AT_ONCE = 32
"""Examples that the lines compute together, however many they are given."""

_TOKENIZER = "tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)"
_IMAGE = f"""
def read(image):  # a path, or an open file; uint8 (3, H, W)
    opened = Image.open(image, formats={list(FORMATS)})
    return functional.pil_to_tensor(ImageOps.exif_transpose(opened).convert("RGB"))

"""
_PREPARE = """
def prepare(image):
{fit}
    return {normalised}.to({dtype})
"""
_CROPPED = """\
    scale = max({height} / image.shape[-2], {width} / image.shape[-1])
    size = [math.ceil(edge * scale - 1e-6) for edge in image.shape[-2:]]
    image = functional.resize(image, size if scale <= 1 else [{height}, {width}],
                              InterpolationMode({interpolation!r}), antialias=True)
    image = functional.center_crop(image, [{height}, {width}]).float() / 255"""
_STRETCHED = """\
    image = functional.resize(image, [{height}, {width}], InterpolationMode({interpolation!r}),
                              antialias=True).float() / 255"""
_PROCESSED = """
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)

def prepare(image):
    inputs = processor(image, input_data_format="channels_first", return_tensors="pt")
    return inputs["pixel_values"][0].to({dtype})
"""
_SOUND = """
extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)

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


def with_tokenizer(code: str) -> CodeLines:
    """`code` behind the tokenizer that the export has."""
    return CodeLines(f"{_TOKENIZER}\n\n{code.strip()}", ["from transformers import AutoTokenizer"],
                 ["transformers"])


def with_images(code: str, preprocessing: ImagePreprocessing, fit: ImageFit,
                model: nn.Module) -> CodeLines:
    """`code` behind `read` and `prepare`, which makes one image (3, h, w) of what `read` gives."""
    imports = ["from PIL import Image", "from PIL import ImageOps",
               "from torchvision.transforms.v2 import functional"]
    if fit.processor is not None:
        prepare = _PROCESSED.format(dtype=_dtype(model))
        return CodeLines("\n\n".join(part.strip() for part in (_IMAGE, prepare, code)),
                     [*imports, "from transformers import AutoImageProcessor"],
                     ["transformers", "torchvision", "pillow"])
    height, width = fit.size
    how = (_CROPPED if fit.crops else _STRETCHED).format(
        height=height, width=width, interpolation=preprocessing.interpolation)
    mean, std = list(preprocessing.mean), list(preprocessing.std)
    changes = any(mean) or any(value != 1 for value in std)
    ready = f"functional.normalize(image, {mean}, {std})" if changes else "image"
    imports += ["from torchvision.transforms.v2 import InterpolationMode"]
    imports += ["import math"] if fit.crops else []
    prepare = _PREPARE.format(fit=how, normalised=ready, dtype=_dtype(model))
    return CodeLines("\n\n".join(part.strip() for part in (_IMAGE, prepare, code)), imports,
                 ["torchvision", "pillow"])


def with_sound(code: str, preprocessing: AudioPreprocessing, model: nn.Module,
               tokenizer: bool = False) -> CodeLines:
    """`code` behind `prepare`, which makes a batch of one of a recording.

    Args:
        code: may use the tokenizer that the export has, if that is said.
        preprocessing: of the network.
        model: says the dtype.
        tokenizer: whether `code` does.
    """
    # one recording at a time has no padding that a mask would mark
    names = ["input_features" if preprocessing.spectrogram else "input_values"]
    rate = preprocessing.sampling_rate
    how = (f"max_length={round(preprocessing.longest * rate)}" if preprocessing.spectrogram
           else "padding=True")
    prepare = _SOUND.format(rate=rate, names=names, dtype=_dtype(model), how=how)
    parts = [*([_TOKENIZER] if tokenizer else []), prepare.strip(), code.strip()]
    auto = ["from transformers import AutoTokenizer"] if tokenizer else []
    return CodeLines("\n\n".join(parts), [
        "import math", "import soundfile", "from scipy.signal import resample_poly",
        "from transformers import AutoFeatureExtractor", *auto],
        ["transformers", "soundfile", "scipy"])


def _dtype(model: nn.Module) -> str:
    return str(next(model.parameters()).dtype)
