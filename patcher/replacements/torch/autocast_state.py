"""CUDA's autocast state follows that of mps. Tensors on mps and the CPU do not take notice of it."""

from __future__ import annotations

from typing import Any

import torch

from patcher.engine.ledger import original

_BEFORE = "_patcher_cuda_state"
"""Where an autocast keeps what it found, beside ``prev`` and ``prev_fastdtype`` of its own device."""


def __enter__(self: Any) -> Any:  # noqa: N807 - it replaces a class's
    """As torch; on mps the state of CUDA's autocast becomes the same."""
    entered = original("torch.amp.autocast_mode:autocast.__enter__")(self)
    if self.device == "mps" and not torch.jit.is_scripting():
        setattr(self, _BEFORE, (torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")))
        _set(torch.is_autocast_enabled("mps"), torch.get_autocast_dtype("mps"))
    return entered


def __exit__(self: Any, exc_type: Any, exc_val: Any, exc_tb: Any) -> Any:  # noqa: N807 - it replaces a class's
    """As torch; the state of CUDA's autocast is what it was."""
    if hasattr(self, _BEFORE) and not torch.jit.is_scripting():
        _set(*getattr(self, _BEFORE))
    return original("torch.amp.autocast_mode:autocast.__exit__")(self, exc_type, exc_val, exc_tb)


def _set(enabled: bool, dtype: torch.dtype) -> None:
    torch.set_autocast_enabled("cuda", enabled)
    torch.set_autocast_dtype("cuda", dtype)
