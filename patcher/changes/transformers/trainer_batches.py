"""A row without tokens is named, where upstream's error speaks of the embedding's indices."""

from __future__ import annotations

from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution="transformers",
        reviewed=">=5.17,<5.18",
        target="transformers.trainer:Trainer._prepare_inputs",
        replacement="patcher.replacements.transformers.trainer_batches:_prepare_inputs",
        expects="(self, inputs)",
        needed_for=None,
        why="a collator makes a float tensor of a row without tokens, and the embedding refuses its batch without a "
        "word about the row",
        upstream="trl 1.15.0 trainer/sft_trainer.py: DataCollatorForLanguageModeling.torch_call; transformers 5.17.0 "
        "trainer.py: Trainer._prepare_inputs",
        until="TRL or Unsloth name such a row, or leave it out",
    ),
)
