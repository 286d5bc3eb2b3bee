"""Sums, extremes and reductions by one's own function."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.testing import assert_close

from tests.tiles.registry import EPS16, EPS32, EPSBF, INTS, Make, case

ORDER = "another order of summing: n units of rounding, n = {} terms, of values below {}"


@triton.jit
def sums_kernel(x_ptr, all_ptr, rows_ptr, columns_ptr, M: tl.constexpr, N: tl.constexpr):
    rows = tl.arange(0, M)
    columns = tl.arange(0, N)
    x = tl.load(x_ptr + rows[:, None] * N + columns[None, :])
    tl.store(all_ptr, tl.sum(x))
    tl.store(columns_ptr + columns, tl.sum(x, axis=0))
    tl.store(rows_ptr + rows, tl.sum(x, 1))
    tl.store(rows_ptr + M + rows[:, None], tl.sum(x, axis=1, keep_dims=True))
    tl.store(columns_ptr + N + columns, x.sum(0))


def sums(make: Make, x: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
    """Over everything, over rows, over columns."""
    out = [make.out(1, dtype=dtype), make.out(2, 8, dtype=dtype), make.out(2, 16, dtype=dtype)]
    sums_kernel[(1,)](x, *out, 8, 16)
    return out


@case(rtol=128 * EPS32 / 2, atol=128 * EPS32 * 2, because=ORDER.format(128, 4))
def sum_of_floats(make: Make) -> list[torch.Tensor]:
    """sum along each axis and over all, with kept dimensions, as function and as method."""
    x = make.floats(8, 16)
    out = sums(make, x, torch.float32)
    assert_close(out[1][0], x.sum(1))
    return out


@case(each=INTS)
def sum_of_ints(make: Make, dtype: str) -> list[torch.Tensor]:
    """Narrow whole numbers are summed in 32 bits."""
    return sums(make, make.values(128, getattr(torch, dtype)).view(8, 16), torch.int64)


@case
def sum_wraps(make: Make) -> list[torch.Tensor]:
    """Sums of int32 wrap."""
    return sums(make, make.ints(8, 16, low=2**30, high=2**31 - 1), torch.int32)


@case(rtol=16 * EPS16, atol=16 * EPS16 * 8, because=ORDER.format(128, 30) + ", in float16")
def sum_of_half(make: Make) -> list[torch.Tensor]:
    """float16 is summed in float16."""
    return sums(make, make.floats(8, 16, dtype=torch.float16), torch.float32)


@case(
    rtol=16 * EPSBF,
    atol=16 * EPSBF * 8,
    because=ORDER.format(128, 30) + ", in bfloat16",
    instead="the interpreter sums the bits of bfloat16",
)
def sum_of_bfloat16(make: Make) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """bfloat16 is summed."""
    x = make.floats(8, 16, dtype=torch.bfloat16)
    wide = x.float()
    return sums(make, x, torch.float32), [
        wide.sum().view(1),
        wide.sum(1).expand(2, 8),
        wide.sum(0).expand(2, 16),
    ]


@triton.jit
def sum_dtype_kernel(x_ptr, out_ptr, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, N))
    tl.store(out_ptr, tl.sum(x, axis=0, dtype=tl.int64))
    tl.store(out_ptr + 1, tl.sum(x.to(tl.int64)))
    tl.store(out_ptr + 2, tl.sum((x > 0).to(tl.int32), axis=0))
    tl.store(out_ptr + 3, tl.sum(x > 0))


@case
def sum_in_a_dtype(make: Make) -> torch.Tensor:
    """``dtype=`` of sum; sums of comparisons count."""
    x, out = make.ints(32, low=-(2**31), high=2**31 - 1), make.out(4, dtype=torch.int64)
    sum_dtype_kernel[(1,)](x, out, 32)
    assert out[0] == x.long().sum() and out[2] == (x > 0).sum()
    return out


@triton.jit
def extremes_kernel(x_ptr, values_ptr, places_ptr, M: tl.constexpr, N: tl.constexpr):
    rows = tl.arange(0, M)
    columns = tl.arange(0, N)
    x = tl.load(x_ptr + rows[:, None] * N + columns[None, :])
    tl.store(values_ptr + rows, tl.max(x, axis=1))
    tl.store(values_ptr + M + rows, tl.min(x, axis=1))
    tl.store(values_ptr + 2 * M, tl.max(x))
    tl.store(values_ptr + 2 * M + 1, tl.min(x))
    tl.store(places_ptr + rows, tl.argmax(x, axis=1))
    tl.store(places_ptr + M + rows, tl.argmin(x, axis=1))
    tl.store(places_ptr + 2 * M + columns, tl.argmax(x, 0))
    value, place = tl.max(x, axis=1, return_indices=True)
    tl.store(values_ptr + 3 * M + rows, value)
    tl.store(places_ptr + 2 * M + N + rows, place)


def extremes_of(make: Make, x: torch.Tensor) -> list[torch.Tensor]:
    """Values and places of the extremes of (8, 16)."""
    out = [make.out(4, 8, dtype=x.dtype), make.out(40, dtype=torch.int32)]
    extremes_kernel[(1,)](x, *out, 8, 16)
    return out


@case(each=("int8", "int16", "int32", "int64", "uint8", "uint32", "float16", "float32", "float64"))
def extremes(make: Make, dtype: str) -> list[torch.Tensor]:
    """max, min, argmax, argmin; the first of equal values wins."""
    x = (make.values(128, getattr(torch, dtype)).double() % 5).round().to(getattr(torch, dtype)).view(8, 16)
    out = extremes_of(make, x)
    assert out[1][:8].tolist() == x.numpy().argmax(1).tolist()
    return out


@case(instead="the interpreter compares the bits of bfloat16")
def extremes_of_bfloat16(make: Make) -> tuple[torch.Tensor, torch.Tensor]:
    """max and min of bfloat16, of both signs."""
    x = make.floats(8, 16, dtype=torch.bfloat16)
    out = extremes_of(make, x)[0]
    expected = torch.stack([x.amax(1), x.amin(1), out[2], x.amax(1)])
    expected[2, 0], expected[2, 1] = x.max(), x.min()
    return out, expected


@case
def extremes_beside_nan(make: Make) -> torch.Tensor:
    """max and min pass over NaN."""
    x = make.floats(8, 16)
    x[:, 3] = float("nan")
    x[2, 0] = float("nan")
    out = make.out(2, 8)
    plain_extremes_kernel[(1,)](x, out, 8, 16)
    return out


@triton.jit
def plain_extremes_kernel(x_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr):
    rows = tl.arange(0, M)
    x = tl.load(x_ptr + rows[:, None] * N + tl.arange(0, N)[None, :])
    tl.store(out_ptr + rows, tl.max(x, 1))
    tl.store(out_ptr + M + rows, tl.min(x, 1))


@triton.jit
def xor_kernel(x_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr):
    rows = tl.arange(0, M)
    x = tl.load(x_ptr + rows[:, None] * N + tl.arange(0, N)[None, :])
    tl.store(out_ptr + rows, tl.xor_sum(x, axis=1))
    tl.store(out_ptr + M, tl.xor_sum(x))
    tl.store(out_ptr + M + 1 + rows, tl.reduce_or(x, axis=1))


@case(each=("int32", "int64", "uint8"))
def xor_and_or(make: Make, dtype: str) -> torch.Tensor:
    """xor_sum and reduce_or."""
    kind = getattr(torch, dtype)
    out = make.out(9, dtype=kind)
    xor_kernel[(1,)](make.values(32, kind).view(4, 8), out, 4, 8)
    return out


@triton.jit
def multiply(a, b):
    return a * b


@triton.jit
def larger_magnitude(a, b):
    return tl.where(tl.abs(a) > tl.abs(b), a, b)


@triton.jit
def own_kernel(x_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr):
    rows = tl.arange(0, M)
    x = tl.load(x_ptr + rows[:, None] * N + tl.arange(0, N)[None, :])
    tl.store(out_ptr + rows, tl.reduce(x, 1, multiply))
    tl.store(out_ptr + M + rows, tl.reduce(x, axis=1, combine_fn=larger_magnitude))
    tl.store(out_ptr + 2 * M + rows[:, None], tl.reduce(x, 1, larger_magnitude, keep_dims=True))


@case(rtol=8 * EPS32, because="a product of 8 factors in another order: a rounding for each")
def own_functions(make: Make) -> torch.Tensor:
    """reduce by a function of the user's."""
    x, out = make.positive(4, 8) - 2, make.out(3, 4)
    own_kernel[(1,)](x, out, 4, 8)
    assert_close(out[0], x.prod(1))
    return out


