"""``torch.Generator("cuda")``, ``torch.Stream(device="cuda")`` and ``torch.Event(device="cuda")`` are of mps."""

from __future__ import annotations

from patcher.changes.torch import DISTRIBUTION, REVIEWED, native
from patcher.engine.model import Patch

CHANGES = tuple(
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target=f"torch:{name}",
        replacement=f"patcher.replacements.torch.device_types:{name}",
        needed_for=None,
        why=f"torch.{name}('cuda') needs torch's CUDA library",
        upstream=native(f"torch/csrc/{name}.cpp", f"THP{name}_pynew"),
        until="torch itself takes 'cuda' for mps where there is no CUDA",
    )
    for name in ("Generator", "Stream", "Event")
)
