"""Requests for a CUDA device land on mps.

Two operators carry every factory function and every copy to a device: ``empty`` and ``empty_strided``. Given kernels
for the CUDA dispatch key that allocate on mps, ``torch.zeros(..., device="cuda:0")`` and ``x.to("cuda:0")`` cost not
one instruction more than on mps. What remains are the calls that ask torch for CUDA's device guard, which a build
without CUDA does not have: these get the device's name changed before.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import has_torch_function

from patcher.engine.ledger import LEDGER, original
from patcher.overrides import TENSORS, hand_over
from patcher.replacements.torch import float64, indexing

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
        size, dtype=float64.narrower(dtype), layout=layout, device=MPS, pin_memory=False, memory_format=memory_format
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
        size, stride, dtype=float64.narrower(dtype), layout=layout, device=MPS, pin_memory=False
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


def to(self: torch.Tensor, /, *args: Any, **kwargs: Any) -> torch.Tensor:
    """With mps for CUDA; returns when the copy is made. What a subclass or a mode takes over, it gets unchanged."""
    cuda = is_cuda(args[0]) if args else is_cuda(kwargs.get("device"))
    changes = cuda or (len(args) > 1 and True in args[1:3]) or (kwargs and _asks_not_to_wait(kwargs))
    if changes and not has_torch_function((self, *args[:1], kwargs.get("tensor"))):
        args, kwargs = _blocking(args), _blocking_keywords(kwargs)
        if cuda:
            say_once()
            args, kwargs = ((MPS, *args[1:]), kwargs) if args else (args, {**kwargs, "device": MPS})
    try:
        moved = _TENSOR_TO(self, *args, **kwargs)
    except TypeError as refusal:
        return float64.moved(self, args, kwargs, refusal)
    if type(moved) is torch.Tensor and moved.dtype is torch.int64:
        indexing.remember(self, moved)
    return moved


def copy_(self: torch.Tensor, /, *args: Any, **kwargs: Any) -> torch.Tensor:
    """As torch; returns when the copy has been made, which between views with the same gaps is one of the elements."""
    source = args[0] if args else kwargs.get("other")
    if source is not None and not has_torch_function((self, source)) and _copies_gaps(self, source):
        whole = source.contiguous()
        args, kwargs = ((whole, *args[1:]), kwargs) if args else (args, {**kwargs, "other": whole})
    changes = (len(args) > 1 and args[1] is True) or (kwargs and _asks_not_to_wait(kwargs))
    if changes and not has_torch_function((self, *args[:1], kwargs.get("other"))):
        args, kwargs = _blocking(args), _blocking_keywords(kwargs)
    return _TENSOR_COPY(self, *args, **kwargs)


_PLAIN = (torch.Tensor, torch.nn.Parameter)


def _copies_gaps(self: torch.Tensor, source: torch.Tensor) -> bool:
    """Whether torch copies the memory of a view on mps and not its elements (pytorch issue 189961)."""
    if type(self) not in _PLAIN or type(source) not in _PLAIN or not source.is_mps or self.device.type != "cpu":
        return False
    return self.layout is torch.strided and not self.is_contiguous()


def cuda(self: torch.Tensor, /, *args: Any, **kwargs: Any) -> torch.Tensor:
    """A copy on mps."""
    device = args[0] if args else kwargs.get("device")
    answers = device is None or isinstance(device, int) or is_cuda(device) or _is_mps(device)
    known = len(args) < 3 and kwargs.keys() <= {"device", "memory_format", *_WAITING}
    if not answers or not known or has_torch_function((self,)):
        return _TENSOR_CUDA(self, *args, **kwargs)
    say_once()
    return to(self, MPS, memory_format=kwargs.get("memory_format"))


def _is_mps(device: Any) -> bool:
    return isinstance(device, (str, torch.device)) and torch.device(device).type == "mps"


_WAITING = ("non_blocking", "async")  # the second is torch's deprecated name of the first


def _asks_not_to_wait(kwargs: dict[str, Any]) -> bool:
    return any(kwargs.get(name) is True for name in _WAITING)


def _blocking(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments by position: the first truth value is ``non_blocking``; of ``to`` a second is ``copy``."""
    first = next((place for place, value in enumerate(args) if isinstance(value, bool)), len(args))
    return (*args[:first], False, *args[first + 1 :]) if first < len(args) else args


def _blocking_keywords(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: False if name in _WAITING else value for name, value in kwargs.items()}


_TENSOR_TO = torch._C.TensorBase.to
_TENSOR_CUDA = torch._C.TensorBase.cuda
_TENSOR_COPY = torch._C.TensorBase.copy_


def made_on_mps(name: str, tensors: int = 0) -> Callable[..., Any]:
    """The function ``torch.name`` with mps for CUDA, and with float32 for float64 there.

    Args:
        tensors: how many of its first arguments torch asks whether they take it over.
    """
    replaced = getattr(torch, name)

    def function(*args: Any, **kwargs: Any) -> Any:
        asked = (*args[:tensors], *map(kwargs.get, TENSORS)) if tensors else (kwargs.get("out"),)
        if has_torch_function(asked):
            return hand_over(getattr(torch, name), asked, args, kwargs)
        if kwargs and is_cuda(kwargs.get("device")):
            say_once()
            kwargs = {**kwargs, "device": MPS}
        try:
            return replaced(*args, **kwargs)
        except TypeError as refusal:
            return float64.made(replaced, args, kwargs, refusal)

    return function


tensor = made_on_mps("tensor")
as_tensor = made_on_mps("as_tensor")


# TorchScript compiles this class from the source of its methods, which it finds by name and through __wrapped__
# (torch 2.13.0 torch/jit/frontend.py: get_jit_class_def).
@functools.wraps(torch.amp.autocast_mode.autocast.__init__)
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
    """Files saved on CUDA, and ``map_location="cuda"``, are loaded onto mps.

    A dictionary that says where what was on CUDA goes says it of what the same script has saved here, too.
    """
    if is_cuda(map_location):
        say_once()
        map_location = MPS
    elif isinstance(map_location, dict):
        map_location = {key: str(MPS) if is_cuda(value) else value for key, value in map_location.items()}
        moved = [value for key, value in map_location.items() if is_cuda(key)]
        map_location = {**dict.fromkeys(("mps", "mps:0"), moved[0]), **map_location} if moved else map_location
    restore = original("torch.serialization:_get_restore_location")(map_location)

    def restore_location(storage: Any, location: Any) -> Any:
        if map_location is None and is_cuda(location):
            say_once()
            return restore(storage, str(MPS))
        return restore(storage, location)

    return restore_location