@triton.jit
def merge_moments(mean_a, m2_a, count_a, mean_b, m2_b, count_b):
    count = count_a + count_b
    delta = mean_b - mean_a
    share = tl.where(count == 0.0, 0.0, count_b / count)
    return mean_a + delta * share, m2_a + m2_b + delta * delta * count_a * share, count


@triton.jit
def moments_kernel(x_ptr, out_ptr, n, M: tl.constexpr, N: tl.constexpr):
    rows = tl.arange(0, M)
    columns = tl.arange(0, N)
    mask = columns[None, :] < n
    x = tl.load(x_ptr + rows[:, None] * n + columns[None, :], mask=mask, other=0.0)
    count = tl.where(mask, 1.0, 0.0) + tl.zeros([M, N], tl.float32)
    mean, m2, total = tl.reduce((x, tl.zeros([M, N], tl.float32), count), 1, merge_moments)
    tl.store(out_ptr + rows, mean)
    tl.store(out_ptr + M + rows, m2 / total)
    tl.store(out_ptr + 2 * M + rows, total)


@case(
    rtol=32 * EPS32, atol=32 * EPS32, because="16 merges in another order, each rounding a few times, of values near 1"
)
def moments(make: Make) -> torch.Tensor:
    """reduce of three blocks by a function of six values: mean and variance."""
    x, out = make.floats(4, 13), make.out(3, 4)
    moments_kernel[(1,)](x, out, 13, 4, 16)
    assert_close(out[1], x.var(1, correction=0))
    return out


@triton.jit
def cube_kernel(x_ptr, out_ptr, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr):
    a = tl.arange(0, A)[:, None, None]
    b = tl.arange(0, B)[None, :, None]
    c = tl.arange(0, C)[None, None, :]
    x = tl.load(x_ptr + (a * B + b) * C + c)
    middle = tl.sum(x, axis=1)
    tl.store(out_ptr + tl.arange(0, A)[:, None] * C + tl.arange(0, C)[None, :], middle)
    tl.store(out_ptr + A * C + tl.arange(0, A), tl.max(tl.max(x, axis=2), axis=1))
    tl.store(out_ptr + A * C + A + tl.arange(0, C), tl.sum(tl.sum(x, 0), 0))
    tl.store(out_ptr + A * C + A + C + tl.arange(0, C), tl.argmin(tl.sum(x, 0), 0))


@case
def several_axes(make: Make) -> torch.Tensor:
    """One axis of three after another."""
    x, out = make.ints(2, 4, 8), make.out(34, dtype=torch.int32)
    cube_kernel[(1,)](x, out, 2, 4, 8)
    assert torch.equal(out[:16].view(2, 8), x.sum(1).int())
    return out
