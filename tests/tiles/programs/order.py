"""Kernels that read what they have written and write what they have read: the order within a program counts."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from tests.tiles.registry import Make, case


@triton.jit
def reversed_kernel(x_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    value = tl.load(x_ptr + (N - 1 - at))
    tl.debug_barrier()
    tl.store(x_ptr + at, value)


@case(each=(64, 1024))
def reversed_in_place(make: Make, n: int) -> torch.Tensor:
    """Every element is read before any is written."""
    x = make.floats(n)
    reversed_kernel[(1,)](x, n)
    return x


@triton.jit
def shifted_kernel(x_ptr, y_ptr, n, N: tl.constexpr):
    at = tl.arange(0, N)
    value = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.debug_barrier()
    tl.store(y_ptr + at + 1, value, mask=at + 1 < n)


@case
def one_tensor_twice(make: Make) -> torch.Tensor:
    """What is read and what is written are two arguments, and one tensor."""
    x = make.floats(300)
    shifted_kernel[(1,)](x, x, 300, 512)
    return x


@triton.jit
def passed_on_kernel(x_ptr, turns, N: tl.constexpr):
    at = tl.arange(0, N)
    for turn in range(turns):
        value = tl.load(x_ptr + turn * N + (at ^ 37)) + turn
        tl.debug_barrier()
        tl.store(x_ptr + (turn + 1) * N + at, value)
        tl.debug_barrier()


@case
def each_turn_reads_the_one_before(make: Make) -> torch.Tensor:
    """A loop whose turns hand their results on through memory."""
    x = make.out(6, 256)
    x[0] = make.floats(256)
    passed_on_kernel[(1,)](x, 5, 256)
    return x


@triton.jit
def counter_kernel(x_ptr, turns, N: tl.constexpr):
    at = tl.arange(0, N)
    for _ in range(turns):
        before = tl.load(x_ptr)
        tl.debug_barrier()
        tl.store(x_ptr, before + 3)
        tl.debug_barrier()
        tl.store(x_ptr + 1 + at, tl.load(x_ptr) * (at + 1))
        tl.debug_barrier()


@case
def a_number_in_memory(make: Make) -> torch.Tensor:
    """Read by all, written by one, read again."""
    x = make.ints(65)
    counter_kernel[(1,)](x, 4, 64)
    return x


@triton.jit
def swapped_kernel(x_ptr, y_ptr, n, N: tl.constexpr):
    at = tl.arange(0, N)
    a = tl.load(x_ptr + at, mask=at < n)
    b = tl.load(y_ptr + at, mask=at < n)
    for _ in range(3):
        a, b = b, a
    tl.store(x_ptr + at, a, mask=at < n)
    tl.store(y_ptr + at, b, mask=at < n)


@case
def exchanged_in_a_loop(make: Make) -> tuple[torch.Tensor, torch.Tensor]:
    """Each of two names gets the other's value."""
    x, y = make.floats(100), make.floats(100)
    swapped_kernel[(1,)](x, y, 100, 128)
    return x, y


@triton.jit
def turned_kernel(x_ptr, out_ptr, turns, N: tl.constexpr):
    at = tl.arange(0, N)
    value = tl.load(x_ptr + at[:, None] * N + at[None, :])
    for _ in range(turns):
        value = tl.trans(value) * 2
        value = tl.flip(value, 1)
    tl.store(out_ptr + at[:, None] * N + at[None, :], value)


@case
def turned_in_a_loop(make: Make) -> torch.Tensor:
    """Axes that change places in every turn."""
    x, out = make.ints(32, 32), make.out(32, 32, dtype=torch.int32)
    turned_kernel[(1,)](x, out, 5, 32)
    return out


@triton.jit
def shared_kernel(x_ptr, N: tl.constexpr):
    at = x_ptr + tl.arange(0, N) // 64
    value = tl.load(at)
    tl.debug_barrier()
    tl.store(at, value + 1)


@case
def places_that_elements_share(make: Make) -> torch.Tensor:
    """All elements are read before any is written, through one pointer."""
    x = make.floats(8)
    shared_kernel[(1,)](x, 512)
    return x
