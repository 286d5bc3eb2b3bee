"""Loops, branches, early returns: with constants, and with values that differ between programs."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.testing import assert_close

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
def branches_kernel(x_ptr, out_ptr, limit, N: tl.constexpr):
    pid = tl.program_id(0)
    at = pid * N + tl.arange(0, N)
    x = tl.load(x_ptr + at)
    if pid == 0:
        y = x + 1
        scale = 2.0
    elif pid < limit:
        y = x * x
        scale = 3.0
    elif pid == limit:
        y = -x
        scale = 4.0
    else:
        y = tl.abs(x)
        scale = 5.0
    tl.store(out_ptr + at, y * scale)


@case
def branches_that_differ(make: Make) -> torch.Tensor:
    """if, elif and else, each taken by some programs."""
    x, out = make.floats(6, 16), make.out(6, 16)
    branches_kernel[(6,)](x, out, 3, 16)
    assert_close(out[3], -x[3] * 4)
    return out


@triton.jit
def constants_kernel(x_ptr, out_ptr, MODE: tl.constexpr, FLAG: tl.constexpr, NOTHING: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    if MODE == "double":
        x = x * 2
    elif MODE == "half":
        x = x / 2
    else:
        x = x + 10
    if FLAG and N > 4:
        x += 1
    if not FLAG:
        x -= 1
    if NOTHING is None:
        x *= 3
    if MODE != "half" or FLAG:
        x += 0.5
    if MODE in ("half", "double"):
        x += 0.25
    tl.store(out_ptr + at, x)


@case
def branches_on_constants(make: Make) -> list[torch.Tensor]:
    """Strings, flags and None choose branches; the other branch need not make sense."""
    outputs = []
    for mode, flag, nothing in (("double", True, None), ("half", False, 3), ("other", False, None)):
        out = make.out(16)
        constants_kernel[(1,)](make.floats(16), out, MODE=mode, FLAG=flag, NOTHING=nothing, N=16)
        outputs.append(out)
    return outputs


@triton.jit
def untaken_kernel(x_ptr, bias_ptr, out_ptr, HAS_BIAS: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + at)
        x = x + bias
    y = x if HAS_BIAS else x * 2
    tl.store(out_ptr + at, y)


@case
def a_pointer_that_is_none(make: Make) -> list[torch.Tensor]:
    """None stands for a tensor that is not used."""
    x, bias, outputs = make.floats(16), make.floats(16), [make.out(16), make.out(16)]
    untaken_kernel[(1,)](x, bias, outputs[0], True, 16)
    untaken_kernel[(1,)](x, None, outputs[1], False, 16)
    assert_close(outputs, [x + bias, x * 2])
    return outputs


@triton.jit
def none_kernel(x_ptr, mask_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    if mask_ptr is not None:
        x = tl.where(tl.load(mask_ptr + at), x, 0.0)
    tl.store(out_ptr + at, x)


@case
def none_is_tested(make: Make) -> list[torch.Tensor]:
    """``pointer is not None``."""
    x, mask, outputs = make.floats(16), make.ints(16, low=0, high=2).bool(), [make.out(16), make.out(16)]
    none_kernel[(1,)](x, mask, outputs[0], 16)
    none_kernel[(1,)](x, None, outputs[1], 16)
    return outputs


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
def return_kernel(x_ptr, out_ptr, n, N: tl.constexpr):
    pid = tl.program_id(0)
    if pid >= n:
        return
    at = pid * N + tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, x)
    if tl.sum(x, axis=0) < 0:
        tl.store(out_ptr + at, -x)
        return
    tl.store(out_ptr + at, x * 10)


@case
def early_return(make: Make) -> torch.Tensor:
    """Some programs return at once, some halfway."""
    x, out = make.floats(6, 16), make.out(6, 16)
    return_kernel[(6,)](x, out, 4, 16)
    assert (out[4:] == 77).all()
    return out


@triton.jit
def skip_kernel(flags_ptr, x_ptr, out_ptr, n, SKIP: tl.constexpr, N: tl.constexpr):
    if SKIP:
        return
    pid = tl.program_id(0)
    at = tl.arange(0, N)
    for i in range(n):
        if tl.load(flags_ptr + pid * n + i) != 0:
            tl.store(out_ptr + (pid * n + i) * N + at, tl.load(x_ptr + at) + i)


@case
def effects_in_a_branch(make: Make) -> list[torch.Tensor]:
    """Stores under a condition that was loaded; a return on a constant."""
    flags, outputs = make.ints(3, 4, low=0, high=2), [make.out(3, 4, 16), make.out(3, 4, 16)]
    for skip, out in zip((False, True), outputs, strict=True):
        skip_kernel[(3,)](flags, make.floats(16), out, 4, skip, 16)
    assert ((outputs[0] != 77).any(-1).int() == flags).all() and (outputs[1] == 77).all()
    return outputs


@triton.jit
def ternary_kernel(x_ptr, out_ptr, n, FLAG: tl.constexpr, N: tl.constexpr):
    pid = tl.program_id(0)
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    rows = n if n < 10 else 10
    scale = 2.0 if pid > 1 else 0.5
    sign = 1 if FLAG else -1
    tl.store(out_ptr + pid * N + at, x * scale * sign + rows + (3 if pid == 0 else 4))


@case
def ternary(make: Make) -> list[torch.Tensor]:
    """``a if condition else b`` on constants and on numbers that differ between programs."""
    outputs = [make.out(3, 16), make.out(3, 16)]
    ternary_kernel[(3,)](make.floats(16), outputs[0], 7, True, 16)
    ternary_kernel[(3,)](make.floats(16), outputs[1], 70, False, 16)
    return outputs


@triton.jit
def logic_kernel(a_ptr, b_ptr, out_ptr, n):
    pid = tl.program_id(0)
    a = tl.load(a_ptr + pid)
    b = tl.load(b_ptr + pid)
    out = 0
    if a > 0 and b > 0:
        out += 1
    if a > 0 or b > 0:
        out += 2
    if not a > 0:
        out += 4
    if (a > 0 and not b > 0) or (pid == 2 and n > 3):
        out += 8
    if -2 < a < 2:
        out += 16
    if a == b or not (a < b):
        out += 32
    if a:
        out += 64
    tl.store(out_ptr + pid, out)


@case
def logic_of_numbers(make: Make) -> torch.Tensor:
    """and, or, not and chained comparisons of numbers that differ between programs."""
    a, b = (make.ints(12, low=-3, high=4) for _ in range(2))
    out = make.out(12, dtype=torch.int32)
    logic_kernel[(12,)](a, b, out, 4)
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
def checks_kernel(x_ptr, out_ptr, N: tl.constexpr):
    tl.static_assert(N >= 16, "too small")
    tl.static_print("N is", N)
    x = tl.load(x_ptr + tl.arange(0, N))
    tl.device_assert(x == x, "NaN")
    assert N < 1024, "too large"
    tl.store(out_ptr + tl.arange(0, N), x + (N if N == 16 else 0))
    pass


@case
def checks(make: Make) -> torch.Tensor:
    """Assertions that hold, and prints, change nothing."""
    out = make.out(16)
    checks_kernel[(1,)](make.floats(16), out, 16)
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
