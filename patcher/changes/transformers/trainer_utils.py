"""The last checkpoint is the last usable one, and an old one goes whole."""

from __future__ import annotations

from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution="transformers",
        reviewed=">=5.17,<5.18",
        target="transformers.trainer_utils:get_last_checkpoint",
        replacement="patcher.replacements.transformers.trainer_utils:get_last_checkpoint",
        expects="(folder)",
        needed_for=None,
        why="the folder with the highest number is taken, also where it was written or copied only in part",
        upstream="transformers 5.17.0 trainer_utils.py: get_last_checkpoint",
        until="transformers skips checkpoints that are not complete",
    ),
    Patch(
        distribution="transformers",
        reviewed=">=5.17,<5.18",
        target="transformers.trainer_utils:rotate_checkpoints",
        replacement="patcher.replacements.transformers.trainer_utils:rotate_checkpoints",
        expects="(output_dir, save_total_limit=None, best_model_checkpoint=None, use_mtime=False, "
        'checkpoint_prefix="checkpoint")',
        needed_for=None,
        why="a kill while an old checkpoint is deleted leaves a part of it under its name",
        upstream="transformers 5.17.0 trainer_utils.py: rotate_checkpoints",
        until="transformers renames a checkpoint before it deletes it",
    ),
)
