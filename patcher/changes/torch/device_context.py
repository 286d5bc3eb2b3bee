"""``with torch.device("cuda")`` and ``torch.set_default_device("cuda")`` choose mps."""

from __future__ import annotations

from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution="torch",
        reviewed=">=2.13,<2.15",
        target="torch.utils._device:DeviceContext.__init__",
        replacement="patcher.replacements.torch.device_context:__init__",
        expects="(self, device)",
        needed_for=None,
        why="torch.tensor within the context starts CUDA, and from_pretrained asks it where the model is to go",
        upstream="torch 2.13.0 torch/utils/_device.py; transformers 5.17.0 get_torch_context_manager_or_global_device",
        until="never: scripts written for CUDA are what this project is for",
    ),
)
