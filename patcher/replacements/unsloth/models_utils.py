"""What ``unsloth.models._utils`` asks of the device, and what it has for other devices only."""

from __future__ import annotations

import importlib.util

import torch

HAS_FLASH_ATTENTION_SOFTCAPPING = importlib.util.find_spec("flash_attn") is not None
"""What Gemma 2 is told: it imports flash-attn, and its attention comes to `run_attention` with a softcap."""

torch_amp_custom_fwd = torch.amp.custom_fwd(device_type="mps")
"""Decorates the forward of an autograd function that runs below autocast on mps."""

torch_amp_custom_bwd = torch.amp.custom_bwd(device_type="mps")
"""Decorates the backward of one."""


def _flex_attention_gpu_is_supported() -> bool:
    """Answers as for a card below Ampere: Gemma 3 takes eager attention, which trains, instead of flex attention."""
    return False
