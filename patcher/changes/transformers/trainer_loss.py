"""A loss that is no number stops the training and names its module, where the user asks for it."""

from __future__ import annotations

from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution="transformers",
        reviewed=">=5.17,<5.18",
        target="transformers.trainer:Trainer.compute_loss_context_manager",
        replacement="patcher.replacements.transformers.trainer_loss:compute_loss_context_manager",
        expects="(self)",
        needed_for=None,
        why="logging_nan_inf_filter puts the average loss in the place of a NaN in the logs, and training goes on",
        upstream="transformers 5.17.0 trainer.py: Trainer.training_step, Trainer._run_epoch",
        until="transformers can stop at a loss that is no number, at the cost of a check per module",
    ),
)
