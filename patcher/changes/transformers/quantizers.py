"""A 4-bit or 8-bit model that is loaded without ``device_map`` is on mps, as it is on the GPU with CUDA."""

from __future__ import annotations

from patcher.changes.transformers import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = tuple(
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target=f"transformers.quantizers.quantizer_bnb_{bits}bit:Bnb{bits}BitHfQuantizer.update_device_map",
        replacement="patcher.replacements.transformers.quantizers:update_device_map",
        expects="(self, device_map)",
        needed_for=None,
        why="device_map=None is the GPU for CUDA, XPU, NPU and HPU, and the CPU for mps",
        upstream=source(
            f"transformers/quantizers/quantizer_bnb_{bits}bit.py", f"Bnb{bits}BitHfQuantizer.update_device_map"
        ),
        until="update_device_map has a branch for mps",
    )
    for bits in (4, 8)
)
