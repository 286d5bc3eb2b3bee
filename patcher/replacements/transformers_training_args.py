"""What TrainingArguments does on mps after its fields are set."""

from __future__ import annotations

from typing import Any

from patcher import machine, training_arguments
from patcher.ledger import original


def __post_init__(self: Any) -> None:  # noqa: N807  (the target's own name)
    """Fits the fields to mps, then validates and completes them as transformers does."""
    here = machine.current()
    training_arguments.rewrite(self, here)
    original("transformers.training_args:TrainingArguments.__post_init__")(self)
    training_arguments.settle(self, here)
