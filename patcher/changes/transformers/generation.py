"""``generate`` works on mps with the key-value caches that Unsloth's fast decoding returns."""

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
        why="on mps alone generate asks the cache whether it can be cropped, and Unsloth's fast decoding returns a "
        "tuple",
        upstream=source("transformers/generation/utils.py", "DeferredStopCheck.is_supported"),
        until="Unsloth's fast decoding returns a Cache, or is_supported asks only a Cache",
    ),
)
