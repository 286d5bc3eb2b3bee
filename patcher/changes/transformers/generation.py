"""``generate`` works on mps with the caches of Unsloth's fast decoding, and with trained mixtures of experts."""

from __future__ import annotations

from patcher.changes.transformers import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import Patch

CHANGES = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="transformers.generation.utils:DeferredStopCheck.is_supported",
        replacement="patcher.replacements.transformers.generation:is_supported",
        expects="(device, cache, cache_is_returned, is_assistant)",
        needed_for="generation through Unsloth, and so GRPO",
        since="5.17",
        why="on mps alone generate asks the cache whether it can be cropped, and Unsloth's fast decoding returns a "
        "tuple",
        upstream=source("transformers/generation/utils.py", "DeferredStopCheck.is_supported"),
        until="Unsloth's fast decoding returns a Cache, or is_supported asks only a Cache",
    ),
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="transformers.generation.utils:GenerationMixin.prepare_inputs_for_generation",
        replacement="patcher.replacements.transformers.generation:prepare_inputs_for_generation",
        expects="(self, input_ids, next_sequence_length=None, past_key_values=None, attention_mask=None, "
        "inputs_embeds=None, is_first_iteration=False, **kwargs)",
        needed_for=None,
        everywhere=True,
        why="after a training with TRL a mixture of experts computes its balancing loss for each token that it "
        "generates, and the mask has another shape than the tokens",
        upstream=source("transformers/models/qwen3_moe/modeling_qwen3_moe.py", "load_balancing_loss_func"),
        until="generate does not ask for the logits of routers, or load_balancing_loss_func takes a mask of the cache",
    ),
)
