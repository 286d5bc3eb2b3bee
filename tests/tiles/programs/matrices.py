"""tl.dot and what is built of it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.testing import assert_close

from tests.tiles.registry import EPS16, EPS32, EPS64, EPSBF, Make, case

ORDER = "the order of summing: K = {} roundings of sums below {}"


@triton.jit
def at_of(M: tl.constexpr, N: tl.constexpr):
    return tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]


@triton.jit
def dot_kernel(a_ptr, b_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    a = tl.load(a_ptr + at_of(M, K))
    b = tl.load(b_ptr + at_of(K, N))
    c = tl.dot(a, b, input_precision="ieee")
    tl.store(out_ptr + at_of(M, N), c)
    acc = tl.full((M, N), 2, c.dtype)
    acc = tl.dot(a, b, acc, input_precision="ieee")
    tl.store(out_ptr + M * N + at_of(M, N), acc)
    acc += tl.dot(a, tl.trans(tl.trans(b)), input_precision="ieee")
    tl.store(out_ptr + 2 * M * N + at_of(M, N), acc)


def dots(make: Make, a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """a @ b; with 2 added; and with a @ b added again."""
    out = make.out(3, 16, 16, dtype=dtype)
    dot_kernel[(1,)](a, b, out, 16, 16, 32)
    product = a.double() @ b.double()
    assert_close(out.double(), torch.stack([product, product + 2, 2 * product + 2]), rtol=1e-3, atol=1e-3)
    return out


@case(each=("float16", "bfloat16", "float32"), atol=32 * EPS32 * 32, because=ORDER.format(32, 64))
def dot_of_floats(make: Make, dtype: str) -> torch.Tensor:
    """Products of 16 bits are summed in float32."""
    kind = getattr(torch, dtype)
    return dots(make, make.floats(16, 32, dtype=kind), make.floats(32, 16, dtype=kind), torch.float32)


@case(atol=32 * EPS64 * 32, because=ORDER.format(32, 64))
def dot_of_double(make: Make) -> torch.Tensor:
    """float64 stays float64."""
    kind = torch.float64
    return dots(make, make.floats(16, 32, dtype=kind), make.floats(32, 16, dtype=kind), kind)


@case
def dot_of_int8(make: Make) -> torch.Tensor:
    """int8 is summed in int32."""
    a, b = (make.ints(*shape, low=-128, high=128, dtype=torch.int8) for shape in ((16, 32), (32, 16)))
    return dots(make, a, b, torch.int32)


@triton.jit
def half_kernel(a_ptr, b_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    a = tl.load(a_ptr + at_of(M, K))
    b = tl.load(b_ptr + at_of(K, N))
    tl.store(out_ptr + at_of(M, N), tl.dot(a, b, out_dtype=tl.float16))


@case(atol=16 * EPS16 * 16, because=ORDER.format(16, 32) + ", in float16")
def dot_into_half(make: Make) -> torch.Tensor:
    """``out_dtype=tl.float16``."""
    a, b = (make.floats(16, 16, dtype=torch.float16) for _ in range(2))
    out = make.out(16, 16, dtype=torch.float16)
    half_kernel[(1,)](a, b, out, 16, 16, 16)
    return out


@triton.jit
def batched_kernel(a_ptr, b_ptr, out_ptr, B: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    batch = tl.arange(0, B)[:, None, None]
    a = tl.load(a_ptr + batch * (M * K) + at_of(M, K)[None, :, :])
    b = tl.load(b_ptr + batch * (K * N) + at_of(K, N)[None, :, :])
    tl.store(out_ptr + batch * (M * N) + at_of(M, N)[None, :, :], tl.dot(a, b))


@case(atol=16 * EPS32 * 16, because=ORDER.format(16, 32))
def dot_of_batches(make: Make) -> torch.Tensor:
    """Three dimensions."""
    a, b, out = make.floats(2, 16, 16), make.floats(2, 16, 16), make.out(2, 16, 16)
    batched_kernel[(1,)](a, b, out, 2, 16, 16, 16)
    assert_close(out, a @ b)
    return out


@triton.jit
def matmul_kernel(
    a_ptr, b_ptr, bias_ptr, c_ptr, m, n, k, am, ak, bk, bn, cm, cn,
    HAS_BIAS: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    rows = tl.cdiv(m, M)
    columns = tl.cdiv(n, N)
    first = pid // (GROUP * columns) * GROUP
    group = min(rows - first, GROUP)
    row = (first + pid % (GROUP * columns) % group) * M + tl.arange(0, M)
    column = pid % (GROUP * columns) // group * N + tl.arange(0, N)
    inner = tl.arange(0, K)
    a_ptrs = a_ptr + row[:, None] * am + inner[None, :] * ak
    b_ptrs = b_ptr + inner[:, None] * bk + column[None, :] * bn
    acc = tl.zeros((M, N), dtype=tl.float32)
    for step in range(0, tl.cdiv(k, K)):
        left = k - step * K
        a = tl.load(a_ptrs, mask=(row[:, None] < m) & (inner[None, :] < left), other=0.0)
        b = tl.load(b_ptrs, mask=(inner[:, None] < left) & (column[None, :] < n), other=0.0)
        acc = tl.dot(a, b, acc)
        a_ptrs += K * ak
        b_ptrs += K * bk
    if HAS_BIAS:
        acc += tl.load(bias_ptr + column, mask=column < n, other=0.0).to(tl.float32)[None, :]
    mask = (row[:, None] < m) & (column[None, :] < n)
    tl.store(c_ptr + row[:, None] * cm + column[None, :] * cn, acc.to(c_ptr.dtype.element_ty), mask=mask)


def matmul(make: Make, dtype: torch.dtype, bias: bool) -> torch.Tensor:
    """A product of (37, 50) and a transposed (29, 50), in programs that are numbered in groups."""
    a, b = make.floats(37, 50, dtype=dtype), make.floats(29, 50, dtype=dtype).t()
    added, out = make.floats(29, dtype=dtype), make.out(37, 29, dtype=dtype)
    grid = (triton.cdiv(37, 16) * triton.cdiv(29, 16),)
    strides = (*a.stride(), *b.stride(), *out.stride())
    matmul_kernel[grid](a, b, added if bias else None, out, 37, 29, 50, *strides, bias, M=16, N=16, K=16, GROUP=2)
    close = 4 * torch.finfo(dtype).eps
    assert_close(out.double(), a.double() @ b.double() + added.double() * bias, rtol=close, atol=close * 8)
    return out


@case(each=(True, False), atol=50 * EPS32 * 16, because=ORDER.format(50, 32))
def matmul_with_a_loop(make: Make, bias: bool) -> torch.Tensor:
    """A matrix product with edges in all directions, with a bias and without."""
    return matmul(make, torch.float32, bias)


@case(rtol=EPS16, atol=EPS16, because="sums that differ in float32 fall on either side of a tie in float16")
def matmul_of_half(make: Make) -> torch.Tensor:
    """The result is rounded to float16 once."""
    return matmul(make, torch.float16, True)


@case(rtol=EPSBF, atol=EPSBF, because="sums that differ in float32 fall on either side of a tie in bfloat16")
def matmul_of_bfloat16(make: Make) -> torch.Tensor:
    """The result is rounded to bfloat16 once."""
    return matmul(make, torch.bfloat16, True)


@triton.jit
def dequantized_kernel(x_ptr, packed_ptr, scale_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    x = tl.load(x_ptr + at_of(M, K))
    inner = tl.arange(0, K)
    packed = tl.load(packed_ptr + (inner // 2)[:, None] * N + tl.arange(0, N)[None, :])
    shift = ((inner % 2) * 4)[:, None]
    w = ((packed >> shift) & 0xF).to(tl.float32) - 8.0
    w = w * tl.load(scale_ptr + tl.arange(0, N))[None, :]
    tl.store(out_ptr + at_of(M, N), tl.dot(x, w))


@case(atol=32 * EPS32 * 128, because=ORDER.format(32, 256))
def product_with_packed_weights(make: Make) -> torch.Tensor:
    """Two weights of 4 bits in each byte."""
    packed = make.ints(16, 16, low=0, high=256, dtype=torch.uint8)
    x, out = make.floats(16, 32), make.out(16, 16)
    dequantized_kernel[(1,)](x, packed, make.positive(16) / 4, out, 16, 16, 32)
    return out


@triton.jit
def wrapped_kernel(a_ptr, b_ptr, out_ptr, m, n, k, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    row = (tl.program_id(0) * M + tl.arange(0, M)) % m
    column = (tl.program_id(1) * N + tl.arange(0, N)) % n
    acc = tl.zeros((M, N), dtype=tl.float32)
    for start in range(0, k, K):
        inner = start + tl.arange(0, K)
        a = tl.load(a_ptr + row[:, None] * k + inner[None, :], mask=inner[None, :] < k, other=0.0)
        b = tl.load(b_ptr + inner[:, None] * n + column[None, :], mask=inner[:, None] < k, other=0.0)
        acc += tl.dot(a, b, allow_tf32=False)
    at = tl.program_id(0) * M + tl.arange(0, M)
    to = tl.program_id(1) * N + tl.arange(0, N)
    tl.store(out_ptr + at[:, None] * n + to[None, :], acc, mask=(at < m)[:, None] & (to < n)[None, :])


@case(atol=40 * EPS32 * 16, because=ORDER.format(40, 32))
def matmul_that_wraps_around(make: Make) -> torch.Tensor:
    """Rows and columns beyond the edge are those of the beginning."""
    a, b, out = make.floats(20, 40), make.floats(40, 24), make.out(20, 24)
    wrapped_kernel[(2, 2)](a, b, out, 20, 24, 40, M=16, N=16, K=16)
    assert_close(out, a @ b)
    return out


@triton.jit
def batches_kernel(a_ptr, b_ptr, out_ptr, A: tl.constexpr, B: tl.constexpr, M: tl.constexpr):
    at = tl.reshape(tl.arange(0, A * B * M * M), (A, B, M, M))
    product = tl.dot(tl.load(a_ptr + at), tl.load(b_ptr + at))
    tl.store(out_ptr + at, tl.dot(tl.load(a_ptr + at), tl.load(b_ptr + at), acc=product))


@case
def products_with_several_batches(make: Make) -> torch.Tensor:
    """Two axes before those of the matrices, of whole numbers, which fp32 adds up exactly."""
    a, b = (make.ints(2, 4, 16, 16, low=-9, high=9).float() for _ in range(2))
    out = make.out(2, 4, 16, 16)
    batches_kernel[(1,)](a, b, out, 2, 4, 16)
    return out
