"""``import bitsandbytes`` works where it is not installed, so that 16-bit training does not need it."""

from __future__ import annotations

from patcher.engine.model import Shim

CHANGES: tuple[Shim, ...] = (
    Shim(
        distribution="bitsandbytes",
        reviewed="==0.50.2+patcher",
        module="bitsandbytes",
        version="0.50.2+patcher",
        needed_for=None,
        why="scripts and libraries import it for 8-bit optimizers and 4-bit layers that a 16-bit run does not use",
        upstream="unsloth_zoo 2026.10.9 and scripts written for CUDA: `import bitsandbytes as bnb`",
        until="every library guards its import of bitsandbytes",
    ),
)
