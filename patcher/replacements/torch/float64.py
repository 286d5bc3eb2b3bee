"""What a script asks of mps in float64 is done in float32, and complex128 in complex64.

torch refuses float64 on mps before it has done anything, with a TypeError. Only then is there work here: the call is
made again with the narrower type. Calls that torch does not refuse cost a ``try``.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from types import FrameType, SimpleNamespace
from typing import Any

import torch
from torch.overrides import has_torch_function

from patcher import environment
from patcher.changes.torch.float64 import FACTORIES, FILLS, LIKE, NEW, NEW_FILLS, NORMS, REDUCTIONS
from patcher.engine.ledger import LEDGER, original
from patcher.errors import Float64OnMps, compose
from patcher.overrides import TENSORS, hand_over
from patcher.provenance import is_library
from patcher.simulator.places import place_of

log = logging.getLogger("patcher")

NARROWER = {torch.float64: torch.float32, torch.complex128: torch.complex64}
_EXACT = 2**24
"""Up to here float32 holds every whole number."""
_EXACT_IN_FLOAT64 = 2**53
"""Up to here float64 does: what is larger was no count and no identifier."""
_CURE = ".long() for counts and identifiers, .float() for measures (it rounds them), or keep them on the CPU"
_TENSOR_TO = torch._C.TensorBase.to


def _only_of_float64(refusal: TypeError) -> None:
    """Raises ``refusal`` where it is about something else: its words are torch's for float64 and for complex128."""
    if not any(word in str(refusal) for word in ("MPS Tensor to float64", "ComplexDouble to the MPS")):
        raise refusal


def moved(tensor: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], refusal: TypeError) -> torch.Tensor:
    """What ``tensor.to(*args, **kwargs)`` asks for, which torch has refused, in the narrower type.

    The gradient comes back in the type of ``tensor``.

    Raises:
        Float64OnMps: the numbers would lose their meaning, or ``PATCHER_FLOAT64=error``.
        TypeError: ``refusal``, where the reason was another one.
    """
    _only_of_float64(refusal)
    copy = kwargs.get("copy", any(args[place : place + 1] == (True,) for place in (2, 3)))
    asked = {name: value for name, value in kwargs.items() if name != "copy"}
    truths = [place for place, value in enumerate(args) if isinstance(value, bool)]
    device, dtype, _, memory_format = torch._C._nn._parse_to(*args[: truths[0] if truths else None], **asked)
    device, dtype = device or tensor.device, dtype or tensor.dtype
    if device.type != "mps" or dtype not in NARROWER:
        raise refusal
    _allow(tensor)
    return _TENSOR_TO(tensor, device, NARROWER[dtype], copy=copy, memory_format=memory_format)


def made(
    factory: Callable[..., torch.Tensor], args: tuple[Any, ...], kwargs: dict[str, Any], refusal: TypeError
) -> torch.Tensor:
    """What ``factory`` (`torch.tensor`, `torch.full` and their like) makes of numbers on mps, which torch has refused.

    It is made on the CPU, and moved in the narrower type. Raises as `moved`, and where torch itself makes an empty
    tensor to lay it over a storage.
    """
    _only_of_float64(refusal)
    device = kwargs.get("device", getattr(args[0], "device", None) if args else None)
    if device is None or torch.device(device).type != "mps":
        raise refusal
    leaf = kwargs.pop("requires_grad", False)
    wide = factory(*args, **{**kwargs, "device": "cpu"})
    if wide.dtype not in NARROWER or (not wide.numel() and _lays_it_over_a_storage()):
        raise refusal
    _allow(wide)
    moved_there = _TENSOR_TO(wide, device, NARROWER[wide.dtype])
    return moved_there.requires_grad_() if leaf else moved_there


def _reduced(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], refusal: TypeError) -> Any:
    """A sum or its like in the narrower type; Float64OnMps where whole numbers go in and come out beyond 2**24."""
    _only_of_float64(refusal)
    summed = next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
    _allow(summed)
    result = _narrowed(function, args, kwargs, refusal)
    if not summed.is_floating_point() and not summed.is_complex() and bool((result.abs() > _EXACT).any()):
        raise _error(summed, f"a result beyond {_EXACT}", "sum with dtype=torch.int64, or on the CPU")
    return result


