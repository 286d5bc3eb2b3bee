"""Values and memory that pass between threads: what a shader has to wait for, and what stands elsewhere than usual."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from tests.tiles.registry import Make, case


@triton.jit
def split_kernel(x_ptr, out_ptr, N: tl.constexpr):
    _, odd = tl.split(tl.reshape(tl.load(x_ptr + tl.arange(0, 2 * N)), (N, 2)))
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.sum(odd) + at)
    tl.store(out_ptr + N + at, tl.cumsum(odd, 0))
    tl.store(out_ptr + 2 * N + at, tl.sort(odd))


@case(each=(16, 256))
def second_half_of_a_split(make: Make, size: int) -> torch.Tensor:
    """Reduced, scanned and sorted."""
    x, out = make.ints(2 * size), make.out(3, size, dtype=torch.int32)
    split_kernel[(1,)](x, out, size)
    odd, at = x[1::2], torch.arange(size)
    assert torch.equal(out[0], (odd.sum() + at).int())
    assert torch.equal(out[1], odd.cumsum(0).int())
    assert torch.equal(out[2], odd.sort().values)
    return out


@triton.jit
def for_kernel(x_ptr, out_ptr, turns, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(x_ptr + at, at)
    total = 0
    for _ in range(turns):
        total += tl.sum(tl.load(out_ptr + at))
    tl.store(out_ptr + at, tl.load(x_ptr + (N - 1 - at)) + total)


@triton.jit
def while_kernel(x_ptr, out_ptr, turns, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(x_ptr + at, at)
    total = 0
    turn = 0
    while turn < turns:
        total += tl.sum(tl.load(out_ptr + at))
        turn += 1
    tl.store(out_ptr + at, tl.load(x_ptr + (N - 1 - at)) + total)


def looped(kernel: Any, turns: int) -> torch.Tensor:
    """What either gives."""
    x, out = torch.zeros(256, dtype=torch.int32), torch.ones(256, dtype=torch.int32)
    kernel[(1,)](x, out, turns, 256)
    assert torch.equal(out, torch.arange(256).flip(0).int() + 256 * turns)
    return out


@case(each=(0, 2))
def barrier_in_a_for(make: Make, turns: int) -> torch.Tensor:
    """A sum waits, and there may be no turn: then nothing has waited for what was stored before."""
    return looped(for_kernel, turns)


@case(each=(0, 2))
def barrier_in_a_while(make: Make, turns: int) -> torch.Tensor:
    """The same."""
    return looped(while_kernel, turns)


@triton.jit
def summed_or_not(out_ptr, no, at):
    if no > 0:
        return 0
    return tl.sum(tl.load(out_ptr + at))


@triton.jit
def return_kernel(x_ptr, out_ptr, no, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(x_ptr + at, at)
    total = summed_or_not(out_ptr, no, at)
    tl.store(out_ptr + at, tl.load(x_ptr + (N - 1 - at)) + total)


@case(each=(0, 5))
def barrier_behind_a_return(make: Make, no: int) -> torch.Tensor:
    """A call that ends early has not waited."""
    x, out = torch.zeros(256, dtype=torch.int32), torch.ones(256, dtype=torch.int32)
    return_kernel[(1,)](x, out, no, 256)
    assert torch.equal(out, torch.arange(256).flip(0).int() + (0 if no else 256))
    return out


@triton.jit
def load_kernel(x_ptr, other_ptr, mask_ptr, N: tl.constexpr):
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    other, mask = tl.load(other_ptr + at), tl.load(mask_ptr + at) > 0
    x = tl.load(x_ptr + at, mask=mask, other=tl.trans(other))
    tl.store(x_ptr + (N * N - 1 - at), x)


@case
def load_before_a_store(make: Make) -> torch.Tensor:
    """What the load takes from other threads comes before it, and what is stored then after it."""
    x, other, mask = make.ints(16, 16), make.ints(16, 16), make.ints(16, 16, low=0, high=2)
    expected = torch.where(mask > 0, x, other.t()).flip(0, 1)
    load_kernel[(1,)](x, other, mask, 16)
    assert torch.equal(x, expected)
    return x


@triton.jit
def histogram_kernel(x_ptr, mask_ptr, out_ptr, N: tl.constexpr, BINS: tl.constexpr):
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    mask = tl.reshape(tl.trans(tl.load(mask_ptr + at)), (N * N,)) > 0
    x = tl.load(x_ptr + tl.arange(0, N * N))
    tl.store(out_ptr + tl.arange(0, BINS), tl.histogram(x, BINS, mask=mask))


@case
def histogram_of_a_moved_mask(make: Make) -> torch.Tensor:
    """The mask moves between threads through the memory in which they count."""
    x, mask, out = make.ints(256, low=0), make.ints(16, 16, low=0, high=2), make.out(16, dtype=torch.int32)
    x %= 16
    histogram_kernel[(1,)](x, mask, out, 16, 16)
    assert torch.equal(out, torch.bincount(x[mask.t().flatten() > 0], minlength=16).int())
    return out
