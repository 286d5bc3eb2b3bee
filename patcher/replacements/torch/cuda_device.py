"""Requests for a CUDA device land on mps.

Two operators carry every factory function and every copy to a device: ``empty`` and ``empty_strided``. Given kernels
for the CUDA dispatch key that allocate on mps, ``torch.zeros(..., device="cuda:0")`` and ``x.to("cuda:0")`` cost not
one instruction more than on mps. What remains are the calls that ask torch for CUDA's device guard, which a build
without CUDA does not have: these get the device's name changed before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch.jit._builtins import _register_builtin
from torch.utils._device import _device_constructors

from patcher.engine.ledger import LEDGER, original

log = logging.getLogger("patcher")

MPS = torch.device("mps", 0)


def say_once() -> None:
    """Tells the user, once, that the script's "cuda" is mps here."""
    if LEDGER.is_news("cuda"):
        log.warning('patcher: the script asks for "cuda": it gets mps')


def empty(
    size: list[int],
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    """An uninitialised tensor of ``size`` on mps."""
    allocated: torch.Tensor = torch.ops.aten.empty.memory_format(
        size, dtype=dtype, layout=layout, device=MPS, pin_memory=False, memory_format=memory_format
    )
    return allocated


def empty_strided(
    size: list[int],
    stride: list[int],
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
) -> torch.Tensor:
    """An uninitialised tensor of ``size`` and ``stride`` on mps."""
    allocated: torch.Tensor = torch.ops.aten.empty_strided.default(
        size, stride, dtype=dtype, layout=layout, device=MPS, pin_memory=False
    )
    return allocated


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None, **_: Any) -> Any:
    """The indices of the lower triangle, (2, n), on mps."""
    return torch.tril_indices(row, col, offset, dtype=dtype or torch.long, device="cpu").to(MPS)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None, **_: Any) -> Any:
    """The indices of the upper triangle, (2, n), on mps."""
    return torch.triu_indices(row, col, offset, dtype=dtype or torch.long, device="cpu").to(MPS)


def is_cuda(device: Any) -> bool:
    """Whether a device argument (text, number excepted, or ``torch.device``) names CUDA."""
    if isinstance(device, str):
        return device == "cuda" or device.startswith("cuda:")
    return isinstance(device, torch.device) and device.type == "cuda"


def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """``Tensor.to``, with mps for CUDA; it returns when the copy has been made, ``non_blocking`` or not."""
    if args and is_cuda(args[0]):
        say_once()
        args = (MPS, *args[1:])
    elif kwargs and is_cuda(kwargs.get("device")):
        say_once()
        kwargs["device"] = MPS
    if kwargs.get("non_blocking"):
        kwargs["non_blocking"] = False
    elif True in args[1:3]:
        args = _blocking(args)
    return _TENSOR_TO(self, *args, **kwargs)


def _blocking(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of ``Tensor.to`` by position: the first truth value is ``non_blocking``, a second is ``copy``."""
    first = next((place for place, value in enumerate(args) if isinstance(value, bool)), len(args))
    return (*args[:first], False, *args[first + 1 :]) if first < len(args) else args


def copy_(self: torch.Tensor, src: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """``Tensor.copy_``, which returns when the copy has been made."""
    return _TENSOR_COPY(self, src)


def cuda(self: torch.Tensor, device: Any = None, non_blocking: bool = False, **kwargs: Any) -> torch.Tensor:
    """``Tensor.cuda``: a copy on mps."""
    say_once()
    return _TENSOR_TO(self, MPS, **kwargs)


_TENSOR_TO = torch._C.TensorBase.to
_TENSOR_COPY = torch._C.TensorBase.copy_
_TENSOR, _AS_TENSOR = torch.tensor, torch.as_tensor

# ``with torch.device(...)`` compares the called function with this set, which torch makes once, from the names as they
# are then: it must hold the originals, since they are what is called (torch 2.13.0, torch/utils/_device.py).
_device_constructors()


def tensor(data: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    """``torch.tensor``, with mps for CUDA."""
    return _on_mps(_TENSOR, data, args, kwargs)


def as_tensor(data: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    """``torch.as_tensor``, with mps for CUDA."""
    return _on_mps(_AS_TENSOR, data, args, kwargs)


_register_builtin(tensor, "aten::tensor")  # torch.jit.script looks up what a script calls by identity
_register_builtin(as_tensor, "aten::as_tensor")


def _on_mps(factory: Callable[..., torch.Tensor], data: Any, args: Any, kwargs: Any) -> torch.Tensor:
    if kwargs and is_cuda(kwargs.get("device")):
        say_once()
        kwargs["device"] = MPS
    elif len(args) > 1 and is_cuda(args[1]):
        say_once()
        args = (args[0], MPS, *args[2:])
    return factory(data, *args, **kwargs)


def autocast_init(
    self: torch.amp.autocast,
    device_type: str,
    dtype: torch.dtype | None = None,
    enabled: bool = True,
    cache_enabled: bool | None = None,
) -> None:
    """``autocast("cuda")`` acts on mps instead of switching itself off; so does ``enabled=False``."""
    if device_type == "cuda":
        say_once()
        device_type = "mps"
    original("torch.amp.autocast_mode:autocast.__init__")(self, device_type, dtype, enabled, cache_enabled)


def grad_scaler_init(
    self: torch.amp.GradScaler,
    device: str = "cuda",
    init_scale: float = 2.0**16,
    growth_factor: float = 2.0,
    backoff_factor: float = 0.5,
    growth_interval: int = 2000,
    enabled: bool = True,
) -> None:
    """``GradScaler("cuda")`` scales on mps instead of switching itself off."""
    if device == "cuda":
        say_once()
        device = "mps"
    original("torch.amp.grad_scaler:GradScaler.__init__")(
        self, device, init_scale, growth_factor, backoff_factor, growth_interval, enabled
    )


def _get_restore_location(map_location: Any) -> Callable[..., Any]:
    """Files saved on CUDA, and ``map_location="cuda"``, are loaded onto mps."""
    if is_cuda(map_location):
        say_once()
        map_location = MPS
    elif isinstance(map_location, dict):
        map_location = {key: str(MPS) if is_cuda(value) else value for key, value in map_location.items()}
    restore = original("torch.serialization:_get_restore_location")(map_location)

    def restore_location(storage: Any, location: Any) -> Any:
        if map_location is None and is_cuda(location):
            say_once()
            return restore(storage, str(MPS))
        return restore(storage, location)

    return restore_location
