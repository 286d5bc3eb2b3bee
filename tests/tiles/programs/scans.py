"""Running sums and products, scans by one's own function, sorting."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.testing import assert_close

from tests.tiles.registry import EPS32, EPSBF, Make, case

TERMS = "16 terms of values below 4 in another order: 16 roundings of sums below 16"


@triton.jit
def at_of(M: tl.constexpr, N: tl.constexpr):
    return tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]


@triton.jit
def running_kernel(x_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr):
    x = tl.load(x_ptr + at_of(M, N))
    tl.store(out_ptr + at_of(M, N), tl.cumsum(x, axis=1))
    tl.store(out_ptr + M * N + at_of(M, N), tl.cumsum(x, 0))
    tl.store(out_ptr + 2 * M * N + at_of(M, N), tl.cumsum(x, axis=1, reverse=True))
    tl.store(out_ptr + 3 * M * N + at_of(M, N), tl.cumprod(x, axis=1))
    tl.store(out_ptr + 4 * M * N + at_of(M, N), x.cumsum(0, reverse=True))


@case(rtol=16 * EPS32, atol=16 * EPS32 * 8, because=TERMS)
def running_sums_of_floats(make: Make) -> torch.Tensor:
    """cumsum and cumprod along each axis, forwards and backwards."""
    x, out = make.floats(4, 16), make.out(5, 4, 16)
    running_kernel[(1,)](x, out, 4, 16)
    assert_close(out[0], x.cumsum(1))
    return out


@case(
    rtol=EPSBF,
    atol=EPS32,
    because="the sum and the product are rounded to bf16 once; products below 1e-7 count for nothing",
    instead="Triton 3.9 rounds each step to bf16, 3.7 the result",
)
def running_sums_of_bfloats(make: Make) -> tuple[torch.Tensor, torch.Tensor]:
    """64 terms, of which a sum that is rounded at each step would be many roundings off."""
    x, out = make.floats(4, 64, dtype=torch.bfloat16), make.out(5, 4, 64, dtype=torch.bfloat16)
    running_kernel[(1,)](x, out, 4, 64)
    x = x.double()
    back = x.flip(1).cumsum(1).flip(1), x.cumprod(1), x.flip(0).cumsum(0).flip(0)
    return out, torch.stack((x.cumsum(1), x.cumsum(0), *back)).to(torch.bfloat16)


@case(each=("int8", "int32", "int64", "uint8"))
def running_sums_of_ints(make: Make, dtype: str) -> torch.Tensor:
    """Narrow whole numbers are summed in 32 bits; products wrap."""
    x, out = make.values(64, getattr(torch, dtype)).view(4, 16), make.out(5, 4, 16, dtype=torch.int64)
    running_kernel[(1,)](x, out, 4, 16)
    return out


@triton.jit
def add(a, b):
    return a + b


@triton.jit
def maximum(a, b):
    return tl.maximum(a, b)


@triton.jit
def recurrence(decay_a, value_a, decay_b, value_b):
    return decay_a * decay_b, value_a * decay_b + value_b


@triton.jit
def last_valid(value_a, valid_a, value_b, valid_b):
    return tl.where(valid_b != 0, value_b, value_a), valid_a | valid_b


@triton.jit
def scan_kernel(x_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr):
    x = tl.load(x_ptr + at_of(M, N))
    tl.store(out_ptr + at_of(M, N), tl.associative_scan(x, 1, maximum))
    tl.store(out_ptr + M * N + at_of(M, N), tl.associative_scan(x, axis=0, combine_fn=add))
    tl.store(out_ptr + 2 * M * N + at_of(M, N), tl.associative_scan(x, 1, maximum, reverse=True))


@case
def scans(make: Make) -> torch.Tensor:
    """associative_scan by a function of the user's."""
    out = make.out(3, 4, 8, dtype=torch.int32)
    scan_kernel[(1,)](make.ints(4, 8), out, 4, 8)
    return out


@triton.jit
def recurrence_kernel(decay_ptr, x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    decay = tl.load(decay_ptr + at)
    x = tl.load(x_ptr + at)
    product, value = tl.associative_scan((decay, x), 0, recurrence)
    tl.store(out_ptr + at, value)
    tl.store(out_ptr + N + at, product)
    _, back = tl.associative_scan((decay, x), 0, recurrence, reverse=True)
    tl.store(out_ptr + 2 * N + at, back)


@case(rtol=16 * EPS32, atol=16 * EPS32 * 4, because=TERMS)
def linear_recurrence(make: Make) -> torch.Tensor:
    """A scan of two blocks: h = decay * h + x."""
    decay, x, out = make.positive(16) / 5, make.floats(16), make.out(3, 16)
    recurrence_kernel[(1,)](decay, x, out, 16)
    h, expected = torch.zeros(()), []
    for d, value in zip(decay, x, strict=True):
        h = h * d + value
        expected.append(h)
    assert_close(out[0], torch.stack(expected))
    return out


@triton.jit
def last_valid_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    value, _ = tl.associative_scan((x, (x > 0).to(tl.int32)), 0, last_valid)
    tl.store(out_ptr + at, value)


@case
def scan_that_does_not_commute(make: Make) -> torch.Tensor:
    """The left operand is what came before."""
    out = make.out(16, dtype=torch.int32)
    last_valid_kernel[(1,)](make.ints(16), out, 16)
    return out


@triton.jit
def sort_kernel(x_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr):
    x = tl.load(x_ptr + at_of(M, N))
    tl.store(out_ptr + at_of(M, N), tl.sort(x))
    tl.store(out_ptr + M * N + at_of(M, N), tl.sort(x, dim=1, descending=True))
    tl.store(out_ptr + 2 * M * N + at_of(M, N), tl.flip(x, 1))
    tl.store(out_ptr + 3 * M * N + at_of(M, N), tl.flip(x, 0))


@case(each=("int32", "float32", "float16", "uint8"))
def sorting(make: Make, dtype: str) -> torch.Tensor:
    """sort in both directions, with equal values; flip."""
    kind = getattr(torch, dtype)
    x = (make.values(32, kind).double() % 13).to(kind).view(4, 8)
    out = make.out(4, 4, 8, dtype=kind)
    sort_kernel[(1,)](x, out, 4, 8)
    assert torch.equal(out[0], x.sort(1).values) and torch.equal(out[3], x.flip(0))
    return out


@triton.jit
def topk_kernel(x_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    x = tl.load(x_ptr + at_of(M, N))
    tl.store(out_ptr + at_of(M, K), tl.topk(x, K))


@case
def topk(make: Make) -> torch.Tensor:
    """The largest values, the largest first."""
    x, out = make.ints(4, 16), make.out(4, 4, dtype=torch.int32)
    topk_kernel[(1,)](x, out, 4, 16, 4)
    assert torch.equal(out, x.topk(4, dim=1).values)
    return out


@triton.jit
def count_kernel(flags_ptr, out_ptr, n, N: tl.constexpr):
    at = tl.arange(0, N)
    flags = tl.load(flags_ptr + at, mask=at < n, other=0)
    places = tl.cumsum(flags, 0) - 1
    tl.store(out_ptr + places, at, mask=(at < n) & (flags != 0))


@case
def compaction(make: Make) -> torch.Tensor:
    """A running count says where each chosen element goes."""
    flags, out = make.ints(50, low=0, high=2), make.out(64, dtype=torch.int32)
    count_kernel[(1,)](flags, out, 50, 64)
    assert torch.equal(out[: flags.sum()], flags.nonzero().flatten().int())
    return out
