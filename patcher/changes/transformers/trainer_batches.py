"""A row without tokens is named, where upstream's error speaks of the embedding's indices."""

from __future__ import annotations

from patcher.changes.transformers import DISTRIBUTION, REVIEWED
from patcher.changes.trl import source as trl
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="transformers.trainer:Trainer._prepare_inputs",
        replacement="patcher.replacements.transformers.trainer_batches:_prepare_inputs",
        expects="(self, inputs)",
        needed_for=None,
        everywhere=True,
        why="a collator makes a float tensor of a row without tokens, and the embedding refuses its batch without a "
        "word about the row",
        upstream=trl("trl/trainer/sft_trainer.py", "DataCollatorForLanguageModeling.torch_call"),
        until="TRL's collator names a row without tokens, or leaves it out",
    ),
)
