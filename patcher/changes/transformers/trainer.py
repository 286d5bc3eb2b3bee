"""Arguments that were changed after they were created, or unpickled, are looked at again when a Trainer takes them."""

from __future__ import annotations

from patcher.changes.transformers import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="transformers.trainer:Trainer.create_accelerator_and_postprocess",
        replacement="patcher.replacements.transformers.trainer:create_accelerator_and_postprocess",
        expects="(self)",
        needed_for=None,
        why="set_optimizer, set_dataloader, a hyperparameter search, `args.optim = ...` and torch.load of "
        "training_args.bin change arguments without __post_init__",
        upstream=source("transformers/trainer.py", "Trainer.create_accelerator_and_postprocess"),
        until="the change of TrainingArguments.__post_init__ can be deleted",
    ),
)
