"""``torch.Generator("cuda")``, ``torch.Stream(device="cuda")`` and ``torch.Event(device="cuda")`` are of mps."""

from __future__ import annotations

from patcher.engine.model import Patch

CHANGES = tuple(
    Patch(
        distribution="torch",
        reviewed=">=2.13,<2.15",
        target=f"torch:{name}",
        replacement=f"patcher.replacements.torch.device_types:{name}",
        needed_for=None,
        why=f"torch.{name}('cuda') needs torch's CUDA library",
        upstream=f"torch 2.13.0 torch/csrc/{name}.cpp",
        until="never: scripts written for CUDA are what this project is for",
    )
    for name in ("Generator", "Stream", "Event")
)
