"""``generate`` computes rows that have ended no more."""

from __future__ import annotations

from patcher.changes.transformers import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import Patch

CHANGES = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="transformers.generation.utils:GenerationMixin._sample",
        replacement="patcher.replacements.transformers.live_rows:_sample",
        expects="(self, input_ids, logits_processor, stopping_criteria, generation_config, synced_gpus=False, "
        "streamer=None, **model_kwargs)",
        needed_for=None,
        why="rollouts that have ended are computed, and their keys and values read, until the longest one ends",
        upstream=source("transformers/generation/utils.py", "GenerationMixin._sample"),
        until="generate leaves rows out that have ended",
    ),
)
