"""A model as ONNX, held to PyTorch's outputs by ONNX Runtime."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.backbones.passes import tensors
from ftlab.backbones.source import reason
from ftlab.errors import FtlabError, Incompatible, InputError
from ftlab.exports import verify
from ftlab.exports.restore_run import Restored

FILE = "model.onnx"
_TOLERANCE = 1e-4
"""Kernels of another library sum in another order."""


class _Positional(nn.Module):
    """A model called with its inputs one after another, as ONNX calls it."""

    def __init__(self, model: Any, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values: Tensor) -> Tensor:
        outputs: Tensor = self.model({"inputs": dict(zip(self.names, values, strict=True))})
        return outputs


def write_onnx(restored: Restored, folder: Path) -> str:
    """Write `model.onnx`, from inputs to raw outputs, for batches and texts of any size.

    Returns:
        A note on it for users.

    Raises:
        InputError: the extra `onnx` is not installed.
        Incompatible: a model that writes or finds, or that ONNX cannot express.
        FtlabError: ONNX Runtime computes something else.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise InputError(f"--onnx needs the packages onnx, onnxscript and onnxruntime ({error})",
                         "pip install 'ftlab[onnx]'") from error
    model, task = restored.model, restored.run.data.task
    if task.output_type not in ("vector", "tokens"):
        raise Incompatible(f"--onnx: one graph holds no model of the form {task.output_type}, "
                           "which is called again and again or picks boxes",
                           "export it without --onnx, and give the folder to an exporter of its "
                           "own library")
    chosen = verify.samples(restored)
    names = list(chosen[0].inputs)
    wide = {name: torch.cat([chosen[0].inputs[name]] * 2) for name in names}
    path = folder / FILE
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's notes on its own insides
            torch.onnx.export(
                _Positional(model, names), tuple(wide.values()), str(path), input_names=names,
                output_names=["outputs"], dynamo=True, external_data=False, verbose=False,
                dynamic_shapes={"values": tuple(_axes(name, wide[name]) for name in names)})
    except Exception as error:  # the exporter raises its own and torch's kinds alike
        raise Incompatible(f"--onnx: torch.onnx cannot express this model: {type(error).__name__}: "
                           f"{reason(error)}",
                           "export it without --onnx") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for sample in chosen:
        fed = {name: value.numpy() for name, value in sample.inputs.items()}
        given = [torch.from_numpy(value) for value in session.run(None, fed)]
        with torch.no_grad():
            ours = tensors(model({"inputs": sample.inputs}))
        if not verify.close(given, ours, _TOLERANCE):
            raise FtlabError(f"--onnx: ONNX Runtime gives other outputs for {sample.name}",
                             "export it without --onnx")
    return f"{FILE} takes {', '.join(names)} and gives the raw outputs (ONNX, any batch size)."


def _axes(name: str, value: Tensor) -> dict[int, Any]:
    """The axes that change: the batch's, of token ids also the length."""
    dynamic = {0: torch.export.Dim.DYNAMIC}
    if name in ("input_ids", "attention_mask", "token_type_ids", "input_values"):
        dynamic[1] = torch.export.Dim.DYNAMIC
    return dynamic
