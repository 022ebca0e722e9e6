"""Waveforms of several lengths in one batch, each read as if it were alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class RealFramesNorm(nn.GroupNorm):
    """A group normalisation of each channel over time that leaves out what is padding.

    wav2vec2-base and its kin normalise the first convolution's output (B, C, T) so, and with the
    padding among the statistics a recording's score depends on its neighbours' lengths.

    Args:
        norm: of one channel a group, which it replaces; its parameters stay.
        convolution: in front of it.
    """

    def __init__(self, norm: nn.GroupNorm, convolution: nn.Conv1d) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, device="meta")
        self.weight, self.bias = norm.weight, norm.bias
        self.kernel, self.stride = convolution.kernel_size[0], convolution.stride[0]
        self.samples: Tensor | None = None
        """Frames per recording (B,), during a forward of the network."""

    def begin(self, network: nn.Module, arguments: Any, named: Mapping[str, Any]) -> None:
        """Take the lengths of a batch's recordings, before the network's forward."""
        mask = named.get("attention_mask")
        self.samples = None if mask is None else mask.sum(-1)

    def end(self, network: nn.Module, arguments: Any, output: Any) -> None:
        """Forget them."""
        self.samples = None

    def forward(self, hidden: Tensor) -> Tensor:
        if self.samples is None:
            return super().forward(hidden)
        frames = ((self.samples - self.kernel) // self.stride + 1)[:, None, None]  # (B, 1, 1)
        real = torch.arange(hidden.shape[-1], device=hidden.device) < frames  # (B, 1, T)
        with torch.autocast(hidden.device.type, enabled=False):
            wide = hidden.float()
            centred = wide - (wide * real).sum(-1, keepdim=True) / frames
            variance = (centred.square() * real).sum(-1, keepdim=True) / frames
            scale = torch.rsqrt(variance + self.eps) * self.weight[:, None]
            return (centred * scale + self.bias[:, None]).to(self.weight.dtype)


class Silence:
    """Zeroes padding in front of convolutions over frames, as the end of a recording is padded.

    Args:
        kernels, strides: of the layers that make frames of samples.
    """

    def __init__(self, kernels: Sequence[int], strides: Sequence[int]) -> None:
        self.layers = list(zip(kernels, strides, strict=True))
        self.frames: Tensor | None = None

    def begin(self, network: nn.Module, arguments: Any, named: Mapping[str, Any]) -> None:
        """As `RealFramesNorm.begin`."""
        if (mask := named.get("attention_mask")) is not None:
            frames = mask.sum(-1)
            for kernel, stride in self.layers:
                frames = (frames - kernel) // stride + 1
            self.frames = frames[:, None, None]

    def end(self, network: nn.Module, arguments: Any, output: Any) -> None:
        """Forget them."""
        self.frames = None

    def before(self, convolution: nn.Module, arguments: tuple[Any, ...]) -> Any:
        """The frames (B, C, T) that a convolution reads, those of padding zero."""
        if self.frames is None:
            return None
        hidden = arguments[0]
        real = torch.arange(hidden.shape[-1], device=hidden.device) < self.frames
        return (hidden * real, *arguments[1:])


def settle_padding(network: Any) -> None:
    """Keep the padding of a batch out of what a network computes of its waveforms.

    transformers hides it from attention alone. Hooks are bound methods, which copies of the
    network bring along.
    """
    config = network.config
    if getattr(config, "feat_extract_norm", None) == "group":
        for layer in list(network.modules()):
            if (isinstance(getattr(layer, "conv", None), nn.Conv1d)
                    and isinstance(getattr(layer, "layer_norm", None), nn.GroupNorm)):
                norm = RealFramesNorm(layer.layer_norm, layer.conv)
                layer.layer_norm = norm.train(layer.layer_norm.training)
                _around(network, norm)
    silence = Silence(config.conv_kernel, config.conv_stride)
    for path, module in network.named_modules():
        made = "feature_extractor" in path or "adapter" in path  # of other lengths
        if isinstance(module, nn.Conv1d) and max(module.kernel_size) > 1 and not made:
            module.register_forward_pre_hook(silence.before)
    _around(network, silence)


def _around(network: nn.Module, part: RealFramesNorm | Silence) -> None:
    network.register_forward_pre_hook(part.begin, with_kwargs=True)
    network.register_forward_hook(part.end, always_call=True)


def over_frames(network: Any, output: Any, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """A batch's inputs, with the mask over what the network gives of a waveform, not its samples."""
    if "input_values" not in inputs or inputs.get("attention_mask") is None:
        return inputs
    frames = output.last_hidden_state.shape[1]
    mask = network._get_feature_vector_attention_mask(frames, inputs["attention_mask"])
    return {**inputs, "attention_mask": mask.long()}
