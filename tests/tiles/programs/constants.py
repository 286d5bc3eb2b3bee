"""Names that are declared as ``tl.constexpr`` first and assigned later: the first assignment alone makes a constant."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from tests.tiles.registry import Make, case

ALL_TENSORS = "Triton's interpreter makes a tensor of every number that is assigned"


@triton.jit
def used_up_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    s: tl.constexpr
    s = 25
    s = s * 2
    tl.store(out_ptr + at, x + s)


@case
def declaration_used_up(make: Make) -> torch.Tensor:
    """A later number is an int32, which widens the int8 that it is added to."""
    x, out = torch.full((16,), 100, dtype=torch.int8), make.out(16)
    used_up_kernel[(1,)](x, out, 16)
    return out


@triton.jit
def types_kernel(x_ptr, out_ptr, n, WIDE: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    s: tl.constexpr
    if n > 3:
        s = 25
        tl.static_assert(s.type == tl.constexpr_type(25))
        s = 4
        tl.static_assert(s.type == tl.int32)
    else:
        s = 7
        tl.static_assert(s.type == tl.constexpr_type(7))
        s = 5
    tl.static_assert(s.type == tl.int32)
    (s := 8) if n > 3 else (s := 9)
    s = 10
    tl.static_assert(s.type == tl.constexpr_type(10))
    s: tl.constexpr
    s += 2
    tl.static_assert(s.type == tl.constexpr_type(12))
    (s, w) = (10, 1)
    tl.static_assert(s.type == tl.int32)
    v: tl.constexpr
    w: tl.constexpr
    for _ in range(n):
        v = 6
    (v, w) = (10, 1)
    tl.static_assert(v.type == tl.constexpr_type(10) and w.type == tl.constexpr_type(1))
    t: tl.constexpr
    for turn in tl.static_range(2):
        t = 25
        tl.static_assert(turn == 1 or t.type == tl.constexpr_type(25))
        tl.static_assert(turn == 0 or t.type == tl.int32)
    u: tl.constexpr
    if WIDE:
        u = 3
    u = 100
    tl.static_assert((u.type == tl.int32) == WIDE)
    tl.store(out_ptr + at, x + v + u)


@case(each=(True, False), instead=ALL_TENSORS)
def declaration_after_branches_and_loops(make: Make, wide: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """It stands again after those whose course is known only at run time, and is used up in others."""
    x, out = torch.full((16,), 100, dtype=torch.int8), make.out(16)
    types_kernel[(1,)](x, out, 5, wide, 16)
    sums = x + torch.tensor(10, dtype=torch.int8)
    return out, (sums.int() + 100 if wide else sums + torch.tensor(100, dtype=torch.int8)).float()


@triton.jit
def before_loop_kernel(x_ptr, out_ptr, n, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    s: tl.constexpr
    for _ in range(n):
        s = 50
        tl.store(out_ptr + at, x + s)
    turn = 0
    while turn < n:
        s = 60
        tl.store(out_ptr + N + at, x + s)
        turn += 1


@case
def declaration_before_a_loop(make: Make) -> torch.Tensor:
    """Triton reads a loop's body twice, and the first reading uses it up: in the loop numbers are tensors."""
    x, out = torch.full((16,), 100, dtype=torch.int8), make.out(2, 16)
    before_loop_kernel[(1,)](x, out, 2, 16)
    return out


@triton.jit
def in_loop_kernel(out_ptr, n):
    s = 1
    for turn in range(n):
        s: tl.constexpr
        s = 25
        s = s * 2 + turn
    tl.store(out_ptr, s)


@case(each=(0, 3))
def declaration_in_a_loop(make: Make, turns: int) -> torch.Tensor:
    """A name that has a value before the loop keeps the one that the loop gives it."""
    out = make.out(1, dtype=torch.int32)
    in_loop_kernel[(1,)](out, turns)
    return out
