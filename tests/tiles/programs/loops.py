"""Loops: over constants, and with bounds and conditions that differ between programs."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from tests.tiles.registry import Make, case


@triton.jit
def static_range_kernel(x_ptr, out_ptr, COUNT: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    total = tl.zeros([N], dtype=tl.float32)
    for i in tl.static_range(COUNT):
        if i % 2 == 0:
            total += tl.load(x_ptr + i * N + at)
        else:
            total -= tl.load(x_ptr + i * N + at) * i
    for j in tl.static_range(1, COUNT, 2):
        total += j
    for k in tl.static_range(COUNT, 0, step=-1):
        total = total * 0.5 + k
    tl.store(out_ptr + at, total)


@case
def static_ranges(make: Make) -> torch.Tensor:
    """static_range with start, stop and step; its variable is a constant."""
    x, out = make.floats(5, 16), make.out(16)
    static_range_kernel[(1,)](x, out, 5, 16)
    return out


@triton.jit
def ranges_kernel(x_ptr, starts_ptr, stops_ptr, out_ptr, step, N: tl.constexpr):
    pid = tl.program_id(0)
    start = tl.load(starts_ptr + pid)
    stop = tl.load(stops_ptr + pid)
    at = tl.arange(0, N)
    total = tl.zeros([N], dtype=tl.float32)
    rounds = 0
    for i in range(start, stop, step):
        total = total * 0.5 + tl.load(x_ptr + i * N + at)
        rounds += 1
    tl.store(out_ptr + pid * (N + 1) + at, total)
    tl.store(out_ptr + pid * (N + 1) + N, rounds)


@case
def ranges_that_differ(make: Make) -> torch.Tensor:
    """Programs loop from other starts to other stops, some not at all."""
    starts = torch.tensor([0, 3, 1, 5, 0], dtype=torch.int32)
    stops = torch.tensor([8, 8, 1, 2, 1], dtype=torch.int32)
    out = make.out(5, 17)
    ranges_kernel[(5,)](make.floats(8, 16), starts, stops, out, 2, 16)
    assert out[:, 16].tolist() == [4, 3, 0, 0, 1]
    return out


@triton.jit
def range_options_kernel(x_ptr, out_ptr, n, N: tl.constexpr):
    at = tl.arange(0, N)
    total = tl.zeros([N], dtype=tl.float32)
    for i in tl.range(0, n, 1, num_stages=3):
        total += tl.load(x_ptr + i * N + at)
    for i in tl.range(n, loop_unroll_factor=2):
        total -= i
    for i in range(n - 1, -1, -1):
        total += i * i
    tl.store(out_ptr + at, total)


@case
def range_options(make: Make) -> torch.Tensor:
    """``tl.range`` with options for the compiler; a range that goes down."""
    out = make.out(16)
    range_options_kernel[(1,)](make.floats(5, 16), out, 5, 16)
    return out


@triton.jit
def while_kernel(n_ptr, out_ptr):
    pid = tl.program_id(0)
    n = tl.load(n_ptr + pid)
    steps = 0
    highest = n
    while n != 1:
        if n % 2 == 0:
            n = n // 2
        else:
            n = 3 * n + 1
        highest = tl.maximum(highest, n)
        steps += 1
    tl.store(out_ptr + 2 * pid, steps)
    tl.store(out_ptr + 2 * pid + 1, highest)


@case
def while_loops(make: Make) -> torch.Tensor:
    """while with a branch inside; every program ends after another number of rounds."""
    out = make.out(8, 2, dtype=torch.int32)
    while_kernel[(8,)](torch.tensor([1, 2, 3, 6, 7, 9, 16, 27], dtype=torch.int32), out)
    assert out[7].tolist() == [111, 9232]
    return out


@triton.jit
def while_block_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + tl.program_id(0) * N + at)
    rounds = 0
    while tl.max(x, axis=0) > 1.0 and rounds < 20:
        x = x * 0.5
        rounds += 1
    tl.store(out_ptr + tl.program_id(0) * N + at, x + rounds)


@case
def while_with_a_reduction(make: Make) -> torch.Tensor:
    """The condition is computed from a block that the loop carries."""
    out = make.out(4, 16)
    while_block_kernel[(4,)](make.floats(4, 16) * torch.tensor([[0.1], [1], [10], [1000]]), out, 16)
    return out


@triton.jit
def nested_kernel(x_ptr, out_ptr, n, N: tl.constexpr):
    pid = tl.program_id(0)
    at = tl.arange(0, N)
    kept = tl.zeros([N], dtype=tl.float32)
    last = -1
    count = 0
    for i in range(n):
        x = tl.load(x_ptr + i * N + at)
        if i % 2 == pid % 2:
            if tl.sum(x, axis=0) > 0:
                kept += x
                last = i
            else:
                kept -= x
                if i > 2:
                    count += 10
        elif i == 3:
            count += 1
    tl.store(out_ptr + pid * (N + 2) + at, kept)
    tl.store(out_ptr + pid * (N + 2) + N, last)
    tl.store(out_ptr + pid * (N + 2) + N + 1, count)


@case
def nested_branches_in_a_loop(make: Make) -> torch.Tensor:
    """Blocks and numbers are carried out of nested branches in a loop."""
    out = make.out(4, 10)
    nested_kernel[(4,)](make.floats(6, 8), out, 6, 8)
    return out


@triton.jit
def loops_kernel(x_ptr, out_ptr, n, N: tl.constexpr):
    at = tl.arange(0, N)
    pid = tl.program_id(0)
    total = tl.zeros([N], dtype=tl.float32)
    for i in range(n):
        inner = tl.zeros([N], dtype=tl.float32)
        j = i
        while j < n + pid:
            inner += tl.load(x_ptr + (j % n) * N + at)
            j += 1
        for k in tl.static_range(2):
            inner = inner * (k + 1)
        total += inner
    tl.store(out_ptr + pid * N + at, total)


@case
def loops_in_loops(make: Make) -> torch.Tensor:
    """range, while and static_range within one another."""
    out = make.out(3, 16)
    loops_kernel[(3,)](make.floats(4, 16), out, 4, 16)
    return out


@triton.jit
def fibonacci_kernel(out_ptr, n):
    pid = tl.program_id(0)
    a, b = 0, 1
    for i in range(pid):
        a, b = b, a + b
        if i == n:
            b = 0
    tl.store(out_ptr + pid, a)


@case
def simultaneous_assignment(make: Make) -> torch.Tensor:
    """``a, b = b, a + b`` in a loop whose length is the program's number."""
    out = make.out(12, dtype=torch.int32)
    fibonacci_kernel[(12,)](out, 100)
    assert out.tolist() == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89]
    return out


