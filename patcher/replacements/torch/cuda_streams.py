"""What a script says about streams, where there is one."""

from __future__ import annotations

from typing import Any

import torch

from patcher.replacements.torch import mps

_RECORD_STREAM = torch._C.TensorBase.record_stream


def record_stream(self: torch.Tensor, s: Any) -> None:
    """Nothing to do for the queue of mps, on which memory is used in order; other streams as torch."""
    if not isinstance(s, mps.Stream):
        _RECORD_STREAM(self, s)


def set_stream(stream: Any) -> None:
    """Nothing to do: there is one queue."""
