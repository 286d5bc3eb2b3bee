"""What a program does not reach must not happen to it, whatever the other programs do at the same time."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.testing import assert_close

from tests.tiles.registry import Make, case


@triton.jit
def outside_kernel(x_ptr, out_ptr, n, N: tl.constexpr):
    pid = tl.program_id(0)
    at = tl.arange(0, N)
    value = tl.zeros([N], dtype=tl.float32)
    if pid < n:
        value = tl.load(x_ptr + pid * N + at) * 2
    tl.store(out_ptr + pid * N + at, value)
    if pid >= n:
        tl.store(out_ptr + (pid - n) * N + at, value + pid)


@case
def loads_outside_that_are_not_reached(make: Make) -> torch.Tensor:
    """The unmasked load of a branch would be far outside for the programs that do not take it."""
    out = make.out(6, 16)
    outside_kernel[(6,)](make.floats(3, 16), out, 3, 16)
    return out


@triton.jit
def finished_kernel(x_ptr, starts_ptr, out_ptr, N: tl.constexpr):
    pid = tl.program_id(0)
    start = tl.load(starts_ptr + pid)
    stop = tl.load(starts_ptr + pid + 1)
    at = tl.arange(0, N)
    total = tl.zeros([N], dtype=tl.float32)
    for i in range(start, stop):
        x = tl.load(x_ptr + i * N + at)
        total = total * 0.5 + x
        tl.store(x_ptr + i * N + at, total)
    tl.store(out_ptr + pid * N + at, total)


@case
def loads_after_the_last_round(make: Make) -> list[torch.Tensor]:
    """Programs whose loop is over do not go on reading and writing behind it."""
    starts = torch.tensor([0, 1, 1, 6, 8], dtype=torch.int32)
    x, out = make.floats(8, 16), make.out(4, 16)
    finished_kernel[(4,)](x, starts, out, 16)
    return [x, out]


@triton.jit
def zero_kernel(x_ptr, y_ptr, out_ptr):
    pid = tl.program_id(0)
    x = tl.load(x_ptr + pid)
    y = tl.load(y_ptr + pid)
    result = -1
    if y != 0:
        result = x // y + x % y
    tl.store(out_ptr + pid, result)


@case
def division_by_zero_that_is_not_reached(make: Make) -> torch.Tensor:
    """Whole numbers are divided only where the divisor is not 0."""
    x, y, out = make.ints(12), make.ints(12, low=-2, high=3), make.out(12, dtype=torch.int32)
    y[:3] = 0
    zero_kernel[(12,)](x, y, out)
    assert (out[:3] == -1).all()
    return out


@triton.jit
def doubled_where(x_ptr, at, wanted):
    if wanted:
        tl.store(x_ptr + at, tl.load(x_ptr + at) * 2)
        if tl.load(x_ptr) > 0:
            return
        tl.store(x_ptr + at, tl.load(x_ptr + at) - 1)


@triton.jit
def is_even(n):
    return n % 2 == 0


@triton.jit
def calls_kernel(x_ptr, out_ptr, n, N: tl.constexpr):
    pid = tl.program_id(0)
    at = tl.arange(0, N)
    for i in range(n):
        if is_even(pid + i):
            doubled_where(x_ptr + pid * N, at, i > pid)
        else:
            tl.atomic_add(out_ptr + i, pid + 1)


@case
def functions_with_effects_in_branches(make: Make) -> list[torch.Tensor]:
    """Functions store, and return early, within branches of a loop."""
    x, out = make.floats(4, 16), torch.zeros(6, dtype=torch.int32)
    calls_kernel[(4,)](x, out, 6, 16)
    return [x, out]


@triton.jit
def collatz_kernel(n_ptr, out_ptr, count, N: tl.constexpr):
    pid = tl.program_id(0)
    total = 0
    j = 0
    while j < count:
        n = tl.load(n_ptr + pid * count + j)
        steps = 0
        while n > 1 and steps < 50:
            n = tl.where(n % 2 == 0, n // 2, 3 * n + 1)
            steps += 1
            if n == 4:
                total += 100
        if steps > 5:
            total += steps
        j += 1 + steps % 2
    tl.store(out_ptr + pid, total)


@case
def while_loops_in_while_loops(make: Make) -> torch.Tensor:
    """Every program goes its own way through two loops."""
    out = make.out(6, dtype=torch.int32)
    collatz_kernel[(6,)](make.ints(6, 5, low=1, high=30), out, 5, 16)
    return out


@triton.jit
def chain_kernel(x_ptr, n, N: tl.constexpr):
    base = x_ptr + tl.program_id(0) * 64
    at = tl.arange(0, N)
    for i in range(n):
        x = tl.load(base + i * 4 + at)
        tl.store(base + i * 4 + 4 + at, x + 1)


@case
def stores_that_later_rounds_read(make: Make) -> torch.Tensor:
    """A round reads what the one before has stored, overlapping."""
    x = make.floats(3, 64)
    chain_kernel[(3,)](x, 8, 16)
    return x


@triton.jit
def shift_kernel(x_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(x_ptr + at + 1, x)
    tl.store(x_ptr, tl.load(x_ptr + N))


@case
def overlapping_store(make: Make) -> torch.Tensor:
    """All is loaded before anything is stored."""
    x = make.floats(17)
    shift_kernel[(1,)](x, 16)
    return x


@triton.jit
def ticket_kernel(counter_ptr, out_ptr, x_ptr, n):
    pid = tl.program_id(0)
    x = tl.load(x_ptr + pid)
    if x > 0:
        ticket = tl.atomic_add(counter_ptr, 1)
        tl.store(out_ptr + ticket, x)
    else:
        tl.atomic_min(counter_ptr + 1, x)
    i = 0
    while i < x:
        tl.atomic_add(counter_ptr + 2, i)
        i += 1


@case
def tickets(make: Make) -> list[torch.Tensor]:
    """What an atomic operation in a branch returns is used as a place: each program gets another."""
    counter, out, x = torch.zeros(3, dtype=torch.int32), make.out(16, dtype=torch.int32), make.ints(16, low=-5, high=6)
    ticket_kernel[(16,)](counter, out, x, 16)
    assert counter[0] == (x > 0).sum()
    return [counter, out.sort().values]


@triton.jit
def range_kernel(n_ptr, out_ptr):
    pid = tl.program_id(0)
    n = tl.load(n_ptr + pid)
    total = n * 0
    for i in range(n):
        n = n - 1
        total += n * 10 + i
        i = i + 100
        total += i
    a, b = total, n
    for _ in range(pid):
        a, b = swapped(a, b)
    tl.store(out_ptr + 2 * pid, a)
    tl.store(out_ptr + 2 * pid + 1, b)


@triton.jit
def swapped(a, b):
    return b, a + 1


@case
def bounds_are_taken_once(make: Make) -> torch.Tensor:
    """A loop whose bound and variable are changed in its body; bounds of 64 bits; two values that change places."""
    out = make.out(5, 2, dtype=torch.int64)
    range_kernel[(5,)](torch.tensor([3, 0, 5, 1, 7]), out)
    return out


@triton.jit
def many_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    column = tl.program_id(1)
    at = column * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * n + at, mask=at < n, other=0)
    if row % 7 == 3:
        x = -x
    tl.store(out_ptr + row * n + at, x, mask=at < n)
    tl.atomic_max(out_ptr + tl.num_programs(0) * n + column, tl.sum(x, axis=0))


@case
def many_programs(make: Make) -> torch.Tensor:
    """A grid of 200 by 3."""
    x, out = make.ints(200, 10), make.out(200 * 10 + 3, dtype=torch.int32)
    many_kernel[(200, 3)](x, out, 10, BLOCK=4)
    assert_close(out[:30].view(3, 10), x[:3].int())
    return out
