"""What a script says about streams, where there is one."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import has_torch_function

from patcher.overrides import hand_over

_RECORD_STREAM = torch._C.TensorBase.record_stream


def record_stream(self: torch.Tensor, s: Any) -> None:
    """Nothing to do on mps, whose one queue uses memory in order; elsewhere as torch."""
    if has_torch_function((self,)):
        hand_over(torch.Tensor.record_stream, (self,), (self, s), {})
    elif not self.is_mps:
        _RECORD_STREAM(self, s)
