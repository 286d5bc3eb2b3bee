"""The two autocast decorators of ``torch.amp``, with mps where CUDA is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from patcher.engine.ledger import original


def custom_fwd(
    fwd: Callable[..., Any] | None = None, *, device_type: str, cast_inputs: torch.dtype | None = None
) -> Any:
    """``torch.amp.custom_fwd``; ``device_type="cuda"`` means mps."""
    decorate = original("torch.amp:custom_fwd")
    return decorate(fwd, device_type=_mps_for_cuda(device_type), cast_inputs=cast_inputs)


def custom_bwd(bwd: Callable[..., Any] | None = None, *, device_type: str) -> Any:
    """``torch.amp.custom_bwd``; ``device_type="cuda"`` means mps."""
    return original("torch.amp:custom_bwd")(bwd, device_type=_mps_for_cuda(device_type))


def _mps_for_cuda(device_type: str) -> str:
    return "mps" if device_type == "cuda" else device_type
