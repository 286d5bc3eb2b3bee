"""What a Trainer does on mps before it creates its accelerator."""

from __future__ import annotations

from typing import Any

from patcher.engine.ledger import current_machine, original
from patcher.training import arguments


def create_accelerator_and_postprocess(self: Any) -> None:
    """Fits ``self.args`` to mps once more, then creates the accelerator as transformers does."""
    here = current_machine()
    changed = {outcome.field for outcome in arguments.rewrite(self.args, here)}
    if "bf16" in changed:
        self.args.mixed_precision = "bf16" if self.args.bf16 else "fp16" if self.args.fp16 else "no"
    arguments.settle(self.args, here)
    original("transformers.trainer:Trainer.create_accelerator_and_postprocess")(self)
