"""A run's model as a folder that its own ecosystem loads."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from ftlab.backbones.base import Backbone
from ftlab.backbones.heads.causal import CausalModel
from ftlab.backbones.heads.single_precision import half_of, narrow_head
from ftlab.backbones.new_tokens import fold
from ftlab.backbones.preprocessing import AudioPreprocessing, Preprocessing
from ftlab.backbones.task_model import HeadLayer, TaskModel
from ftlab.errors import Incompatible, InputError
from ftlab.exports import verify
from ftlab.exports.card import card
from ftlab.exports.comparison import comparison
from ftlab.exports.head_code import has_virtual_tokens
from ftlab.exports.loading_code import LoadingCode
from ftlab.exports.new_folder import free, growing_folder
from ftlab.exports.preprocessors import write_preprocessor
from ftlab.exports.push import check_repository, send
from ftlab.exports.restore_run import Restored, restore_run
from ftlab.exports.state_dict import write_state
from ftlab.exports.transformers_folder import (
    answers_pipelines,
    network_of,
    unload,
    write_adapter,
    write_whole,
)
from ftlab.tracking.registry import Registry

_MERGE = "export it with --merged"


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        folder: of the model; None where it was registered alone.
        form: what it is, one sentence.
        files: names in the folder.
        version: of the registered model, as `NAME/3`; empty where none was asked for.
        url: of the hub's repository that has it; empty where none does.
    """

    folder: Path | None
    form: str
    files: tuple[str, ...]
    version: str = ""
    url: str = ""


def export_run(
    run: str, out: str | Path | None = None, merged: bool = False, onnx: bool = False,
    register: str | None = None, tracking_uri: str | None = None, allow: Sequence[str] = (),
    push: str | None = None, public: bool = False, dry_run: bool = False,
) -> Exported:
    """Write a run's model as its own ecosystem loads it, and register it, if that is asked for.

    What is written has been loaded without ftlab and compared with the run's model, which itself
    has given some of the run's stored predictions again. The folder appears whole or not at all.

    Args:
        run: MLflow's id of a finished run, or the beginning of one.
        out: the folder to make; it must not exist, or be empty. None where `register` is given.
        merged: fold an adapter into the weights, instead of a folder beside the base model.
        onnx: also write `model.onnx`; needs the extra `onnx`.
        register: name in MLflow's model registry.
        tracking_uri: as in `Tracker`.
        allow: packages outside ftlab whose classes the run may name.
        push: repository of the Hugging Face hub to send it to, `NAME` or `OWNER/NAME`; its card then
            compares the technique with the others of its study.
        public: make that repository public, where it is made; it is private otherwise.
        dry_run: send nothing; `out` holds what would be sent.

    Raises:
        InputError: no such run, files that changed since, or a folder that is taken.
        Incompatible: no other library can hold this model; says why.
        FtlabError: the exported model would not be the run's.
    """
    if out is None and register is None and push is None:
        raise InputError("nothing to do: neither a folder nor a name to register",
                         "give --out DIR, --register NAME, or both")
    if push is not None:
        check_repository(push, out is not None, dry_run)
    folder = None if out is None else free(Path(out))
    registry = Registry(tracking_uri) if register is not None else None
    if registry is not None:
        registry.check_name(str(register))
    with restore_run(run, tracking_uri, allow, dequantized=True) as restored, growing_folder(folder) as growing:
        compared = "" if push is None else comparison(restored, tracking_uri)
        loading, form = write_model(restored, growing, merged, onnx, folder, compared)
        files = tuple(sorted(str(p.relative_to(growing)) for p in growing.rglob("*") if p.is_file()))
        version = ""
        if registry is not None:
            from ftlab.exports.pyfunc import register_model

            version = register_model(registry, str(register), restored, loading, growing)
        url = "" if push is None or dry_run else send(growing, push, public, restored.title)
    return Exported(folder, form, files, version, url)


def write_model(
    restored: Restored, folder: Path, merged: bool = False, onnx: bool = False,
    place: Path | None = None, compared: str = "",
) -> tuple[LoadingCode, str]:
    """Fill an empty folder with a restored model, compared and with its card.

    Args:
        restored: the model.
        folder: to write to.
        merged: as in `export_run`.
        onnx: as in `export_run`.
        place: where the folder will lie; None for where it is.
        compared: a part of its card, see `card`.

    Returns:
        How it is loaded; what it is, one sentence.

    Raises:
        Incompatible: no other library can hold this model; says why.
        FtlabError: the exported model would not be the run's.
    """
    verify.reproduce(restored)
    loading, form, notes = _write(restored, folder, merged, (place or folder).absolute())
    if onnx:
        from ftlab.exports.onnx_file import write_onnx

        notes.append(write_onnx(restored, folder))
    text = card(restored, loading, form, restored.cell, notes, compared)
    (folder / "README.md").write_text(text, encoding="utf-8")
    mode = stat.S_IMODE(folder.stat().st_mode)
    for path in folder.rglob("*"):  # safetensors writes for its owner alone
        path.chmod(mode if path.is_dir() else mode & 0o666)
    return loading, form


