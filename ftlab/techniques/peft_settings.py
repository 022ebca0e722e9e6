"""Settings of PEFT's methods: which there are, and those that ftlab fits to the layers."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, Literal

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn

from ftlab.errors import Incompatible
from ftlab.techniques.peft_methods import METHODS, Size, below_both, divides_both, widths
from ftlab.wording import did_you_mean, listed

# ftlab's: where the layers go and what trains beside them; or what it holds to nothing
_HIDDEN = {
    *(entry.name for entry in dataclasses.fields(PeftConfig)), "target_modules", "exclude_modules",
    "target_parameters", "modules_to_save", "layers_to_transform", "layers_pattern", "bias",
    "fan_in_fan_out", "megatron_core", "use_qalora", "qalora_group_size", "lora_bias",
    "ensure_weight_tying", "save_projection", "save_only_topk_weights", "save_indices",
}
_COUNTS = {"r", "init_r", "target_r", "num_vectors", "topk"}
_INITIAL = ("init_weights", "init_lora_weights", "init_ia3_weights")


def config_class(method: str) -> type[PeftConfig]:
    """PEFT's config of a method."""
    kind: type[PeftConfig] = PEFT_TYPE_TO_CONFIG_MAPPING[method.upper()]  # type: ignore[index]  # a str
    return kind


def usual_targets(method: str) -> Mapping[str, Any]:
    """PEFT's choice of layers by architecture, LoRA's where the method has none."""
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[method.upper()]  # type: ignore[index]  # a str
    return (getattr(tuner, "target_module_mapping", None)
            or TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING)


def settings(method: str) -> dict[str, Any]:
    """The settings of a method and their annotations."""
    kind, hidden = config_class(method), _HIDDEN | set(METHODS[method].hidden)
    hints = typing.get_type_hints(kind)
    return {entry.name: hints[entry.name] for entry in dataclasses.fields(kind)
            if entry.name not in hidden and any(map(_plain, _options(hints[entry.name])))}


def default(method: str, key: str) -> Any:
    """PEFT's value of a setting."""
    return next(entry.default for entry in dataclasses.fields(config_class(method))
                if entry.name == key)


def check_config(method: str, config: Mapping[str, Any]) -> None:
    """Refuse settings that a method does not have.

    Raises:
        ValueError: an unknown key, or a value of another type.
    """
    known = settings(method)
    for key, value in config.items():
        if key not in known:
            raise ValueError(f"PEFT's {method} has no setting {key!r} "
                             f"({did_you_mean(key, sorted(known))})")
        options = _options(known[key])
        if key.endswith("alpha"):  # which PEFT may declare an integer, and only ever divides
            options = [*options, float]
        if not any(_is(value, option) for option in options):
            wanted = listed([*dict.fromkeys(map(_named, filter(_plain, options)))])
            raise ValueError(f"config: {key} takes {wanted}, got {value!r}")
        if (key in _COUNTS or key == getattr(_size(method, config), "key", "")) and value < 1:
            raise ValueError(f"{key} must be at least 1, got {value}")
        if key.endswith("dropout") and not 0 <= value < 1:
            raise ValueError(f"{key} must be from 0 to below 1, got {value}")
    value = initial(method, config)
    if isinstance(value, str) and method == "lora" and value not in ("gaussian", *METHODS[method].narrower):
        raise ValueError(f"config: init_lora_weights {value!r} needs data or is not exact; take true, "
                         f"gaussian, {listed([*METHODS[method].narrower])}")


def initial(method: str, config: Mapping[str, Any]) -> Any:
    """How the adapters' weights start: the config's word for it, None where it has none."""
    for key in _INITIAL:
        if key in {entry.name for entry in dataclasses.fields(config_class(method))}:
            return config.get(key, default(method, key))
    return None


def kinds_for(method: str, config: Mapping[str, Any]) -> Collection[str]:
    """The kinds of layers that a method is right on, with this config."""
    known = METHODS[method]
    value = initial(method, config)
    return known.narrower.get(value, known.kinds) if isinstance(value, str) else known.kinds


def sized(
    method: str, config: Mapping[str, Any], layers: Mapping[str, nn.Module], label: str, all_of_them: bool
) -> tuple[list[str], dict[str, Any], list[str]]:
    """Fit a method's size to its layers.

    Args:
        method: a key of `METHODS`.
        config: as the user gives it.
        layers: by path.
        label: for messages.
        all_of_them: whether none may be left out.

    Returns:
        Paths of the layers that have a size, the setting that was chosen, and notes on both.

    Raises:
        Incompatible: the config's size does not fit the layers, or none does.
    """
    size = _size(method, config)
    if size is None:
        return list(layers), {}, []
    wanted = config.get(size.key, default(method, size.key))
    fit = {path: layer for path, layer in layers.items()
           if all_of_them or size.choose(wanted, [layer]) is not None}
    chosen = size.choose(wanted, fit.values()) if fit else None
    if chosen is None:
        raise Incompatible(f"{label}: {size.key} {wanted} does not fit layers of "
                           f"{_shapes(layers)}, and no smaller one does", "name other targets")
    notes = [f"{label} leaves out {path}, of {_shapes({path: layer})}: no {size.key} fits it"
             for path, layer in layers.items() if path not in fit]
    if chosen == wanted:
        return list(fit), {}, notes
    what = f"{label}: {size.key} {wanted} does not fit layers of {_shapes(fit)}"
    if size.key in config:
        raise Incompatible(what, f"the largest that does is {chosen}")
    return list(fit), {size.key: chosen}, [*notes, f"{what}; {chosen} does, and is taken"]


def _shapes(layers: Mapping[str, nn.Module]) -> str:
    shapes = sorted({widths(layer) for layer in layers.values()})
    some = [f"{inputs} to {outputs}" for inputs, outputs in shapes]
    return f"{', '.join(some[:4])}{' and other' if len(some) > 4 else ''} features"


def _size(method: str, config: Mapping[str, Any]) -> Size | None:
    if method == "lora":
        low_rank = initial(method, config) in ("pissa", "olora")
        return Size("r", below_both) if low_rank else None
    if method == "miss" and initial(method, config) == "bat":
        return Size("r", divides_both)
    return METHODS[method].size


def _options(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [part for option in typing.get_args(annotation) for part in _options(option)]
    return [annotation]


def _plain(option: Any) -> bool:
    return option in (bool, int, float, str) or typing.get_origin(option) is Literal


def _is(value: Any, option: Any) -> bool:
    if typing.get_origin(option) is Literal:
        return value in typing.get_args(option)
    if option is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return _plain(option) and type(value) is option


def _named(option: Any) -> str:
    if typing.get_origin(option) is Literal:
        return listed([str(choice) for choice in typing.get_args(option)])
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[option]
