"""Which torch type carries which type of a program, and conversions between them.

Unsigned integers of 8 to 32 bits are carried by int64, which holds their values; uint64 by the int64 of the same bits.
Floating point in 8 bits is carried by uint8 of the same bits (`narrow`). Pointers are int64 addresses. Everything else
has its own torch type.
"""

from __future__ import annotations

import torch

from patcher.tiles import types
from patcher.tiles.on_torch.narrow import narrowed, widened
from patcher.tiles.types import DType, Scalar, float32

NATIVE = {
    "int1": torch.bool,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "fp64": torch.float64,
    **dict.fromkeys(("fp8e4nv", "fp8e5", "fp8e4b15", "fp8e4b8", "fp8e5b16"), torch.uint8),
}

OF_TORCH: dict[torch.dtype, DType] = {
    torch.bool: types.int1,
    torch.int8: types.int8,
    torch.int16: types.int16,
    torch.int32: types.int32,
    torch.int64: types.int64,
    torch.uint8: types.uint8,
    torch.uint16: types.uint16,
    torch.uint32: types.uint32,
    torch.uint64: types.uint64,
    torch.float16: types.float16,
    torch.bfloat16: types.bfloat16,
    torch.float32: types.float32,
    torch.float64: types.float64,
    torch.float8_e4m3fn: types.float8e4nv,
    torch.float8_e5m2: types.float8e5,
    torch.float8_e4m3fnuz: types.float8e4b8,
    torch.float8_e5m2fnuz: types.float8e5b16,
}
"""The type of the elements that a tensor of a torch type is passed with."""

SIGNED = {8: torch.int8, 16: torch.int16, 32: torch.int32, 64: torch.int64}

TOP = -(1 << 63)
"""The bit by which uint64 and int64 differ in order."""


def carrier(scalar: Scalar) -> torch.dtype:
    """The torch type that values of ``scalar`` have while a program runs."""
    return NATIVE.get(scalar.name, torch.int64) if isinstance(scalar, DType) else torch.int64


def single(number: bool | int | float, scalar: Scalar, device: torch.device) -> torch.Tensor:
    """A number that is the same for all programs, as it is carried: shape ``(1,)``."""
    dtype = carrier(scalar)
    if dtype == torch.int64 and number >= 1 << 63:
        number = int(number) - (1 << 64)
    if isinstance(scalar, DType) and scalar.is_fp8():
        return narrowed(torch.tensor([number], dtype=torch.float32, device=device), scalar)
    return torch.tensor([number], dtype=dtype, device=device)


def stored(scalar: Scalar) -> torch.dtype:
    """The torch type of the same width in which memory is read and written."""
    if not isinstance(scalar, DType):
        return torch.int64
    if scalar.is_int1():
        return torch.int8
    return NATIVE.get(scalar.name) or SIGNED[scalar.primitive_bitwidth]


def storage_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """All bytes of the storage that a tensor lies in, uint8, the same memory."""
    storage = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage, 0, (storage.nbytes(),), (1,))


def itemsize(scalar: Scalar) -> int:
    """Bytes of an element in memory."""
    return scalar.itemsize if isinstance(scalar, DType) else 8


def wrap(x: torch.Tensor, scalar: Scalar) -> torch.Tensor:
    """A result of integer arithmetic, cut to the width of its type."""
    if isinstance(scalar, DType) and scalar.is_int_unsigned() and 1 < scalar.primitive_bitwidth < 64:
        return x & scalar.get_int_max_value()
    return x


def to_memory(x: torch.Tensor, scalar: Scalar) -> torch.Tensor:
    """Carried values as they are written."""
    return x.to(stored(scalar))


def from_memory(x: torch.Tensor, scalar: Scalar) -> torch.Tensor:
    """Read values as they are carried."""
    if isinstance(scalar, DType) and scalar.is_int1():
        return x != 0
    return wrap(x.to(carrier(scalar)), scalar)


def bitcast(x: torch.Tensor, source: Scalar, target: Scalar) -> torch.Tensor:
    """The same bits as another type of the same width."""
    return from_memory(to_memory(x, source).contiguous().view(stored(target)), target)


def cast(x: torch.Tensor, source: Scalar, target: Scalar, rounding: str | None = None) -> torch.Tensor:
    """The same numbers as another type: truncated to integers, wrapped among them, rounded to even to floats."""
    if not isinstance(source, DType) or not isinstance(target, DType):
        return x != 0 if isinstance(target, DType) and target.is_int1() else x
    if source.is_fp8():
        x, source = widened(x, source), float32
    if target.is_int1():
        return x != 0
    if target.is_floating():
        return _to_float(x, source, target, rounding)
    if source.is_floating():
        return _float_to_integer(x, target)
    if target.is_int_unsigned():
        return wrap(x.to(torch.int64), target)
    return x.to(carrier(target))


def _to_float(x: torch.Tensor, source: DType, target: DType, rounding: str | None) -> torch.Tensor:
    dtype = NATIVE[target.name] if not target.is_fp8() else torch.float32
    if source.name == "uint64":
        half = ((x >> 1) & ~TOP | (x & 1)).to(dtype) * 2
        x = torch.where(x < 0, half, x.to(dtype))
    result = x.to(dtype)
    if target.is_fp8():
        return narrowed(result, target, rounding)
    if rounding != "rtz":
        return result
    bits = result.view(SIGNED[target.primitive_bitwidth])
    return torch.where(result.to(x.dtype).abs() > x.abs(), bits - 1, bits).view(dtype)


def _float_to_integer(x: torch.Tensor, target: DType) -> torch.Tensor:
    if target.name == "uint64":
        return torch.where(x >= 2.0**63, (x - 2.0**63).to(torch.int64) ^ TOP, x.to(torch.int64))
    return wrap(x.to(torch.int64), target).to(carrier(target))
