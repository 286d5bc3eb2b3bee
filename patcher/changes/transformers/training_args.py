"""TrainingArguments, SFTConfig, GRPOConfig and every other subclass ask only for what mps can do."""

from __future__ import annotations

from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution="transformers",
        reviewed=">=5.17,<5.18",
        target="transformers.training_args:TrainingArguments.__post_init__",
        replacement="patcher.replacements.transformers.training_args:__post_init__",
        expects="(self)",
        needed_for="training arguments written for CUDA: optimizers and precisions that mps lacks",
        why="arguments written for CUDA name optimizers, pinned memory, worker processes and precisions that mps lacks",
        upstream="transformers 5.17.0 training_args.py: TrainingArguments.__post_init__, _validate_args",
        until="transformers chooses these by device",
    ),
)
