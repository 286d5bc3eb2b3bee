"""Philox random numbers: the same bits as Triton's."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from tests.tiles.registry import EPS32, Make, case


@triton.jit
def bits_kernel(out_ptr, seed, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    total = tl.num_programs(0) * N
    tl.store(out_ptr + at, tl.randint(seed, at))
    a, b, c, d = tl.randint4x(seed, at)
    tl.store(out_ptr + total + at, a ^ (b + c) ^ d)
    tl.store(out_ptr + 2 * total + at, tl.randint(seed, at, n_rounds=7))
    tl.store(out_ptr + 3 * total + at, tl.randint(seed, at.to(tl.int64) + 5000000000).to(tl.int32, bitcast=True))


@case(each=(0, 1, 12345, 2**31 - 1, 2**40 + 7, -3))
def random_bits(make: Make, seed: int) -> torch.Tensor:
    """randint, randint4x, other numbers of rounds, offsets above 2**32, seeds of 32 and 64 bits."""
    out = make.out(4, 64, dtype=torch.int32)
    bits_kernel[(2,)](out, seed, 32)
    return out


@triton.jit
def uniform_kernel(out_ptr, seed, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.rand(seed, at))
    a, b, c, d = tl.rand4x(seed, at * 4)
    tl.store(out_ptr + N + at, a)
    tl.store(out_ptr + 2 * N + at, b)
    tl.store(out_ptr + 3 * N + at, tl.where(c > d, c, d))


@case
def uniform(make: Make) -> torch.Tensor:
    """rand and rand4x are whole numbers times one constant: bit for bit."""
    out = make.out(4, 64)
    uniform_kernel[(1,)](out, 2024, 64)
    assert (out >= 0).all() and (out < 1).all()
    return out


@triton.jit
def normal_kernel(out_ptr, seed, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.randn(seed, at))


@case(
    rtol=16 * EPS32, atol=16 * EPS32, because="log, sqrt and cos, each within 4 units, and cos of an argument below 7"
)
def normal(make: Make) -> torch.Tensor:
    """randn."""
    out = make.out(64)
    normal_kernel[(1,)](out, 7, 64)
    return out


@triton.jit
def dropout_kernel(x_ptr, out_ptr, n, p, seed, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)
    keep = tl.rand(seed, at) > p
    tl.store(out_ptr + at, tl.where(keep, x / (1 - p), 0.0), mask=at < n)


@case
def dropout(make: Make) -> torch.Tensor:
    """What is dropped depends on seed and place only."""
    x, out = make.floats(100), make.out(100)
    dropout_kernel[(4,)](x, out, 100, 0.25, 123, BLOCK=32)
    return out


@triton.jit
def seeds_kernel(seed_ptr, out_ptr, N: tl.constexpr):
    pid = tl.program_id(0)
    seed = tl.load(seed_ptr + pid)
    tl.store(out_ptr + pid * N + tl.arange(0, N), tl.rand(seed, tl.arange(0, N) + pid))
    tl.store(out_ptr + 4 * N + pid, tl.rand(5, pid))


@case
def seeds_that_differ(make: Make) -> torch.Tensor:
    """Every program loads its seed; a single number instead of a block."""
    out = make.out(4 * 16 + 4)
    seeds_kernel[(4,)](make.ints(4, low=0, high=2**40, dtype=torch.int64), out, 16)
    return out


@triton.jit
def module_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.random.uint_to_uniform_float(tl.load(x_ptr + at)))
    tl.store(out_ptr + N + at, tl.random.rand(7, at))


@case
def names_of_the_module(make: Make) -> torch.Tensor:
    """``tl.random``; of the least and the greatest integer no number is 1."""
    out = make.out(2 * 16)
    module_kernel[(1,)](torch.cat([torch.tensor([-(2**31), 2**31 - 1], dtype=torch.int32), make.ints(14)]), out, 16)
    return out
