"""What GRPO adds to a checkpoint belongs to it: complete or absent together."""

from __future__ import annotations

from patcher.changes.trl import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="trl.trainer.grpo_trainer:GRPOTrainer._save_checkpoint",
        replacement="patcher.replacements.trl.grpo_trainer:_save_checkpoint",
        expects="(self, model, trial)",
        needed_for=None,
        everywhere=True,
        why="the state of the adaptive entropy bonus is written after the checkpoint is complete, and a kill loses it",
        upstream=source("trl/trainer/grpo_trainer.py", "GRPOTrainer._save_checkpoint"),
        until="Trainer._save_checkpoint of transformers is not patched",
    ),
)
