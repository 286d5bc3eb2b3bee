"""Random numbers on mps that nothing may divide by otherwise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from patcher.engine.ledger import original


def exponential_(keys: Any, self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """As torch, without zeros: the smallest normal number of the dtype takes their place."""
    original("aten::exponential_ on MPS").call_boxed(keys, self, lambd, generator=generator)
    return self.clamp_min_(torch.finfo(self.dtype).tiny)
