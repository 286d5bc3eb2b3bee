"""``accelerate.utils.operations.send_to_device`` copies small tensors to mps without waiting for it.

A non-blocking copy reads its source when the GPU comes to it, which by then may hold something else (pytorch issue
139550). So it reads a copy on the host that nobody else has, which is kept until an event after it says that it has
been read.
"""

from __future__ import annotations

from collections import UserDict, deque
from typing import Any

import torch
from torch import Tensor

from patcher.engine.ledger import LEDGER, original
from patcher.replacements.torch import indexing

MOST_BYTES = 1 << 24
"""Of a tensor; a larger one is copied as ever: two copies on the host would cost more than the wait."""


def send_to_device(tensor: Any, device: Any, non_blocking: bool = False, skip_keys: Any = None) -> Any:
    """As accelerate; what goes to mps is there for all that is launched from now on."""
    if _is_mps(device):
        if _is_small(tensor):
            return _sent(tensor)
        if isinstance(tensor, UserDict) and hasattr(tensor, "to"):  # a BatchEncoding, which moves itself, in place
            skipped = (skip_keys,) if isinstance(skip_keys, str) else skip_keys or ()
            tensor.data = {
                key: _sent(value) if _is_small(value) and key not in skipped else value
                for key, value in tensor.data.items()
            }
    return original("accelerate.utils.operations:send_to_device")(tensor, device, non_blocking, skip_keys)


class _Sources:
    """Copies on the host that mps may not have read yet, each with the event that comes after its reading."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[torch.mps.Event, Tensor]] = deque()

    def keep(self, source: Tensor) -> None:
        while self.waiting and self.waiting[0][0].query():
            self.waiting.popleft()
        event = torch.mps.Event()
        event.record()
        self.waiting.append((event, source))


def _sent(tensor: Tensor) -> Tensor:
    source = tensor.detach().clone(memory_format=torch.contiguous_format)
    moved: Tensor = original("torch:Tensor.to")(source, "mps", non_blocking=True)
    LEDGER.memory(_Sources).keep(source)
    indexing.remember(tensor, moved)
    return moved


def _is_small(tensor: Any) -> bool:
    if type(tensor) is not Tensor or tensor.device.type != "cpu" or tensor.layout is not torch.strided:
        return False
    return not tensor.requires_grad and tensor.dtype is not torch.float64 and tensor.nbytes <= MOST_BYTES


def _is_mps(device: Any) -> bool:
    return isinstance(device, (str, torch.device)) and torch.device(device).type == "mps"