def _narrowed(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], refusal: TypeError) -> Any:
    """``function`` with the narrower type where its arguments name, or its default is, a type that mps lacks."""
    _only_of_float64(refusal)
    named = any(_is_wide(value) for value in (*args, *kwargs.values()))
    if not named and not _is_wide(torch.get_default_dtype()):
        raise refusal
    _allow(None)
    default = {} if named else {"dtype": NARROWER[torch.get_default_dtype()]}
    args = tuple(NARROWER[value] if _is_wide(value) else value for value in args)
    kwargs = {name: NARROWER[value] if _is_wide(value) else value for name, value in kwargs.items()}
    result = function(*args, **kwargs, **default)
    if not result.numel() and _lays_it_over_a_storage():
        raise refusal
    return result


def _lays_it_over_a_storage() -> bool:
    """Whether torch's own code asks, whose ``set_`` would read the bytes of the storage in the wrong type."""
    ours = os.path.dirname(__file__)
    files = (frame.f_code.co_filename for frame in _frames())
    return next(file for file in files if not file.startswith(ours)) in (torch._utils.__file__, torch.storage.__file__)


def _is_wide(value: Any) -> bool:
    return isinstance(value, torch.dtype) and value in NARROWER


def narrower(dtype: torch.dtype | None) -> torch.dtype | None:
    """The type in which a new tensor of ``dtype`` is made on mps; None is torch's default."""
    asked = torch.get_default_dtype() if dtype is None else dtype
    if asked not in NARROWER:
        return dtype
    _allow(None)
    return NARROWER[asked]


def _allow(tensor: torch.Tensor | None) -> None:
    """Says once that float32 takes the place of float64; Float64OnMps where it must not."""
    if environment.float64() == "error":
        raise _error(tensor, "float64, and PATCHER_FLOAT64=error", "write .float() or dtype=torch.float32 there")
    lost = _lost(tensor)
    if lost:
        raise _error(tensor, lost, f"write {_CURE}")
    _say_once()


def _say_once() -> None:
    if not LEDGER.is_news("float64"):
        return
    place, _ = place_of(sys._getframe())
    log.warning(
        "patcher: mps has no float64: it is float32 here, first at %s (PATCHER_FLOAT64=error stops there)", place
    )


def _error(tensor: torch.Tensor | None, found: str, cure: str) -> Float64OnMps:
    shape = "" if tensor is None else f", {tensor.dtype} of shape {tuple(tensor.shape)}"
    return Float64OnMps(
        compose(
            "mps has no float64",
            target=f"{_name_of(tensor) or 'a tensor'}{shape}, at {place_of(sys._getframe())[0]}",
            expected="numbers that float32 can hold",
            found=found,
            left="nothing was moved",
            run=cure,
        )
    )


def _lost(tensor: torch.Tensor | None) -> str | None:
    """A number in ``tensor`` that would be another one in float32: too large, or whole and beyond 2**24."""
    if tensor is None or tensor.numel() == 0 or torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return None
    if tensor.is_floating_point() or tensor.is_complex():
        if tensor.dtype not in NARROWER:
            return None
    elif tensor.dtype not in (torch.int32, torch.int64, torch.uint32, torch.uint64):
        return None
    values = _numbers(tensor.detach())
    sizes = values.abs()
    if values.numel() == 0 or bool(sizes.max() <= _EXACT):
        return None
    rounded = values.to(torch.float32)
    whole = (sizes > _EXACT) & (sizes <= _EXACT_IN_FLOAT64) & (values == values.round())
    lost = (whole & (rounded.to(values.dtype) != values)) | (rounded.isinf() & ~values.isinf())
    if not bool(lost.any()):
        return None
    return f"{values[lost][0].item()!r}, which float32 makes {rounded[lost][0].item()!r}"


