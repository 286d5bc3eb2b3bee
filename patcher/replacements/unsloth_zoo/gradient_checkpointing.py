"""Unsloth's gradient checkpointing without its offloading."""

from __future__ import annotations

from typing import Any


def patch_unsloth_smart_gradient_checkpointing(dtype: Any = None) -> None:
    """Leaves ``torch.utils.checkpoint`` as it is: the activations at the checkpoints stay where they are."""


def initialize_unsloth_gradient_checkpointing(dtype: Any = None) -> None:
    """Allocates none of the buffers that offloading needs."""
