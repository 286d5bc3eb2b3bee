"""Arguments that were changed after they were created, or unpickled, are looked at again when a Trainer takes them."""

from __future__ import annotations

from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution="transformers",
        reviewed=">=5.17,<5.18",
        target="transformers.trainer:Trainer.create_accelerator_and_postprocess",
        replacement="patcher.replacements.transformers.trainer:create_accelerator_and_postprocess",
        expects="(self)",
        needed_for=None,
        why="set_optimizer, set_dataloader, a hyperparameter search, `args.optim = ...` and torch.load of "
        "training_args.bin change arguments without __post_init__",
        upstream="transformers 5.17.0 trainer.py: Trainer.__init__ and _hp_search_setup call it before they read args",
        until="patcher.changes.transformers.training_args is not needed",
    ),
)
