"""What Unsloth's choice of an attention implementation asks of the device."""

from __future__ import annotations


def _flex_attention_gpu_is_supported() -> bool:
    """Answers as for a card below Ampere: Gemma 3 takes eager attention, which trains, instead of flex attention."""
    return False
