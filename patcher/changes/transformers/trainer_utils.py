"""The last checkpoint is the last usable one, and an old one goes whole."""

from __future__ import annotations

from patcher.changes.transformers import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="transformers.trainer_utils:get_last_checkpoint",
        replacement="patcher.replacements.transformers.trainer_utils:get_last_checkpoint",
        expects="(folder)",
        needed_for=None,
        everywhere=True,
        why="the folder with the highest number is taken, also where it was written or copied only in part",
        upstream=source("transformers/trainer_utils.py", "get_last_checkpoint"),
        until="get_last_checkpoint skips checkpoints that are not complete",
    ),
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="transformers.trainer_utils:rotate_checkpoints",
        replacement="patcher.replacements.transformers.trainer_utils:rotate_checkpoints",
        expects="(output_dir, save_total_limit=None, best_model_checkpoint=None, use_mtime=False, "
        'checkpoint_prefix="checkpoint")',
        needed_for=None,
        everywhere=True,
        why="a kill while an old checkpoint is deleted leaves a part of it under its name",
        upstream=source("transformers/trainer_utils.py", "rotate_checkpoints"),
        until="rotate_checkpoints renames a checkpoint before it deletes it",
    ),
)
