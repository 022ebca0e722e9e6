"""Examples of a hub's data set, through the `datasets` package: `hf:NAME[:CONFIG[:SPLIT]]`.

NAME may be a local folder, for instance one that `save_to_disk` wrote.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

from huggingface_hub import snapshot_download

from ftlab.backbones.source import is_hub_id, reason, resolve_path
from ftlab.data.dataset_card import CARDS, check_card
from ftlab.data.examples import SPLITS, SplitName, kind_of
from ftlab.data.folder_files import check_files
from ftlab.errors import InputError
from ftlab.wording import closest

PREFIX = "hf:"
_UNLABELLED = -1  # what a hub writes where the labels are kept secret


def read_hub(source: str, split: SplitName, columns: Sequence[str | int],
             optional: Collection[str | int] = ()) -> tuple[str, list[tuple[Any, ...]]]:
    """Name of the split within the data set, and the named columns of its rows.

    Class labels come by name. The columns are the input's and the label's.

    Args:
        source: the data set.
        split: which one it is wanted for, unless the source names one.
        columns: by name, the label's last.
        optional: those that may be lacking; their cells are None then.

    Raises:
        InputError: no such data set, configuration, split or column; `datasets` is missing.
    """
    name, data = _split(source, split)
    for column in columns:
        if column not in data.column_names and column not in optional:
            close = closest(column, data.column_names)
            guess = f"did you mean {close[0]!r}? " if close else ""
            raise InputError(f"{source} has no column {column!r}",
                             f"{guess}it has: {', '.join(data.column_names)}")
    if not len(data):
        raise InputError(f"{source}: the split {name!r} has no rows", "name another split")
    values = [_values(data, str(column)) if column in data.column_names else [None] * len(data)
              for column in columns]
    if not optional and all(label is None for label in values[-1]):
        raise InputError(f"{source}: the split {name!r} has no labels",
                         "name others, for instance train: hf:NAME:CONFIG:train and "
                         "test: hf:NAME:CONFIG:validation")
    return name, list(zip(*values, strict=True))


def all_columns(source: str, split: SplitName) -> dict[str, list[Any]]:
    """Every column of a split, as `read_hub` gives them."""
    _, data = _split(source, split)
    return {name: _values(data, name) for name in data.column_names}


def _split(source: str, split: SplitName) -> tuple[str, Any]:
    splits = _load(source)
    _, _, chosen = _parts(source)
    name = chosen or kind_of(split)
    if name not in splits:
        raise InputError(f"{source} has no split {name!r}",
                         f"name one as hf:NAME:CONFIG:SPLIT; it has: {', '.join(splits)}")
    return name, splits[name]


def named_splits(source: str) -> Sequence[SplitName]:
    """Which of train, validation and test a data set has, unless `source` names one split."""
    if _parts(source)[2]:
        return ()
    return [name for name in SPLITS if name in _load(source)]


def _values(data: Any, column: str) -> list[Any]:
    import datasets

    feature = data.features[column]
    # the encoded bytes: decoding is the data module's, the same for every source
    if (encoded := _encoded(feature)) != feature:
        data = data.cast_column(column, encoded)
    values = list(data[column])
    if isinstance(feature, datasets.ClassLabel):
        return [None if value in (None, _UNLABELLED) else feature.int2str(value)
                for value in values]
    inner = getattr(feature, "feature", None)  # of a list: a tag a word
    if isinstance(inner, datasets.ClassLabel):
        # a row without its labels is empty, as a single label is
        return [None if row is None or None in row or _UNLABELLED in row
                else [inner.int2str(value) for value in row] for row in values]
    return values


def _encoded(feature: Any) -> Any:
    """A feature whose images, recordings and documents stay as their files have them."""
    if isinstance(feature, dict):
        return {name: _encoded(inner) for name, inner in feature.items()}
    if isinstance(feature, list):
        return [_encoded(inner) for inner in feature]
    if isinstance(getattr(feature, "decode", None), bool):
        return dataclasses.replace(feature, decode=False)
    if getattr(feature, "feature", None) is not None:  # of a list
        return dataclasses.replace(feature, feature=_encoded(feature.feature))
    return feature


def _load(source: str) -> dict[str, Any]:
    try:
        import datasets
    except ModuleNotFoundError:
        raise InputError(f"{source}: the package datasets is not installed",
                         'pip install "ftlab[hub]"') from None
    name, config, _ = _parts(source)
    if name.startswith(("/", ".", "~", "$")):
        name = str(resolve_path(name))
    if Path(name).is_dir():
        check_files(Path(name).rglob("*"), Path(name))
        check_card(Path(name))
    saved = any((Path(name) / mark).exists() for mark in ("dataset_dict.json", "dataset_info.json"))
    try:
        if is_hub_id(name):
            check_card(Path(snapshot_download(name, repo_type="dataset", allow_patterns=[*CARDS])))
        loaded = (datasets.load_from_disk(name) if saved else datasets.load_dataset(name, config))
    # not found, offline, an unknown configuration; a script; damaged
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"{source} does not load: {reason(error)}",
                         "check the name and configuration, and the network") from None
    if isinstance(loaded, datasets.DatasetDict):
        return cast(dict[str, Any], dict(loaded))
    return {"train": loaded}


def _parts(source: str) -> tuple[str, str | None, str | None]:
    name, _, rest = source.removeprefix(PREFIX).partition(":")
    config, _, split = rest.partition(":")
    return name, config or None, split or None
