"""What GRPO adds to a checkpoint belongs to it: complete or absent together."""

from __future__ import annotations

from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution="trl",
        reviewed=">=1.15,<1.16",
        target="trl.trainer.grpo_trainer:GRPOTrainer._save_checkpoint",
        replacement="patcher.replacements.trl.grpo_trainer:_save_checkpoint",
        expects="(self, model, trial)",
        needed_for=None,
        why="the state of the adaptive entropy bonus is written after the checkpoint is complete, and a kill loses it",
        upstream="trl 1.15.0 trainer/grpo_trainer.py: GRPOTrainer._save_checkpoint, entropy_ctrl_state.json",
        until="transformers writes checkpoints beside their final name and renames them",
    ),
)
