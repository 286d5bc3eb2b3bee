"""What accelerate may put on a Mac's GPU is what torch may take there."""

from __future__ import annotations

from patcher.changes.accelerate import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="accelerate.utils.modeling:get_max_memory",
        replacement="patcher.replacements.accelerate.modeling:get_max_memory",
        expects="(max_memory=None)",
        needed_for=None,
        why="infer_auto_device_map takes what the system has free for the GPU's, and CUDA's device 0 for none",
        upstream=source("accelerate/utils/modeling.py", "get_max_memory"),
        until="get_max_memory asks torch.mps what may be used",
    ),
)
