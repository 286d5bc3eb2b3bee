"""Unsloth's loss does not wait for mps: how many labels count is known from the batch's copy on the host."""

from __future__ import annotations

from patcher.changes.unsloth_zoo import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="unsloth_zoo.fused_losses.chunked_logprob:_ce_targets",
        replacement="patcher.replacements.unsloth_zoo.chunked_logprob:_ce_targets",
        expects="(labels, mask, shift_labels, ignore_index, device)",
        needed_for=None,
        why="which rows have a label is asked of the GPU, and the host waits until it has computed the whole forward",
        upstream=source("unsloth_zoo/fused_losses/fused_linear.py", "_keep_index"),
        until="the rows of a loss can be chosen without their number",
    ),
)
