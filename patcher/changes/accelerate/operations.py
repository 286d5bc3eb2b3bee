"""Batches of a data loader reach mps without a wait for it."""

from __future__ import annotations

from patcher.changes.accelerate import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="accelerate.utils.operations:send_to_device",
        replacement="patcher.replacements.accelerate.operations:send_to_device",
        expects="(tensor, device, non_blocking=False, skip_keys=None)",
        needed_for=None,
        why="each tensor of a batch is copied to mps when all that was launched before has run: the GPU has nothing to "
        "do until the host has launched the next step",
        upstream=source("accelerate/utils/operations.py", "send_to_device"),
        until="a non_blocking copy to mps keeps its source until it has been made (pytorch issue 139550)",
    ),
)
