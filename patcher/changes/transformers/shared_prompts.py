"""``generate`` computes a prompt that several rows share once."""

from __future__ import annotations

from patcher.changes.transformers import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import Patch

CHANGES = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="transformers.generation.utils:GenerationMixin._prefill",
        replacement="patcher.replacements.transformers.shared_prompts:_prefill",
        expects="(self, input_ids, generation_config, model_kwargs, is_first_iteration=True)",
        needed_for=None,
        since="5.3",
        why="each completion of a prompt that GRPO asks for computes the prompt again, and takes memory for it",
        upstream=source("transformers/generation/utils.py", "GenerationMixin._prefill"),
        until="generate computes a prompt that is repeated once",
    ),
)
