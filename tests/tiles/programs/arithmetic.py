"""Whole numbers at their limits, divisions, conversions between dtypes, and choices."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.testing import assert_close

from tests.tiles.registry import DTYPES, FLOATS, INTS, Make, case


@triton.jit
def wrap_kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    y = tl.load(y_ptr + at)
    tl.store(out_ptr + at, x + y)
    tl.store(out_ptr + N + at, x - y)
    tl.store(out_ptr + 2 * N + at, x * y)
    tl.store(out_ptr + 3 * N + at, -x)
    tl.store(out_ptr + 4 * N + at, x + 1)


@case(each=INTS)
def wraparound(make: Make, dtype: str) -> torch.Tensor:
    """Overflow wraps modulo 2**bits."""
    kind = getattr(torch, dtype)
    limits = torch.iinfo(kind)
    edge = [limits.max, limits.max - 1, limits.min, limits.min + 1, 0, 1, limits.max // 2 + 1, 3]
    x, y = torch.tensor(edge, dtype=kind), torch.tensor(edge[::-1], dtype=kind)
    out = make.out(5, 8, dtype=kind)
    if dtype.startswith("u"):
        wrap_unsigned_kernel[(1,)](x, y, out, 8)
    else:
        wrap_kernel[(1,)](x, y, out, 8)
    return out


@triton.jit
def wrap_unsigned_kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    y = tl.load(y_ptr + at)
    tl.store(out_ptr + at, x + y)
    tl.store(out_ptr + N + at, x - y)
    tl.store(out_ptr + 2 * N + at, x * y)
    tl.store(out_ptr + 3 * N + at, ~x)
    tl.store(out_ptr + 4 * N + at, x + 1)


@triton.jit
def divide_kernel(x_ptr, y_ptr, out_ptr, a, b, A: tl.constexpr, B: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    y = tl.load(y_ptr + at)
    tl.store(out_ptr + at, x // y)
    tl.store(out_ptr + N + at, x % y)
    tl.store(out_ptr + 2 * N + at, tl.cdiv(x, y))
    tl.store(out_ptr + 3 * N + at, x // -3)
    tl.store(out_ptr + 4 * N + at, a // b + x * 0)
    tl.store(out_ptr + 5 * N + at, a % b + x * 0)
    tl.store(out_ptr + 6 * N + at, x * 0 + A // B)
    tl.store(out_ptr + 7 * N + at, x * 0 + A % B)
    tl.store(out_ptr + 8 * N + at, x >> 2)


@case(each=("int8", "int32", "int64"))
def negative_division(make: Make, dtype: str) -> torch.Tensor:
    """Blocks and arguments divide towards zero, as in C; constants as in Python."""
    kind = getattr(torch, dtype)
    x = torch.tensor([-7, 7, -7, 7, -8, 8, 100, -100], dtype=kind)
    y = torch.tensor([2, -2, -2, 2, 3, -3, 7, 7], dtype=kind)
    out = make.out(9, 8, dtype=kind)
    divide_kernel[(1,)](x, y, out, -7, 2, -7, 2, 8)
    assert_close(out[0], torch.div(x, y, rounding_mode="trunc"))
    assert_close(out[1], torch.fmod(x, y))
    assert out[4, 0] == -3 and out[5, 0] == -1 and out[6, 0] == -4 and out[7, 0] == 1
    return out


@triton.jit
def convert_kernel(x_ptr, out_ptr, DTYPE: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    y = x.to(DTYPE)
    tl.static_assert(y.dtype == DTYPE)
    tl.store(out_ptr + at, y)


def to_tl(name: str) -> tl.dtype:
    """The dtype of Triton of this name."""
    found: tl.dtype = getattr(tl, "int1" if name == "bool" else name)
    return found


@case(each=DTYPES)
def conversions(make: Make, left: str) -> dict[str, torch.Tensor]:
    """``x.to(dtype)`` from each dtype to each, for values that both hold up to rounding."""
    found = {}
    for right in DTYPES:
        x = make.values(32, getattr(torch, left))
        if left in FLOATS and right.startswith("u"):
            x = x.abs()
        out = make.out(32, dtype=getattr(torch, right))
        convert_kernel[(1,)](x, out, to_tl(right), 32)
        found[right] = out
    return found


@case(each=("float16", "bfloat16"))
def rounding(make: Make, dtype: str) -> torch.Tensor:
    """float32 to 16 bits rounds to nearest even; overflow is infinite; NaN stays NaN."""
    step = 2.0**-10 if dtype == "float16" else 2.0**-7
    edge = [1 + step / 2, 1 + 3 * step / 2, 1 + step / 2 + 2.0**-20, -1 - step / 2, 65519.0, 65520.0, 3.4e38]
    x = torch.tensor([*edge, float("inf"), float("-inf"), float("nan"), 0.0, -0.0, 1e-7, 6e-8, 1e-40, 2.0**-24])
    out = make.out(16, dtype=getattr(torch, dtype))
    convert_kernel[(1,)](x, out, to_tl(dtype), 16)
    assert_close(out, x.to(out.dtype), rtol=0, atol=0, equal_nan=True)
    return out


@case(each=("int8", "int16", "int32", "int64"))
def truncation(make: Make, dtype: str) -> torch.Tensor:
    """Floating to whole numbers cuts towards zero."""
    x = torch.tensor([1.9, -1.9, 0.5, -0.5, 99.99, -99.99, 0.0, 127.0])
    out = make.out(8, dtype=getattr(torch, dtype))
    convert_kernel[(1,)](x, out, to_tl(dtype), 8)
    assert_close(out, x.trunc().to(out.dtype))
    return out


@case(each=("int8", "uint8", "int16", "uint16", "int32", "uint32"))
def narrowing(make: Make, dtype: str) -> torch.Tensor:
    """Whole to narrower whole numbers keeps the low bits."""
    x = make.ints(32, low=-(2**62), high=2**62, dtype=torch.int64)
    out = make.out(32, dtype=getattr(torch, dtype))
    convert_kernel[(1,)](x, out, to_tl(dtype), 32)
    return out


@triton.jit
def bitcast_kernel(x_ptr, out_ptr, DTYPE: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.load(x_ptr + at).to(DTYPE, bitcast=True))


@case(each=("float32:int32", "int32:float32", "float16:int16", "int64:float64", "uint32:int32", "float64:int64"))
def bitcasts(make: Make, pair: str) -> torch.Tensor:
    """``bitcast=True`` keeps the bits."""
    source, target = (getattr(torch, name) for name in pair.split(":"))
    x, out = make.values(16, source), make.out(16, dtype=target)
    bitcast_kernel[(1,)](x, out, to_tl(pair.split(":")[1]), 16)
    assert_close(out.view(torch.uint8), x.view(torch.uint8))
    return out


@triton.jit
def cast_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, tl.cast(x, tl.bfloat16).to(tl.float32) + tl.cast(at, tl.float32) + tl.cast(3, tl.float32))


@case
def cast_function(make: Make) -> torch.Tensor:
    """``tl.cast`` of blocks and numbers."""
    out = make.out(32)
    cast_kernel[(1,)](make.floats(32), out, 32)
    return out


@triton.jit
def choose_kernel(x_ptr, y_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr):
    rows = tl.arange(0, M)[:, None]
    columns = tl.arange(0, N)[None, :]
    x = tl.load(x_ptr + rows)
    y = tl.load(y_ptr + columns)
    z = tl.where(rows > columns, x, y)
    z = tl.where(columns == 3, float("-inf"), z)
    z = tl.where(rows == 2, 1, z)
    tl.store(out_ptr + rows * N + columns, tl.where(True, z, 0.0))


@case
def where_broadcasts(make: Make) -> torch.Tensor:
    """Condition and both values are broadcast together; numbers are values too."""
    x, y, out = make.floats(4), make.floats(8), make.out(4, 8)
    choose_kernel[(1,)](x, y, out, 4, 8)
    rows, columns = torch.arange(4)[:, None], torch.arange(8)[None]
    expected = torch.where(rows > columns, x[:, None], y[None])
    expected = torch.where(columns == 3, float("-inf"), expected)
    assert_close(out, torch.where(rows == 2, torch.ones(()), expected), rtol=0, atol=0)
    return out


@triton.jit
def extremes_kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    y = tl.load(y_ptr + at)
    tl.store(out_ptr + at, tl.maximum(x, y))
    tl.store(out_ptr + N + at, tl.minimum(x, y))
    tl.store(out_ptr + 2 * N + at, tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL))
    tl.store(out_ptr + 3 * N + at, tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL))
    tl.store(out_ptr + 4 * N + at, tl.clamp(x, -0.5, 0.5))
    tl.store(out_ptr + 5 * N + at, tl.clamp(x, -0.5, 0.5, propagate_nan=tl.PropagateNan.ALL))


@case
def extremes_with_nan(make: Make) -> torch.Tensor:
    """maximum, minimum and clamp give the number beside a NaN, or with PropagateNan.ALL the NaN."""
    x, y, out = make.floats(16), make.floats(16), make.out(6, 16)
    x[:3] = float("nan")
    y[2:5] = float("nan")
    extremes_kernel[(1,)](x, y, out, 16)
    assert_close(out[0], torch.fmax(x, y), equal_nan=True)
    assert_close(out[2], torch.maximum(x, y), equal_nan=True)
    return out


@triton.jit
def unsigned_kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    y = tl.load(y_ptr + at)
    tl.store(out_ptr + at, x // y)
    tl.store(out_ptr + N + at, x % y)
    tl.store(out_ptr + 2 * N + at, x >> 1)
    tl.store(out_ptr + 3 * N + at, tl.maximum(x, y))
    tl.store(out_ptr + 4 * N + at, (x > y).to(x.dtype))
    tl.store(out_ptr + 5 * N + at, x // 10)


@case(each=("uint8", "uint16", "uint32", "uint64"))
def unsigned_above_half(make: Make, dtype: str) -> torch.Tensor:
    """Division, shift and comparison of unsigned numbers whose highest bit is set."""
    top = torch.iinfo(getattr(torch, dtype)).max
    x = torch.tensor([top, top - 1, top // 2 + 1, top // 2, 200, 7, 1, 0], dtype=getattr(torch, dtype))
    y = torch.tensor([7, top, 3, top // 2 + 1, 201, 7, 2, 1], dtype=getattr(torch, dtype))
    out = make.out(6, 8, dtype=x.dtype)
    unsigned_kernel[(1,)](x, y, out, 8)
    assert out[0].tolist() == [a // b for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    return out


@triton.jit
def truth_kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at) > 0
    y = tl.load(y_ptr + at) > 0
    tl.store(out_ptr + at, x and y)
    tl.store(out_ptr + N + at, x or y)
    tl.store(out_ptr + 2 * N + at, not x)
    tl.store(out_ptr + 3 * N + at, (x and not y) or (y and not x))


@case(instead="the interpreter leaves and, or and not to Python, which asks for the truth of a whole block")
def and_or_not_of_blocks(make: Make) -> tuple[torch.Tensor, torch.Tensor]:
    """``and``, ``or`` and ``not`` of blocks are element by element."""
    x, y, out = make.floats(16), make.floats(16), make.out(4, 16, dtype=torch.bool)
    truth_kernel[(1,)](x, y, out, 16)
    a, b = x > 0, y > 0
    return out, torch.stack([a & b, a | b, ~a, a ^ b])


@triton.jit
def between_kernel(x_ptr, out_ptr, low, high, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, (low < x < high).to(tl.int32))
    tl.store(out_ptr + N + at, tl.where(low <= at < high, 1, 0))
    tl.store(out_ptr + 2 * N + at, (0 <= x != 3 < 50).to(tl.int32))


@case
def chained_comparison(make: Make) -> torch.Tensor:
    """``a < b < c`` of blocks."""
    x, out = make.ints(32, low=0, high=20), make.out(3, 32, dtype=torch.int32)
    between_kernel[(1,)](x, out, 5, 12, 32)
    assert_close(out[0], ((x > 5) & (x < 12)).int())
    return out


@triton.jit
def augmented_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    x += 3
    x *= 2
    x -= at
    x //= 3
    x %= 11
    x <<= 2
    x |= 1
    x ^= 5
    x &= 0xFF
    x >>= 1
    y = x.to(tl.float32)
    y /= 3
    tl.store(out_ptr + at, x.to(tl.float32) + y)


@case
def augmented_assignment(make: Make) -> torch.Tensor:
    """Every augmented assignment."""
    x, out = make.ints(32, low=0, high=100), make.out(32)
    augmented_kernel[(1,)](x, out, 32)
    return out


@triton.jit
def towards_zero_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, x.to(tl.float16, fp_downcast_rounding="rtz"))
    tl.store(out_ptr + N + at, x.to(tl.float16, fp_downcast_rounding="rtne"))


@case
def rounding_towards_zero(make: Make) -> torch.Tensor:
    """``fp_downcast_rounding`` for numbers in the normal range of float16."""
    x = make.positive(32) * torch.where(make.floats(32) > 0, 1.0, -1.0)
    out = make.out(2, 32, dtype=torch.float16)
    towards_zero_kernel[(1,)](x, out, 32)
    cut = (x.view(torch.int32) & ~0x1FFF).view(torch.float32)
    assert_close(out, torch.stack([cut, x]).half(), rtol=0, atol=0)
    return out


@triton.jit
def hash_kernel(x_ptr, out_ptr, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, N))
    x = x ^ (x >> 16)
    x = x * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    x ^= x >> 16
    tl.store(out_ptr + tl.arange(0, N), x)
    tl.store(out_ptr + N + tl.arange(0, N), (x << 5) | (x >> 27))


@case
def hashing(make: Make) -> torch.Tensor:
    """Products and shifts of uint32, with constants above 2**31."""
    x, out = make.ints(32, low=0, high=2**32, dtype=torch.int64).to(torch.uint32), make.out(2, 32, dtype=torch.uint32)
    hash_kernel[(1,)](x, out, 32)
    return out


@triton.jit
def builtins_kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    y = tl.load(y_ptr + at)
    tl.store(out_ptr + at, max(x, 0.25))
    tl.store(out_ptr + N + at, min(x, y))


@case(instead="the interpreter leaves max and min to Python, which asks for the truth of a whole block")
def max_and_min_of_python(make: Make) -> tuple[torch.Tensor, torch.Tensor]:
    """Python's ``max`` and ``min`` of blocks are element by element."""
    x, y, out = make.floats(16), make.floats(16), make.out(2, 16)
    builtins_kernel[(1,)](x, y, out, 16)
    return out, torch.stack([x.clamp(min=0.25), torch.minimum(x, y)])
