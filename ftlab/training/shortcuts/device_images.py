"""Images that are kept: resident on the GPU, where batches are gathered and normalised."""

from __future__ import annotations

import torch

from ftlab.training.shortcuts.base import Fitting, NotApplicable, Shortcut, ShortcutPlan


class DeviceImages(Shortcut):
    """Let batches bring the names of images that lie on the device."""

    step = "device"
    event = "hardware"

    def applies(self, fitting: Fitting) -> ShortcutPlan:
        data = fitting.run.data
        images = [] if data.blank_inputs else data.kept_images()  # none with --plain
        room, wanted = room_for_images(fitting.device), sum(cache.bytes for cache in images)
        if not room or not wanted:
            raise NotApplicable
        if wanted > room:
            raise NotApplicable(f"images stay in memory: {wanted / 1e6:,.0f} MB are more than "
                                f"{room / 1e6:,.0f}, a sixteenth of the GPU")
        for cache in images:
            cache.reside(fitting.device)
        return ShortcutPlan(f"images reside on the device ({wanted / 1e6:,.1f} MB)", bytes=wanted)


def room_for_images(device: torch.device) -> int:
    """Bytes of a device that a run may fill with its images: a sixteenth of a GPU's memory."""
    if device.type != "cuda":
        return 0
    return int(torch.cuda.get_device_properties(device).total_memory) // 16
