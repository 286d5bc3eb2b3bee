"""The loss is looked at before its gradient is computed, where the user asks for it."""

from __future__ import annotations

from patcher.changes.accelerate import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="accelerate.accelerator:Accelerator.backward",
        replacement="patcher.replacements.transformers.trainer_loss:backward",
        expects="(self, loss, **kwargs)",
        needed_for=None,
        everywhere=True,
        why="every trainer passes its loss here, and a NaN in it must be seen before it reaches the weights",
        upstream=source("accelerate/accelerator.py", "Accelerator.backward"),
        until="transformers has an argument that stops at a loss that is no number",
    ),
)
