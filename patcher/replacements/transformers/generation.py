"""When ``generate`` may decide one step late whether to stop."""

from __future__ import annotations

from typing import Any

from patcher.engine.ledger import original


def is_supported(device: Any, cache: Any, cache_is_returned: bool, is_assistant: bool) -> bool:
    """As upstream for its own caches; never for a tuple of keys and values, which cannot be cropped."""
    if cache is not None and not hasattr(cache, "is_croppable"):
        return False
    answer: bool = original("transformers.generation.utils:DeferredStopCheck.is_supported")(
        device, cache, cache_is_returned, is_assistant
    )
    return answer
