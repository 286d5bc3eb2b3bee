"""``with torch.device("cuda")`` and ``torch.set_default_device("cuda")`` choose mps."""

from __future__ import annotations

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="torch.utils._device:DeviceContext.__init__",
        replacement="patcher.replacements.torch.device_context:__init__",
        expects="(self, device)",
        needed_for=None,
        why="torch.tensor within the context starts CUDA, and from_pretrained asks it where the model is to go",
        upstream=source("torch/utils/_device.py", "DeviceContext"),
        until="torch itself takes 'cuda' for mps where there is no CUDA",
    ),
)
