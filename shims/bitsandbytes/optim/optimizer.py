"""The bases of the optimizers, which Unsloth derives from and tests with isinstance."""

from __future__ import annotations

from typing import Any

import torch

from bitsandbytes.functional import missing

INSTEAD = (
    'use optim="adamw_torch_fused" in the training arguments (torch.optim.AdamW(..., fused=True) in a loop of your '
    "own), or pip install bitsandbytes"
)
"""What to do instead of using an optimizer of bitsandbytes."""


class Optimizer8bit(torch.optim.Optimizer):
    """Base of all of them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise missing(f"optim.{type(self).__name__}", INSTEAD)


class Optimizer1State(Optimizer8bit):
    """Base of those with one state per parameter."""


class Optimizer2State(Optimizer8bit):
    """Base of those with two states per parameter."""
