"""Folders in Hugging Face's layout: on disk, in a package, or on the hub at a revision."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from ftlab.backbones.gguf_file import is_gguf, unpacked
from ftlab.backbones.source import is_hub_id, reason, resolve_path
from ftlab.backbones.untrusted_settings import check_folder, read_json
from ftlab.errors import InputError

_SETTINGS = ["*.json", "*.txt", "*.model"]  # config, tokenizer, image processor, pooling
_WEIGHTS = (("model", "safetensors"), ("pytorch_model", "bin"))  # safetensors are preferred


def find_folder(source: str, revision: str | None, weights: bool = True) -> Path:
    """The local folder of `source`, downloaded where it is a hub id (then cached by the hub).

    Args:
        source: local folder or .gguf file, `package:NAME/PATH` for one, or hub id.
        revision: branch, tag or commit, for a hub id alone.
        weights: also the weights, not only the settings.

    Raises:
        InputError: nothing there, or the hub cannot be reached.
    """
    if not is_hub_id(source) or is_gguf(source):
        if revision is not None:
            raise InputError(f"{source}: a revision ({revision}) is given, but this is no hub id",
                             "leave revision out, or name the model's hub id")
        if is_gguf(source):
            return _checked(unpacked(source, weights))
        folder = resolve_path(source)
        if not folder.is_dir():
            raise InputError(f"{source}: not a folder", "name the folder with config.json in it")
        return _checked(folder)
    folder = _checked(_snapshot(source, revision, _SETTINGS))
    if weights:
        for stem, kind in _WEIGHTS:
            folder = _snapshot(source, revision, [f"{stem}*.{kind}"])
            if any(folder.glob(f"{stem}*.{kind}")):
                break
    return folder


def _checked(folder: Path) -> Path:
    """A folder that may be given to transformers.

    Raises:
        InputError: its settings ask for what they may not.
    """
    check_folder(folder)
    return folder


def find_tokenizer(source: str) -> Path:
    """The local folder of a tokenizer: as `find_folder`, or a hub id as NAME@REVISION.

    Raises:
        InputError: nothing there, or the hub cannot be reached.
    """
    name, at, revision = source.rpartition("@")
    if at and is_hub_id(name) and not Path(source).exists():
        return find_folder(name, revision, weights=False)
    return find_folder(source, None, weights=False)


def _snapshot(source: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, EntryNotFoundError, OSError) as error:
        at = f" at revision {revision}" if revision else ""
        raise InputError(
            f"{source}: no such folder here, and not available from the hub{at}: {reason(error)}",
            "check the name and the network (HF_HUB_OFFLINE must be unset), or give a local "
            "folder or package:NAME/PATH") from error


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights: one, or the shards that an index names.

    Raises:
        InputError: there are none, or a shard is missing.
    """
    for stem, kind in _WEIGHTS:
        whole, index = folder / f"{stem}.{kind}", folder / f"{stem}.{kind}.index.json"
        if whole.is_file():
            return [whole]
        if index.is_file():
            files = [folder / name for name in _shards(index)]
            for path in files:
                if not path.is_file():
                    raise InputError(f"{path}: missing, but named by {index.name}",
                                     "get the whole folder again")
            return files
    raise InputError(f"{folder}: no weights (model.safetensors or pytorch_model.bin)",
                     "name the folder that holds config.json and the weights")


def _shards(index: Path) -> list[str]:
    """The names of files that an index says the tensors are in."""
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards \
            or not all(isinstance(name, str) for name in shards.values()):
        raise InputError(f"{index}: its weight_map does not name the files of tensors",
                         "get the whole folder again")
    for name in shards.values():
        if Path(name).name != name:
            raise InputError(f"{index}: it names {name}, which is not a file beside it",
                             "get the whole folder again")
    return sorted(set(shards.values()))
