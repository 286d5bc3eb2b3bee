"""Atomic operations, where the order of the programs does not matter."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.testing import assert_close

from tests.tiles.registry import EPS32, Make, case


@triton.jit
def add_kernel(x_ptr, total_ptr, places_ptr, n, N: tl.constexpr):
    pid = tl.program_id(0)
    at = pid * N + tl.arange(0, N)
    mask = at < n
    x = tl.load(x_ptr + at, mask=mask, other=0)
    tl.atomic_add(total_ptr, tl.sum(x, axis=0))
    tl.atomic_add(total_ptr + 1 + tl.arange(0, N), x, mask=mask)
    places = tl.load(places_ptr + at, mask=mask, other=0)
    tl.atomic_add(total_ptr + 1 + N + places, x, mask=mask)


def added(make: Make, x: torch.Tensor) -> torch.Tensor:
    """Totals: of everything, by column, and by places that occur several times within a block."""
    total, places = torch.zeros(1 + 16 + 4, dtype=x.dtype), make.ints(60, low=0, high=4)
    add_kernel[(4,)](x, total, places, 60, 16)
    assert_close(total[17:], torch.zeros(4, dtype=x.dtype).index_add(0, places, x))
    return total


@case(each=("int32", "int64"))
def atomic_add(make: Make, dtype: str) -> torch.Tensor:
    """Sums of several programs, also where one block adds several times to one place."""
    return added(make, make.ints(60, dtype=getattr(torch, dtype)))


@case(atol=60 * EPS32 * 16, because="the order of summing: 60 roundings of sums below 32")
def atomic_add_of_floats(make: Make) -> torch.Tensor:
    """The same in float32."""
    return added(make, make.floats(60))


@triton.jit
def extremes_kernel(x_ptr, out_ptr, N: tl.constexpr):
    pid = tl.program_id(0)
    at = tl.arange(0, N)
    x = tl.load(x_ptr + pid * N + at)
    tl.atomic_max(out_ptr + at, x)
    tl.atomic_min(out_ptr + N + at, x)
    tl.atomic_max(out_ptr + 2 * N, tl.max(x, axis=0))
    tl.atomic_min(out_ptr + 2 * N + 1, tl.min(x, axis=0), sem="relaxed")


@case(each=("int32", "int64", "uint32", "float32"))
def atomic_extremes(make: Make, dtype: str) -> torch.Tensor:
    """atomic_max and atomic_min, signed, unsigned and floating."""
    kind = getattr(torch, dtype)
    x, out = make.values(64, kind), make.out(34, dtype=kind)
    extremes_kernel[(4,)](x, out, 16)
    return out


@triton.jit
def bits_kernel(x_ptr, out_ptr, N: tl.constexpr):
    x = tl.load(x_ptr + tl.program_id(0) * N + tl.arange(0, N))
    at = tl.arange(0, N)
    tl.atomic_and(out_ptr + at, x)
    tl.atomic_or(out_ptr + N + at, x)
    tl.atomic_xor(out_ptr + 2 * N + at, x)


@case
def atomic_bits(make: Make) -> torch.Tensor:
    """atomic_and, atomic_or, atomic_xor."""
    out = make.out(3, 16, dtype=torch.int32)
    bits_kernel[(3,)](make.ints(3, 16), out, 16)
    return out


@triton.jit
def exchange_kernel(x_ptr, old_ptr, N: tl.constexpr):
    pid = tl.program_id(0)
    at = pid * N + tl.arange(0, N)
    old = tl.atomic_xchg(x_ptr + at, at * 2)
    tl.store(old_ptr + at, old)
    before = tl.atomic_add(x_ptr + at, 5, mask=at % 2 == 0)
    tl.store(old_ptr + 2 * N + at, before, mask=at % 2 == 0)


@case
def atomics_return_what_was_there(make: Make) -> list[torch.Tensor]:
    """atomic_xchg and atomic_add give the value from before."""
    x, old = make.ints(32), make.out(64, dtype=torch.int32)
    expected = x.clone()
    exchange_kernel[(2,)](x, old, 16)
    assert torch.equal(old[:32], expected)
    return [x, old]


@triton.jit
def swap_kernel(x_ptr, expected_ptr, old_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    old = tl.atomic_cas(x_ptr + at, tl.load(expected_ptr + at), at + 1000)
    tl.store(old_ptr + at, old)
    tl.atomic_cas(x_ptr + N, 77, 5)


@case
def compare_and_swap(make: Make) -> list[torch.Tensor]:
    """atomic_cas stores only where the expected value was found."""
    x, old = make.ints(17, low=0, high=2), make.out(16, dtype=torch.int32)
    x[16] = 77
    swap_kernel[(1,)](x, make.ints(16, low=0, high=2), old, 16)
    return [x, old]


@triton.jit
def lock_kernel(lock_ptr, x_ptr, total_ptr, N: tl.constexpr):
    pid = tl.program_id(0)
    x = tl.load(x_ptr + pid * N + tl.arange(0, N))
    while tl.atomic_cas(lock_ptr, 0, 1) == 1:
        pass
    total = tl.load(total_ptr + tl.arange(0, N))
    tl.store(total_ptr + tl.arange(0, N), total + x)
    tl.debug_barrier()
    tl.atomic_xchg(lock_ptr, 0)


@case
def lock(make: Make) -> list[torch.Tensor]:
    """Programs wait for one another at a lock."""
    x, lock, total = make.ints(4, 16), torch.zeros(1, dtype=torch.int32), torch.zeros(16, dtype=torch.int32)
    lock_kernel[(4,)](lock, x, total, 16)
    assert torch.equal(total, x.sum(0).int())
    return [lock, total]


@triton.jit
def last_program_kernel(x_ptr, partial_ptr, count_ptr, out_ptr, n, N: tl.constexpr, P: tl.constexpr):
    pid = tl.program_id(0)
    x = tl.load(x_ptr + pid * N + tl.arange(0, N))
    tl.store(partial_ptr + pid, tl.sum(x, axis=0))
    if tl.atomic_add(count_ptr, 1) == n - 1:
        at = tl.arange(0, P)
        tl.store(out_ptr, tl.sum(tl.load(partial_ptr + at, mask=at < n, other=0), axis=0))


@case
def the_last_program_sums(make: Make) -> torch.Tensor:
    """The program that counts last sums what all have stored."""
    x, partial, count = make.ints(5, 16), torch.zeros(8, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    out = make.out(1, dtype=torch.int32)
    last_program_kernel[(5,)](x, partial, count, out, 5, 16, 8)
    assert out.item() == x.sum()
    return out