def _write(restored: Restored, folder: Path, merged: bool,
           place: Path) -> tuple[LoadingCode, str, list[str]]:
    """Write the network and what goes with it, and hold both to the run's model."""
    model, backbone, data = restored.model, restored.run.backbone, restored.run.data
    if model.reading is not None:
        raise Incompatible(f"{type(restored.run.technique).__name__} changes no weights and reads "
                           "the model through prompts of its own",
                           "take the pre-trained model itself")
    if any(isinstance(module, HeadLayer) for module in model.modules()):
        raise Incompatible(f"{type(restored.run.technique).__name__} puts a layer of ftlab in the place "
                           "of the linear head, which no other library has", "use `ftlab predict`")
    chosen = verify.samples(restored)
    expected, notes = verify.expected_outputs(restored, chosen), list[str]()
    adapted = isinstance(model.network, PeftModel) or any(
        isinstance(module, BaseTunerLayer) for module in model.modules())
    if merged and (adapted or "merge" in restored.run.technique.hooks):
        _merge(restored)
        before, expected = expected, verify.expected_outputs(restored, chosen)
        gap = verify.largest_change(before, expected, model)
        notes.append(f"Merged into weights of {half_of(model) or 'float32'}, by which outputs change by up to "
                     f"{gap:.2g}.")
        adapted = False
    loading, inputs = LoadingCode(), chosen[0].inputs
    if dtype := narrow_head(model):
        before, expected = expected, verify.expected_outputs(restored, chosen)
        gap = verify.largest_change(before, expected, model)
        notes.append(f"The head was trained in float32 and is rounded to {dtype}, as the network is, by which "
                     f"outputs change by up to {gap:.2g}.")
    if data.task.fold(output_layer(model)):
        before, expected = expected, verify.expected_outputs(restored, chosen)
        verify.check_folded(data.task, chosen, before, expected)
    network, preprocessing, fit = network_of(model), backbone.preprocessing, data.image_fit
    size = None if fit is None else fit.size
    base = f"base-{restored.record.run_id[:8]}" if adapted else ""
    plain = None if adapted else backbone.export_code(model, data.task, size)
    if plain is not None and plain.preprocessing is not None:
        preprocessing = plain.preprocessing
    examples = data.export_code(preprocessing, model)
    if network is None and plain is None:
        raise _not_ours_alone(backbone, model, adapted)
    fold(model)
    if plain is not None:
        write_state(loading, plain, data.task, folder)
        form = f"A state dict for {plain.library}'s {plain.name}."
    elif adapted:
        notes += write_adapter(loading, model, data.task, inputs, folder, base, place)
        form = f"A PEFT adapter, and in {base} the network that it adapts."
    else:
        longest = None if examples is None else examples.max_length
        write_whole(loading, model, data.task, inputs, folder, longest)
        form = "A model of transformers."
        if (folder / "modules.json").exists():
            form = ("A model of sentence-transformers, whose encode() gives the raw outputs, over "
                    "an encoder of transformers.")
    if network is not None:
        within = [folder / base] if base else []
        write_preprocessor(preprocessing, fit, examples, data.task, network.config, folder,
                           *within)
    notes += [*_quantized_base(backbone, base), *_without_pipeline(model, preprocessing), *loading.add_examples(data.task, examples)]
    verify.check(loading, folder, data.task, chosen, expected)
    return loading, form, notes


def _quantized_base(backbone: Backbone, base: str) -> Iterator[str]:
    """Note on the form that a quantised base has in the folder."""
    if backbone.quantize is not None:
        kind = backbone.quantize
        yield (f"It was trained on a base quantised to {kind.quant_type}"
               f"{' with double quantisation' if kind.double_quant else ''}"
               f"{', its embeddings to int8' if kind.embeddings else ''}. {base or 'The folder'} holds "
               "the weights in floating point that this stands for, which bitsandbytes is not needed for; "
               "the checkpoint before quantisation is another network.")


def _without_pipeline(model: TaskModel, preprocessing: Preprocessing) -> Iterator[str]:
    """Why transformers' pipelines do not answer as the lines do, where they do not."""
    if isinstance(model, CausalModel) and has_virtual_tokens(model) and getattr(
            model.network.active_peft_config, "peft_type", "") != "PREFIX_TUNING":
        yield ("transformers' pipelines answer as the lines do where a batch has one prompt: in "
               "larger ones padding stands between PEFT's virtual tokens and the prompts.")
    if not answers_pipelines(model):
        yield ("transformers' pipelines have no place for the head of this model, and make one of "
               "random weights: take the lines above.")
    if isinstance(preprocessing, AudioPreprocessing) and preprocessing.spectrogram \
            and not preprocessing.longest.is_integer():
        yield (f"The network reads {preprocessing.longest:g} seconds, and transformers' pipelines "
               "whole ones alone: they end in a TypeError. Take the lines above.")


def output_layer(model: TaskModel) -> nn.Linear | None:
    """The head's last layer, where that is linear, with a bias, and precise."""
    layers = [module for _, module in model.head.named_modules()
              if any(True for _ in module.parameters(recurse=False))]
    last = layers[-1] if layers else None
    if not isinstance(last, nn.Linear) or last.bias is None:
        return None
    return last if last.weight.dtype == torch.float32 else None


def _not_ours_alone(backbone: Backbone, model: TaskModel, adapted: bool) -> Incompatible:
    """Why a network that is not of transformers is not written."""
    if adapted:
        return Incompatible(f"{type(backbone).__name__} networks take no PEFT folder", _MERGE)
    return Incompatible(f"{type(backbone).__name__} does not say how a library builds its "
                        f"{type(model.network).__name__} without ftlab", "use `ftlab predict`")


def _merge(restored: Restored) -> None:
    """Fold an adapter into the weights, and leave nothing of it.

    Raises:
        Incompatible: no weights can hold it.
    """
    technique = restored.run.technique
    if not technique.merge(restored.model):
        raise Incompatible(f"{type(technique).__name__} adds what no weights of the network can "
                           "hold", "export it without --merged")
    fold(restored.model)  # before the layers around an embedding go
    unload(restored.model)

