"""A loss that is no number stops the training and names its module, where the user asks for it."""

from __future__ import annotations

from patcher.changes.transformers import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="transformers.trainer:Trainer.compute_loss_context_manager",
        replacement="patcher.replacements.transformers.trainer_loss:compute_loss_context_manager",
        expects="(self)",
        needed_for=None,
        everywhere=True,
        why="logging_nan_inf_filter puts the average loss in the place of a NaN in the logs, and training goes on",
        upstream=source("transformers/trainer.py", "Trainer.training_step"),
        until="transformers has an argument that stops at a loss that is no number",
    ),
)
