"""What TrainingArguments does on mps after its fields are set."""

from __future__ import annotations

from typing import Any

from patcher.engine.ledger import current_machine, original
from patcher.training import arguments


def __post_init__(self: Any) -> None:  # noqa: N807  (the target's own name)
    """Fits the fields to mps, then validates and completes them as transformers does."""
    here = current_machine()
    arguments.rewrite(self, here)
    original("transformers.training_args:TrainingArguments.__post_init__")(self)
    arguments.settle(self, here)