@triton.jit
def last_kernel(x_ptr, out_ptr, n, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    i = 0
    for i in range(n):  # noqa: B007 - its last value is used after the loop
        x = x + 1
    y = x
    for start in range(0, n, 2):
        y = y + start
        x = y - x
    tl.store(out_ptr + at, x + y)


@case
def values_after_a_loop(make: Make) -> torch.Tensor:
    """What a loop has assigned is there after it."""
    out = make.out(16)
    last_kernel[(1,)](make.floats(16), out, 5, 16)
    return out


@triton.jit
def guarded_loop_kernel(x_ptr, counts_ptr, out_ptr, N: tl.constexpr):
    pid = tl.program_id(0)
    at = tl.arange(0, N)
    if pid % 2 == 0:
        count = tl.load(counts_ptr + pid)
        best = tl.full([N], -1, tl.int32)
        for i in range(count):
            x = tl.load(x_ptr + i * N + at)
            best = tl.where(x > 0, i, best)
            tl.store(out_ptr + (pid * 5 + i) * N + at, best)
        tl.store(out_ptr + (pid * 5 + 4) * N + at, best)


@case
def loop_in_a_branch(make: Make) -> torch.Tensor:
    """Some programs loop, to ends of their own, and store in each round."""
    out = make.out(4, 5, 8, dtype=torch.int32)
    guarded_loop_kernel[(4,)](make.floats(4, 8), torch.tensor([3, 4, 1, 4], dtype=torch.int32), out, 8)
    assert (out[1::2] == 77).all()
    return out


@triton.jit
def carried_kernel(x_ptr, out_ptr, n, N: tl.constexpr):
    at = tl.arange(0, N)
    before = tl.zeros([N], dtype=tl.float32)
    now = tl.load(x_ptr + at)
    sign = 1
    for i in range(n):
        after = now - before * 0.5
        before = now
        now = after + i * sign
        sign = -sign
    tl.store(out_ptr + at, now)
    tl.store(out_ptr + N + at, before)


@case
def several_values_carried(make: Make) -> torch.Tensor:
    """Values of a loop that depend on one another."""
    out = make.out(2, 16)
    carried_kernel[(1,)](make.floats(16), out, 5, 16)
    return out
