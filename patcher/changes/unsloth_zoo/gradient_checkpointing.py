"""``use_gradient_checkpointing="unsloth"`` is torch's own checkpointing on mps: exact, and nothing is moved."""

from __future__ import annotations

from functools import partial

from patcher.changes.unsloth_zoo import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    expects="(dtype=None)",
    needed_for="gradient checkpointing, which would copy through CUDA streams and round fp32 activations to bf16",
    why="offloading copies activations from unified memory to unified memory, through CUDA streams, and rounds fp32 "
    "ones to bf16",
    upstream=source("unsloth_zoo/gradient_checkpointing.py", "UnslothCheckpointFunction"),
    until="UnslothCheckpointFunction does not offload on mps",
)

CHANGES = tuple(
    _patch(
        target=f"unsloth_zoo.gradient_checkpointing:{name}",
        replacement=f"patcher.replacements.unsloth_zoo.gradient_checkpointing:{name}",
    )
    for name in ("patch_unsloth_smart_gradient_checkpointing", "initialize_unsloth_gradient_checkpointing")
)
