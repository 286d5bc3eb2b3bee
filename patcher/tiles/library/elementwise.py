"""Arithmetic, mathematics and casts, element by element."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any

from patcher.tiles import types
from patcher.tiles.builder import Builder, Operand
from patcher.tiles.library.registry import FUNCTIONS, function
from patcher.tiles.program import Value
from patcher.tiles.types import DType, Pointer

WIDE = ("fp32", "fp64")


class PropagateNan(Enum):
    """What ``minimum``, ``maximum`` and ``clamp`` give where one side is NaN: the other side, or NaN."""

    NONE = 0
    ALL = 1


def floating(b: Builder, fn: str, *operands: Operand, dtypes: tuple[str, ...] = WIDE) -> Value:
    """``fn`` on floating-point operands of one type. Raises TypeError for a type that Triton does not take either."""
    values = b.common(*operands)
    if values[0].number.name not in dtypes:
        raise TypeError(f"{fn} takes {' or '.join(dtypes)}, and this is {values[0].type}: cast it first")
    return b.map(fn, *values)


def _unary(name: str) -> None:
    def unary(b: Builder, x: Operand) -> Value:
        return floating(b, name, x)

    function(name, method=True)(unary)


for _name in ("exp", "exp2", "log", "log2", "sin", "cos", "sqrt", "rsqrt", "erf", "floor", "ceil"):
    _unary(_name)
FUNCTIONS["sqrt_rn"] = FUNCTIONS["sqrt"]


@function(method=True)
def abs(b: Builder, x: Operand) -> Value:
    """The absolute value."""
    value = b.tensor(x)
    return value if value.number.is_int_unsigned() or value.number.is_int1() else b.map("abs", value)


@function(method=True)
def sigmoid(b: Builder, x: Operand) -> Value:
    """``1 / (1 + exp(-x))``."""
    return b.truediv(1, b.add(1, floating(b, "exp", b.neg(x))))


@function()
def fma(b: Builder, x: Operand, y: Operand, z: Operand) -> Value:
    """``x * y + z``, rounded once."""
    return b.map("fma", *b.common(x, y, z))


@function()
def fdiv(b: Builder, x: Operand, y: Operand, ieee_rounding: bool = False, approx: bool = False) -> Value:
    """``x / y`` of floating-point numbers; rounded to nearest here whatever is asked for."""
    left, right = b.pair(x, y, dividing=True)
    if not left.number.is_floating():
        raise TypeError(f"fdiv takes floating-point numbers, and this is {left.type}")
    return b.map("div", left, right)


@function()
def div_rn(b: Builder, x: Operand, y: Operand) -> Value:
    """``x / y``, rounded to nearest."""
    return floating(b, "div", x, y)


@function()
def umulhi(b: Builder, x: Operand, y: Operand) -> Value:
    """The upper half of the product of two integers of 32 or 64 bits, taken as unsigned."""
    left, right = b.common(x, y)
    if left.number.int_bitwidth not in (32, 64) or not left.number.is_int():
        raise TypeError(f"umulhi takes integers of 32 or 64 bits, and this is {left.type}")
    return b.map("umulhi", left, right)


@function()
def add(b: Builder, x: Operand, y: Operand, sanitize_overflow: bool = True) -> Value:
    """``x + y``."""
    return b.add(x, y)


@function()
def sub(b: Builder, x: Operand, y: Operand, sanitize_overflow: bool = True) -> Value:
    """``x - y``."""
    return b.sub(x, y)


@function()
def mul(b: Builder, x: Operand, y: Operand, sanitize_overflow: bool = True) -> Value:
    """``x * y``."""
    return b.mul(x, y)


@function()
def minimum(b: Builder, x: Operand, y: Operand, propagate_nan: PropagateNan = PropagateNan.NONE) -> Value:
    """The lesser one; of NaN and a number the number, unless NaN is to propagate."""
    return b.map("min" if propagate_nan is PropagateNan.NONE else "minnan", *b.pair(x, y))


@function()
def maximum(b: Builder, x: Operand, y: Operand, propagate_nan: PropagateNan = PropagateNan.NONE) -> Value:
    """The greater one; of NaN and a number the number, unless NaN is to propagate."""
    return b.map("max" if propagate_nan is PropagateNan.NONE else "maxnan", *b.pair(x, y))


@function()
def clamp(b: Builder, x: Operand, min: Operand, max: Operand, propagate_nan: PropagateNan = PropagateNan.NONE) -> Value:
    """``x``, but not below ``min`` and not above ``max``."""
    value, low, high = b.common(x, min, max)
    return minimum(b, maximum(b, value, low, propagate_nan), high, propagate_nan)


@function()
def where(b: Builder, condition: Operand, x: Operand, y: Operand) -> Value:
    """``x`` where the condition holds, ``y`` elsewhere."""
    return b.where(condition, x, y)


@function(method=True)
def cdiv(b: Builder, x: Operand, div: Operand) -> Any:
    """``x / div`` rounded up; of two constants a constant."""
    if not isinstance(x, Value) and not isinstance(div, Value):
        return (x + (div - 1)) // div
    return b.floordiv(b.add(x, div - 1 if not isinstance(div, Value) else b.sub(div, 1)), div)


@function("cast", "to", method=True)
def cast(
    b: Builder, input: Operand, dtype: Any, fp_downcast_rounding: str | None = None, bitcast: bool = False
) -> Value:
    """The same number, or with ``bitcast`` the same bits, as another type."""
    scalar = scalar_type(dtype)
    value = b.tensor(input)
    if bitcast:
        return b.bitcast(value, scalar)
    if fp_downcast_rounding not in (None, "rtne", "rtz"):
        raise ValueError(f"fp_downcast_rounding is 'rtne' or 'rtz', not {fp_downcast_rounding!r}")
    if fp_downcast_rounding and value.scalar != scalar and not _narrows(value.scalar, scalar):
        raise ValueError(f"fp_downcast_rounding is for a narrower float; this is {value.scalar} to {scalar}")
    return b.cast(value, scalar, None if fp_downcast_rounding == "rtne" else fp_downcast_rounding)


def scalar_type(dtype: Any) -> DType | Pointer:
    """The scalar type that a kernel names. Raises TypeError for anything else."""
    scalar = getattr(dtype, "scalar", None)
    if not isinstance(scalar, (DType, Pointer)):
        raise TypeError(f"a data type is needed here, and this is {dtype!r}")
    return scalar


def _narrows(source: Any, target: Any) -> bool:
    both = source.is_floating() and target.is_floating()
    return bool(both and target.primitive_bitwidth < source.primitive_bitwidth)


@function("to_tensor")
def to_tensor(b: Builder, x: Any) -> Any:
    """A number as a tensor."""
    return b.tensor(x)


@function()
def swizzle2d(b: Builder, i: Operand, j: Operand, size_i: Operand, size_j: Operand, size_g: Operand) -> tuple[Any, Any]:
    """Row-major indices to indices that go down columns within groups of ``size_g`` rows."""
    position = b.add(b.mul(b.tensor(i), size_j), j)
    per_group = b.mul(b.tensor(size_g), size_j)
    first = b.mul(b.floordiv(position, per_group), size_g)
    rows = minimum(b, b.sub(b.tensor(size_i), first), size_g)
    within = b.mod(position, per_group)
    return b.add(first, b.mod(within, rows)), b.floordiv(within, rows)


@function()
def dot(
    b: Builder,
    input: Value,
    other: Value,
    acc: Value | None = None,
    input_precision: str | None = None,
    allow_tf32: bool | None = None,
    max_num_imprecise_acc: int | None = None,
    out_dtype: DType | None = None,
) -> Value:
    """``acc + input @ other`` of two blocks with 2 axes, or more, those before being a batch.

    Accumulates in fp32 (int32 of int8, fp64 of fp64, fp16 where ``out_dtype`` says so); fp32 operands are not cut
    down to tf32, whatever ``input_precision`` allows.
    """
    fit = input.shape[:-2] == other.shape[:-2] and input.shape[-1:] == other.shape[-2:-1]
    if len(input.shape) != len(other.shape) or len(input.shape) < 2 or not fit:
        raise TypeError(f"dot of {input.type} and {other.type}: the shapes do not fit")
    both_fp8 = input.number.is_fp8() and other.number.is_fp8()
    if input.number != other.number and not both_fp8:
        raise TypeError(f"dot of {input.type} and {other.type}: the types differ")
    if input.number.is_int() and input.number not in (types.int8, types.uint8):
        raise TypeError(f"dot takes int8 of all integers, and this is {input.type}")
    wanted = out_dtype or (acc.number if acc is not None else types.float32)
    dtype = _accumulator(input.number, wanted)
    shape = (*input.shape[:-1], other.shape[-1])
    if acc is None:
        acc = b.broadcast(b.constant(0, dtype), shape)
    if acc.number != dtype or acc.shape != shape:
        raise TypeError(f"dot adds to {types.block(dtype, shape)}, and acc is {acc.type}")
    if len(shape) > 3:
        left, right, acc = (b.reshape(x, (math.prod(x.shape[:-2]), *x.shape[-2:])) for x in (input, other, acc))
        return b.reshape(b.value("dot", (left, right, acc), acc.type), shape)
    return b.value("dot", (input, other, acc), acc.type)


def _accumulator(operand: DType, wanted: DType) -> DType:
    if operand.is_int():
        return types.int32
    if wanted.is_bf16():
        raise TypeError("dot does not accumulate in bf16: take fp32 and cast the result")
    if operand.is_fp64():
        return types.float64
    return types.float32 if operand in (types.float32, types.bfloat16) else wanted
