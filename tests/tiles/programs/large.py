"""Blocks of many elements for each thread, and products that go through a threadgroup's memory in steps."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from tests.tiles.registry import EPS16, EPS32, Make, case


@triton.jit
def transposed_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at[:, None] * N + at[None, :])
    tl.store(out_ptr + at[:, None] * N + at[None, :], x + tl.trans(x))


@case
def transposed(make: Make) -> torch.Tensor:
    """64 KiB change threads."""
    x, out = make.floats(128, 128), make.out(128, 128)
    transposed_kernel[(1,)](x, out, 128)
    return out


@triton.jit
def sums_kernel(x_ptr, rows_ptr, columns_ptr, N: tl.constexpr, M: tl.constexpr):
    i, j = tl.arange(0, N), tl.arange(0, M)
    x = tl.load(x_ptr + i[:, None] * M + j[None, :])
    x = x - tl.max(x, 1)[:, None]
    tl.store(rows_ptr + i, tl.sum(x, 1))
    tl.store(columns_ptr + j, tl.sum(x + tl.min(x, 0)[None, :], 0))


@case(each=("8x512", "64x64", "128x128", "256x16"))
def sums(make: Make, shape: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Along both axes, of whole numbers: whatever the order, the sum is one."""
    n, m = map(int, shape.split("x"))
    x, rows, columns = make.ints(n, m), make.out(n, dtype=torch.int32), make.out(m, dtype=torch.int32)
    sums_kernel[(1,)](x, rows, columns, n, m)
    return rows, columns


@triton.jit
def ordered_kernel(x_ptr, sorted_ptr, scanned_ptr, picked_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(sorted_ptr + at, tl.sort(x))
    tl.store(scanned_ptr + at, tl.cumsum(x, 0, reverse=True))
    tl.store(picked_ptr + at, tl.gather(x, (at * 7) % N, 0))


@case(each=(32, 4096))
def ordered(make: Make, n: int) -> list[torch.Tensor]:
    """Sorted, added up and gathered."""
    outs = [make.out(n, dtype=torch.int32) for _ in range(3)]
    ordered_kernel[(1,)](make.ints(n), *outs, n)
    return outs


@triton.jit
def product_kernel(a_ptr, b_ptr, out_ptr, M: tl.constexpr, K: tl.constexpr, N: tl.constexpr):
    m, k, n = tl.arange(0, M), tl.arange(0, K), tl.arange(0, N)
    a = tl.load(a_ptr + m[:, None] * K + k[None, :])
    b = tl.load(b_ptr + n[None, :] * K + k[:, None])
    tl.store(out_ptr + m[:, None] * N + n[None, :], tl.dot(a, b))


@case(
    each=("float32 16x256x32", "float16 128x64x128", "bfloat16 16x16x16", "float32 64x128x64"),
    rtol=64 * EPS32,
    atol=2e-4,
    because="up to 256 terms are added up in another order",
)
def product(make: Make, what: str) -> torch.Tensor:
    """The right side as it lies, and its axes exchanged."""
    name, shape = what.split()
    m, k, n = map(int, shape.split("x"))
    dtype, out = getattr(torch, name), make.out(m, n)
    product_kernel[(1,)](make.floats(m, k, dtype=dtype), make.floats(n, k, dtype=dtype), out, m, k, n)
    return out


@triton.jit
def attention_kernel(q_ptr, k_ptr, v_ptr, out_ptr, n, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr):
    rows, d = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, D)
    q = tl.load(q_ptr + rows[:, None] * D + d[None, :], mask=rows[:, None] < n, other=0.0)
    most, total = tl.full([M], -1e30, tl.float32), tl.zeros([M], tl.float32)
    out = tl.zeros([M, D], tl.float32)
    for start in range(0, n, N):
        at = start + tl.arange(0, N)
        k = tl.load(k_ptr + at[:, None] * D + d[None, :], mask=at[:, None] < n, other=0.0)
        v = tl.load(v_ptr + at[:, None] * D + d[None, :], mask=at[:, None] < n, other=0.0)
        x = tl.where(at[None, :] < n, tl.dot(q, tl.trans(k)), -1e30)
        new = tl.maximum(most, tl.max(x, 1))
        p, scale = tl.exp(x - new[:, None]), tl.exp(most - new)
        total = total * scale + tl.sum(p, 1)
        out = tl.dot(p.to(v.dtype), v, out * scale[:, None])
        most = new
    tl.store(out_ptr + rows[:, None] * D + d[None, :], out / total[:, None], mask=rows[:, None] < n)


@case(
    each=("float32 16x32x16", "float16 64x64x32"),
    rtol=4 * EPS16,
    atol=2 * EPS16,
    because="sums in another order, rounded to fp16",
)
def attention(make: Make, what: str) -> torch.Tensor:
    """Flash attention over 77 keys."""
    name, shape = what.split()
    m, n, d = map(int, shape.split("x"))
    dtype, out = getattr(torch, name), make.out(77, d)
    q, k, v = (make.floats(77, d, dtype=dtype, scale=0.5) for _ in range(3))
    attention_kernel[(-(-77 // m),)](q, k, v, out, 77, m, n, d)
    return out


@triton.jit
def one_after_the_other(a, b, c, d):
    return a * c, b * c + d


@triton.jit
def composed_kernel(a_ptr, b_ptr, whole_ptr, running_ptr, N: tl.constexpr, M: tl.constexpr, AXIS: tl.constexpr):
    i, j = tl.arange(0, N), tl.arange(0, M)
    at = i[:, None] * M + j[None, :]
    a, b = tl.load(a_ptr + at), tl.load(b_ptr + at)
    c, d = tl.reduce((a, b), AXIS, one_after_the_other)
    e, f = tl.associative_scan((a, b), AXIS, one_after_the_other, reverse=True)
    rest = j if AXIS == 0 else i
    tl.store(whole_ptr + rest, c ^ d)
    tl.store(running_ptr + at, e ^ f)


@case(each=("4x512 0", "4x512 1", "128x16 0", "128x16 1", "1x4096 1"))
def composed(make: Make, what: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Functions x -> a x + b, one after the other: their order counts."""
    shape, axis = what.split()
    n, m = map(int, shape.split("x"))
    a, b = make.ints(n, m), make.ints(n, m)
    whole, running = make.out(m if axis == "0" else n, dtype=torch.int32), make.out(n, m, dtype=torch.int32)
    composed_kernel[(1,)](a, b, whole, running, n, m, int(axis))
    return whole, running
