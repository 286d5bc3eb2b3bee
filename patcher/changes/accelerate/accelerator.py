"""The loss is looked at before its gradient is computed, where the user asks for it."""

from __future__ import annotations

from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution="accelerate",
        reviewed=">=1.10,<2",
        target="accelerate.accelerator:Accelerator.backward",
        replacement="patcher.replacements.transformers.trainer_loss:backward",
        expects="(self, loss, **kwargs)",
        needed_for=None,
        why="every trainer passes its loss here, and a NaN in it must be seen before it reaches the weights",
        upstream="accelerate 1.x accelerator.py: Accelerator.backward",
        until="transformers can stop at a loss that is no number",
    ),
)
