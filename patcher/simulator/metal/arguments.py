"""What torch.mps.compile_shader's kernels accept, and the bytes that they get for it."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import torch

CASTS = {"fp16": "e", "int32": "i", "int16": "h", "int8": "b", "uint8": "B"}
_BITS = {"i": 32, "h": 16, "b": 8, "B": 8, "q": 64}


def cast_of(index: int, arg_casts: str | Mapping[int, str] | None) -> str:
    """The cast of the index-th argument; the empty string for none."""
    if arg_casts is None:
        return ""
    if isinstance(arg_casts, str):
        return arg_casts
    if isinstance(arg_casts, Mapping):
        return arg_casts.get(index, "")
    raise RuntimeError("Unexpected caster arguments")


def address(tensor: torch.Tensor) -> int:
    """Where the first element lies. Strides are not looked at, as on a Mac."""
    if tensor.device.type != "mps":
        raise RuntimeError("Passed CPU tensor to MPS op")
    return int(tensor.untyped_storage().data_ptr()) + int(tensor.storage_offset()) * tensor.element_size()


def pack_cpu_scalar(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor without dimensions on the CPU; a double arrives as a float.

    Raises:
        RuntimeError: as torch does for a tensor with dimensions (ATen/native/mps/OperationUtils.h, torch 2.13.0).
    """
    if tensor.dim() != 0:
        raise RuntimeError("Passed CPU tensor to MPS op")
    narrow = {torch.float64: torch.float32, torch.complex128: torch.complex64}
    scalar = tensor.detach().to(narrow.get(tensor.dtype, tensor.dtype)).reshape(1)
    return bytes(scalar.view(torch.uint8).tolist())


def pack(value: object, cast: str) -> bytes:
    """The bytes of an argument that is no tensor: int64 and float32, unless a cast says otherwise.

    Raises:
        RuntimeError: as torch does for what a kernel cannot take.
    """
    if isinstance(value, list | tuple):
        return _pack_list(value, cast)
    if isinstance(value, float):
        return _pack_numbers([value], "f", cast)
    if isinstance(value, int):
        return _pack_numbers([value], "q", cast)
    raise RuntimeError("Unsupported argument type")


def _pack_list(values: Sequence[Any], cast: str) -> bytes:
    if not values:
        raise RuntimeError("Empty list/tuple can not be an argument to metal kernel")
    first = values[0]
    if isinstance(first, int):
        return _pack_numbers(values, "q", cast)
    if isinstance(first, float):
        return _pack_numbers(values, "f", cast)
    if isinstance(first, torch.Tensor):
        return struct.pack(f"<{len(values)}Q", *map(address, values))
    raise RuntimeError("Unexpected argument types")


def _pack_numbers(values: Sequence[int | float], default: str, cast: str) -> bytes:
    if cast == "bf16":
        return bytes(torch.tensor([float(value) for value in values], dtype=torch.bfloat16).view(torch.uint8).tolist())
    if cast and cast not in CASTS:
        raise RuntimeError(f"Unsupported cast instruction {cast}")
    code = CASTS.get(cast, default)
    if code in _BITS:
        values = [_wrap(int(value), _BITS[code], signed=code.islower()) for value in values]
    return struct.pack(f"<{len(values)}{code}", *values)


def _wrap(value: int, bits: int, *, signed: bool) -> int:
    """As C++ converts an integer to a narrower one."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def extents(value: int | Sequence[int] | None) -> list[int] | None:
    """Numbers of threads: an int or a list of them."""
    if value is None:
        return None
    return [value] if isinstance(value, int) else [int(one) for one in value]


def sizes(
    threads: int | Sequence[int] | None, group_size: int | Sequence[int] | None, numel: int | None, limit: int
) -> tuple[list[int], list[int]]:
    """The grid and the threadgroup, in three dimensions each.

    Args:
        threads: of the grid, in up to three dimensions; None for as many as the first tensor has elements.
        group_size: of a threadgroup, in as many dimensions; None for as many threads as are allowed along the first.
        numel: elements of the first tensor argument, None if there is none.
        limit: threads of a threadgroup.

    Raises:
        RuntimeError, ValueError: as torch does.
    """
    grid = extents(threads) or ([numel] if numel is not None else None)
    group = extents(group_size)
    if grid is None or len(grid) > 3:
        raise RuntimeError("Number of threads is undefined or has wrong dimension")
    if group is not None and len(group) != len(grid):
        raise RuntimeError("Expected !group_size.has_value() || threads->size() == group_size->size() to be true")
    if group is None:
        group = [min(grid[0], limit) if len(grid) == 1 else limit]
    grid, group = grid + [1] * (3 - len(grid)), group + [1] * (3 - len(group))
    if group[0] * group[1] * group[2] > limit:
        raise ValueError(f"Threadgroup size exceeds {limit} limit")
    return grid, group
