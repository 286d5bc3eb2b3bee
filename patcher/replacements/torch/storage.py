"""Storages that a script asks for on CUDA, made on mps."""

from __future__ import annotations

from typing import Any

from patcher.engine.ledger import original
from patcher.replacements.torch.cuda_device import MPS, is_cuda, say_once


def cuda(self: Any, device: Any = None, non_blocking: bool = False) -> Any:
    """A copy on mps; the storage itself where it is there."""
    say_once()
    return self.to(device=MPS)


def to(self: Any, *, device: Any, non_blocking: bool = False) -> Any:
    """As torch, with mps for CUDA."""
    if is_cuda(device):
        say_once()
        device, non_blocking = MPS, False
    return original("torch.storage:_StorageBase.to")(self, device=device, non_blocking=non_blocking)


def __new__(cls: type, *args: Any, **kwargs: Any) -> Any:  # noqa: N807 - it replaces a class's
    """As torch, with mps for CUDA."""
    if is_cuda(kwargs.get("device")):
        say_once()
        kwargs = {**kwargs, "device": MPS}
    return original("torch.storage:UntypedStorage.__new__")(cls, *args, **kwargs)


def validate_map_location(map_location: Any = None) -> Any:
    """As torch, with mps for CUDA."""
    if is_cuda(map_location):
        say_once()
        map_location = MPS
    return original("torch.jit._serialization:validate_map_location")(map_location)
