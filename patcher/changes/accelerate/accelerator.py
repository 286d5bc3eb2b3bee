"""The loss is looked at before its gradient is computed, where the user asks for it; quantized models are on mps."""

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
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="accelerate.accelerator:Accelerator.prepare_model",
        replacement="patcher.replacements.accelerate.accelerator:prepare_model",
        expects="(self, model, device_placement=None, evaluation_mode=False)",
        before="1.13",
        needed_for="training through releases of Unsloth that call every model a quantized one, and 4-bit models",
        why="the device of a quantized model is compared by its number, and mps has none",
        upstream=source("accelerate/accelerator.py", "Accelerator.prepare_model"),
        until="no accelerate before 1.13 is to be used",
    ),
)
