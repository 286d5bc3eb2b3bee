"""What a Trainer does on mps before it creates its accelerator."""

from __future__ import annotations

from typing import Any

from patcher import machine, training_arguments
from patcher.ledger import original


def create_accelerator_and_postprocess(self: Any) -> None:
    """Fits ``self.args`` to mps once more, then creates the accelerator as transformers does."""
    here = machine.current()
    changed = {outcome.field for outcome in training_arguments.rewrite(self.args, here)}
    if "bf16" in changed:
        self.args.mixed_precision = "bf16" if self.args.bf16 else "fp16" if self.args.fp16 else "no"
    training_arguments.settle(self.args, here)
    original("transformers.trainer:Trainer.create_accelerator_and_postprocess")(self)
