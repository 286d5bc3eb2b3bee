"""When ``generate`` may decide one step late whether to stop, and what it asks a model for."""

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


def prepare_inputs_for_generation(
    self: Any,
    input_ids: Any,
    next_sequence_length: int | None = None,
    past_key_values: Any = None,
    attention_mask: Any = None,
    inputs_embeds: Any = None,
    is_first_iteration: bool | None = False,
    **kwargs: Any,
) -> Any:
    """As upstream, without the logits of routers that the configuration asks for: they are for the training's loss.

    Who passes ``output_router_logits`` to ``generate`` gets what upstream gives.
    """
    if getattr(self.config.get_text_config(), "output_router_logits", False):
        kwargs.setdefault("output_router_logits", False)
    return original("transformers.generation.utils:GenerationMixin.prepare_inputs_for_generation")(
        self,
        input_ids,
        next_sequence_length=next_sequence_length,
        past_key_values=past_key_values,
        attention_mask=attention_mask,
        inputs_embeds=inputs_embeds,
        is_first_iteration=is_first_iteration,
        **kwargs,
    )
