"""``generate`` works on mps with the key-value caches that Unsloth's fast decoding returns."""

from __future__ import annotations

from patcher.engine.model import Patch

CHANGES = (
    Patch(
        distribution="transformers",
        reviewed="==5.17.0",
        target="transformers.generation.utils:DeferredStopCheck.is_supported",
        replacement="patcher.replacements.transformers.generation:is_supported",
        expects="(device, cache, cache_is_returned, is_assistant)",
        needed_for="generation through Unsloth, and so GRPO",
        why="on mps alone generate asks the cache whether it can be cropped; Unsloth's fast decoding returns a tuple",
        upstream="transformers 5.17.0 generation/utils.py: DeferredStopCheck.is_supported",
        until="Unsloth returns a Cache, or transformers asks only a Cache",
    ),
)
