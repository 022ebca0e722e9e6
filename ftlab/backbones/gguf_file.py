"""Language models in llama.cpp's format: one .gguf file, unpacked once a machine.

transformers reads such a file in pure Python (23 s of CPU time for SmolLM2-135M: 3 s settings,
4 s tokenizer, 16 s weights), so what it read is kept in Hugging Face's layout below
`$FTLAB_CACHE` (default `~/.cache/ftlab`), float32, and every later run reads that.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file

from ftlab.backbones.cache_folder import damaged
from ftlab.backbones.source import DAMAGED_WEIGHTS, resolve_path, sha256_of
from ftlab.backbones.untrusted_settings import bounded, closed
from ftlab.errors import InputError
from ftlab.files import is_full, replacing
from ftlab.files import write as write_file

_SETTINGS, _WEIGHTS = "config.json", "model.safetensors"
_SHA256 = ".sha256"  # of files that were unpacked together, beside the last of them


def is_gguf(source: str) -> bool:
    """Return whether `source` names a .gguf file."""
    return source.lower().endswith(".gguf")


def gguf_files(source: str) -> list[Path]:
    """The file that `source` names, as a list (as of weight files).

    Raises:
        InputError: no such file, or a folder.
    """
    path = resolve_path(source)
    if not path.is_file():
        raise InputError(f"{source}: not a file", "name the .gguf file itself")
    return [path]


def unpacked(source: str, weights: bool) -> Path:
    """The folder with what `source` holds: config, tokenizer and, where asked for, weights.

    Quantised weights are converted to float32, exactly. The folder's name has the file's sha256
    and the version of transformers, whose conversion it is.

    Raises:
        InputError: the package gguf is missing, or the file cannot be read.
    """
    files = gguf_files(source)
    cache = Path(os.environ.get("FTLAB_CACHE", "~/.cache/ftlab")).expanduser()
    folder = cache / "gguf" / f"{sha256_of(files)[:16]}-{transformers.__version__}"
    if not _whole(folder, _SETTINGS):
        _fill(folder, source, lambda new: _unpack_settings(files[0], new))
    if weights and not _whole(folder, _WEIGHTS):
        _fill(folder, source, lambda new: _unpack_weights(files[0], folder, new))
    return folder


def _whole(folder: Path, last: str) -> bool:
    """Return whether files that were put into place together are what they were."""
    record = folder / f"{last}{_SHA256}"
    try:
        recorded = json.loads(record.read_text(encoding="utf-8"))
        wrong = [name for name, digest in recorded.items() if sha256_of([folder / name]) != digest]
    except FileNotFoundError as error:
        if not record.is_file():  # not unpacked yet, or by an ftlab that recorded nothing
            return False
        wrong = [Path(error.filename).name]
    except (ValueError, AttributeError):
        wrong = [record.name]
    if wrong:
        damaged(f"{folder}: {', '.join(wrong)}")
    return not wrong


def _fill(folder: Path, source: str, write: Callable[[Path], Sequence[str]]) -> None:
    """Write files beside and move them into place in the given order, each whole."""
    if importlib.util.find_spec("gguf") is None:
        raise InputError(f"{source}: reading a .gguf file needs the package gguf",
                         'pip install "ftlab[gguf]"')
    folder.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=folder))
    try:
        names = write(new)
        recorded = {name: sha256_of([new / name]) for name in names}
        for name in names:
            with replacing(folder / name) as whole:
                os.replace(new / name, whole)
        # after them: what a killed process leaves has no record, and is made again
        write_file(folder / f"{names[-1]}{_SHA256}", json.dumps(recorded))
    except (*DAMAGED_WEIGHTS, StrictDataclassError) as error:
        if is_full(error):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{source}: cannot be read as GGUF: {reason}",
                         "get the file again, or one of an architecture that transformers "
                         "converts") from error
    finally:
        shutil.rmtree(new)


def _unpack_settings(file: Path, new: Path) -> list[str]:
    with _alone(file) as (parent, name), closed():
        try:
            transformers.AutoTokenizer.from_pretrained(
                parent, gguf_file=name, trust_remote_code=False).save_pretrained(new)
        except Exception as error:
            if type(error) is not Exception:
                raise
            raise ValueError(error) from error  # tokenizers has no kind of its own
        transformers.AutoConfig.from_pretrained(
            parent, gguf_file=name, trust_remote_code=False).save_pretrained(new)
    others = sorted(path.name for path in new.iterdir() if path.name != _SETTINGS)
    return [*others, _SETTINGS]  # last: it says that the rest is there


@contextmanager
def _alone(file: Path) -> Iterator[tuple[str, str]]:
    """The file as a folder and a name in it: transformers also obeys the settings beside a file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / file.name).symlink_to(file.absolute())
        yield folder, file.name


def _unpack_weights(file: Path, settings: Path, new: Path) -> list[str]:
    with closed():
        config = transformers.AutoConfig.from_pretrained(os.fspath(settings),
                                                         trust_remote_code=False)
    causal = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
    most = 8 * file.stat().st_size + 2**26  # of one bit each
    with torch.random.fork_rng(devices=[]), _alone(file) as (parent, name), closed(), \
            bounded(most, file):
        loaded: Any = auto.from_pretrained(parent, gguf_file=name, dtype=torch.float32,
                                           output_loading_info=True, trust_remote_code=False)
    network, info = loaded
    if info["missing_keys"]:
        raise ValueError(f"it lacks {', '.join(sorted(info['missing_keys'])[:5])}")
    # without tied tensors, which named_parameters gives once
    tensors = {name: tensor.detach().contiguous() for name, tensor in network.named_parameters()}
    save_file(tensors, new / _WEIGHTS, metadata={"format": "pt"})
    return [_WEIGHTS]
