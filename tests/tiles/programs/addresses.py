"""Pointers that are integers, and programs that wait for what others write without atomic operations."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from tests.tiles.registry import Make, case


@triton.jit
def table_kernel(table_ptr, sizes_ptr, N: tl.constexpr):
    group = tl.program_id(0)
    x_ptr = tl.load(table_ptr + 2 * group).to(tl.pointer_type(tl.float32))
    out_ptr = tl.load(table_ptr + 2 * group + 1).to(tl.pointer_type(tl.float32))
    at = tl.arange(0, N)
    inside = at < tl.load(sizes_ptr + group)
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=inside) * (group + 1), mask=inside)


@case
def table_of_addresses(make: Make) -> list[torch.Tensor]:
    """``data_ptr()`` of tensors of several sizes, one of them a view, in a tensor of int64."""
    sizes = (16, 3, 9)
    given = [make.floats(size + 2) for size in sizes]
    out = [make.out(size + 1) for size in sizes]
    table = [address for x, y in zip(given, out, strict=True) for address in (x[2:].data_ptr(), y.data_ptr())]
    table_kernel[(3,)](torch.tensor(table), torch.tensor(sizes, dtype=torch.int32), 16)
    return out


@triton.jit
def address_kernel(address, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.load(address.to(tl.pointer_type(tl.int32)) + at))


@case
def address_as_an_argument(make: Make) -> torch.Tensor:
    """``data_ptr()`` passed as an integer."""
    x, out = make.ints(8), make.out(8, dtype=torch.int32)
    address_kernel[(1,)](x.data_ptr(), out, 8)
    return out


@triton.jit
def relay_kernel(flags_ptr, out_ptr):
    place = tl.program_id(0)
    if place > 0:
        while tl.load(flags_ptr + place - 1) == 0:
            pass
        tl.store(out_ptr + place, tl.load(out_ptr + place - 1) * 2)
    tl.store(flags_ptr + place, 1)


@case
def waiting_for_an_earlier_program(make: Make) -> torch.Tensor:
    """Each program waits for the flag of the one before it, which it loads and loads."""
    out = torch.ones(6, dtype=torch.int32)
    relay_kernel[(6,)](torch.zeros(6, dtype=torch.int32), out)
    return out


@triton.jit
def masked_kernel(x_ptr, out_ptr, n, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out_ptr + at // 2, tl.load(x_ptr + at, mask=at < n, other=-1.0), mask=(at < n) & (at % 3 != 1))


@case(each=(0, 1, 37, 64))
def stores_that_miss(make: Make, n: int) -> torch.Tensor:
    """Programs whose stores all, partly or nowhere happen, and several of one program to one place."""
    out = make.out(40)
    masked_kernel[(4,)](make.floats(64), out, n, 16)
    return out
