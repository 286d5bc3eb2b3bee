"""GRPO's checkpoint, written as a whole."""

from __future__ import annotations

from functools import partial
from typing import Any

from patcher.engine.ledger import original
from patcher.replacements.transformers.trainer_checkpoint import save_whole


def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
    """Saves as TRL does; what it adds to transformers' checkpoint is in place together with it."""
    save_whole(
        self, trial, partial(original("trl.trainer.grpo_trainer:GRPOTrainer._save_checkpoint"), self, model, trial)
    )