def _numbers(tensor: torch.Tensor) -> torch.Tensor:
    """What ``tensor`` holds, in a type that torch computes with; float64 for unsigned ones, of which it counts up to
    2**53.
    """
    if tensor.layout is torch.sparse_coo:
        tensor = tensor._values()
    elif tensor.layout is not torch.strided:
        tensor = tensor.values()
    if tensor.dtype in (torch.uint32, torch.uint64):
        return tensor.to(torch.float64)
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _name_of(tensor: torch.Tensor | None) -> str | None:
    """What the code that moves ``tensor`` calls it: a key of a batch, a module's buffer, a variable of the script."""
    if tensor is None:
        return None
    for frame in _frames():
        known = frame.f_locals
        users = not is_library(frame.f_code.co_filename)
        scopes = (known, frame.f_globals) if users else (known,)
        names = [name for scope in scopes for name, value in scope.items() if value is tensor]
        key = next((known[name] for name in ("key", "k") if isinstance(known.get(name), str)), None)
        if names and key:
            owner = type(known["self"]).__name__ if isinstance(known.get("self"), torch.nn.Module) else ""
            return f"{owner}.{key}" if owner else f'"{key}"'
        if users:
            return names[0] if names else None
    return None


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _factory(name: str) -> Callable[..., Any]:
    replaced, again = getattr(torch, name), _AGAIN[name]

    def function(*args: Any, **kwargs: Any) -> Any:
        if has_torch_function(asked := (kwargs.get("out"),)):
            return hand_over(getattr(torch, name), asked, args, kwargs)
        try:
            return replaced(*args, **kwargs)
        except TypeError as refusal:
            return again(replaced, args, kwargs, refusal)

    return function


def _of_a_tensor(name: str, holder: Any = torch) -> Callable[..., Any]:
    replaced, again = getattr(holder, name), _AGAIN[name]

    def function(*args: Any, **kwargs: Any) -> Any:
        asked = (args[0], kwargs.get("out")) if args else tuple(map(kwargs.get, TENSORS))
        if has_torch_function(asked):
            return hand_over(getattr(holder, name), asked, args, kwargs)
        try:
            return replaced(*args, **kwargs)
        except TypeError as refusal:
            return again(replaced, args, kwargs, refusal)

    return function


def _method(name: str) -> Callable[..., Any]:
    replaced, again = getattr(torch._C.TensorBase, name), _AGAIN[name]

    def method(*args: Any, **kwargs: Any) -> Any:
        try:
            return replaced(*args, **kwargs)
        except TypeError as refusal:
            return again(replaced, args, kwargs, refusal)

    return method


def _conversion(name: str, dtype: torch.dtype) -> Callable[..., Any]:
    replaced = getattr(torch._C.TensorBase, name)

    def function(self: torch.Tensor, /, *args: Any, **kwargs: Any) -> Any:
        try:
            return replaced(self, *args, **kwargs)
        except TypeError as refusal:
            return moved(self, (dtype,), kwargs, refusal)

    return function


_AGAIN = {
    **dict.fromkeys((*FACTORIES, *LIKE, *NEW), _narrowed),
    **dict.fromkeys((*FILLS, *NEW_FILLS), made),
    **dict.fromkeys((*REDUCTIONS, *NORMS), _reduced),
}


functions = SimpleNamespace(
    **{name: _factory(name) for name in FACTORIES},
    **{name: _of_a_tensor(name) for name in (*LIKE, *FILLS, *REDUCTIONS)},
)
methods = SimpleNamespace(**{name: _method(name) for name in (*NEW, *NEW_FILLS, *REDUCTIONS)})
norms = SimpleNamespace(**{name: _of_a_tensor(name, torch.linalg) for name in NORMS})
methods.double = _conversion("double", torch.float64)
methods.cdouble = _conversion("cdouble", torch.complex128)


def _rebuild_tensor(storage: Any, storage_offset: int, size: Any, stride: Any) -> torch.Tensor:
    """As torch; a tensor of a file that is read onto mps gets the narrower type."""
    rebuild = original("torch._utils:_rebuild_tensor")
    if storage.dtype not in NARROWER or storage.device.type != "mps":
        there: torch.Tensor = rebuild(storage, storage_offset, size, stride)
        return there
    wide: torch.Tensor = rebuild(storage.cpu(), storage_offset, size, stride)
    _allow(wide)
    return _TENSOR_TO(wide, storage.device, NARROWER[wide.dtype])
