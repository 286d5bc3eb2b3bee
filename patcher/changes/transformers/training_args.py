"""TrainingArguments, SFTConfig, GRPOConfig and every other subclass ask only for what mps can do."""

from __future__ import annotations

from patcher.changes.transformers import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="transformers.training_args:TrainingArguments.__post_init__",
        replacement="patcher.replacements.transformers.training_args:__post_init__",
        expects="(self)",
        needed_for="training arguments written for CUDA: optimizers and precisions that mps lacks",
        why="arguments written for CUDA name optimizers, pinned memory, worker processes and precisions that mps lacks",
        upstream=source("transformers/training_args.py", "TrainingArguments.__post_init__"),
        until="TrainingArguments chooses optimizer, precision, pinned memory and workers by device",
    ),
)
