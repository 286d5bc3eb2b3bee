"""What types, constants and conversions of a program are in Metal's language."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from patcher.errors import KernelNotSupported
from patcher.tiles.types import DType, Pointer, Scalar

NAMES = {
    "int1": "bool",
    "int8": "char",
    "int16": "short",
    "int32": "int",
    "int64": "long",
    "uint8": "uchar",
    "uint16": "ushort",
    "uint32": "uint",
    "uint64": "ulong",
    "fp16": "half",
    "bf16": "bfloat",
    "fp32": "float",
}

Uses = Callable[[str], None]
"""Told the name of each function of `prelude` that a text calls."""


class NotOnMetal(KernelNotSupported):
    """The program holds what this back end does not do; another one runs it. The message is the reason."""


def type_name(scalar: Scalar) -> str:
    """A number's type. Raises NotOnMetal for one that Metal does not have."""
    if not isinstance(scalar, DType):
        raise NotOnMetal("a pointer is used as a number")
    if scalar.name not in NAMES:
        raise NotOnMetal(f"{scalar} is no type of Metal's")
    return NAMES[scalar.name]


def stored_name(scalar: Scalar) -> str:
    """The type of an element in memory."""
    return "uchar" if isinstance(scalar, DType) and scalar.is_int1() else type_name(scalar)


def size_of(scalar: Scalar) -> int:
    """Bytes of a number in memory."""
    type_name(scalar)
    assert isinstance(scalar, DType)
    return max(1, scalar.primitive_bitwidth // 8)


def word(dtype: DType) -> str:
    """The unsigned type in which integers of ``dtype`` are computed: it wraps."""
    return "ulong" if dtype.primitive_bitwidth == 64 else "uint"


def is_narrow_float(scalar: Scalar) -> bool:
    """Types that are computed in fp32 and rounded after each operation."""
    return isinstance(scalar, DType) and scalar.name in ("fp16", "bf16")


def wide(text: str, scalar: Scalar) -> str:
    """A floating-point number in fp32."""
    return f"float({text})" if is_narrow_float(scalar) else text


def constant(number: bool | int | float, dtype: DType) -> str:
    """A number as an expression of its type."""
    name = type_name(dtype)
    if dtype.is_int1():
        return "true" if number else "false"
    if dtype.is_int():
        value = int(number) & ((1 << dtype.primitive_bitwidth) - 1)
        return f"{name}({value}{'ul' if dtype.primitive_bitwidth == 64 else 'u'})"
    text = _float(float(number))
    return f"{name}({text})" if is_narrow_float(dtype) else text


def _float(number: float) -> str:
    if math.isnan(number):
        return "NAN"
    try:
        number = struct.unpack("f", struct.pack("f", number))[0]
    except OverflowError:
        number = math.copysign(math.inf, number)
    if math.isinf(number):
        return "INFINITY" if number > 0 else "(-INFINITY)"
    text = f"{number:.9g}"
    text = text if any(mark in text for mark in ".e") else f"{text}.0"
    return f"{text}f" if number > 0 or text[0] != "-" else f"({text}f)"


def cast(text: str, source: Scalar, target: Scalar, uses: Uses, rounding: str | None = None) -> str:
    """The same number as another type: truncated to integers, wrapped among them, rounded to even to floats."""
    if isinstance(source, Pointer) or isinstance(target, Pointer):
        raise NotOnMetal(f"a cast from {source} to {target}")
    name = type_name(target)
    type_name(source)
    if target.is_int1():
        return f"({wide(text, source)} != 0)"
    if target.is_floating():
        return _to_float(text, source, target, uses, rounding)
    if source.is_floating():
        helper = "to_ulong" if target.name == "uint64" else "to_long"
        uses(helper)
        return f"{name}({helper}({wide(text, source)}))"
    return f"{name}({text})"


def _to_float(text: str, source: DType, target: DType, uses: Uses, rounding: str | None) -> str:
    single = wide(text, source) if source.is_floating() else f"float({text})"
    if target.name == "fp32":
        return single
    if rounding == "rtz":
        uses("towards_zero")
        return f"towards_zero<{type_name(target)}>({single})"
    return f"{type_name(target)}({single})"


def bitcast(text: str, source: Scalar, target: Scalar) -> str:
    """The same bits as another type of the same width."""
    if isinstance(target, DType) and target.is_int1():
        return f"(as_type<char>({text}) != 0)"
    inner = f"uchar({text})" if isinstance(source, DType) and source.is_int1() else text
    return f"as_type<{type_name(target)}>({inner})"
