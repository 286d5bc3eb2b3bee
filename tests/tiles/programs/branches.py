"""Branches and early returns: on constants, and on values that differ between programs."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.testing import assert_close

from tests.tiles.registry import Make, case


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
    if MODE == "half" or MODE == "double":
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
def block_ternary_kernel(x_ptr, out_ptr, N: tl.constexpr):
    pid = tl.program_id(0)
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    y = x * 2 if pid == 1 else x - 1
    tl.store(out_ptr + pid * N + at, y)


@case
def ternary_of_blocks(make: Make) -> torch.Tensor:
    """One block or another, by a number that differs between programs."""
    x, out = make.floats(16), make.out(3, 16)
    block_ternary_kernel[(3,)](x, out, 16)
    assert torch.equal(out, torch.stack([x - 1, x * 2, x - 1]))
    return out


@triton.jit
def print_kernel(x_ptr, out_ptr, N: tl.constexpr):
    """Kernels may have a docstring."""
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.device_print("x", x)
    "and other strings"
    tl.store(out_ptr + at, x)


@case
def printing(make: Make) -> torch.Tensor:
    """device_print changes nothing."""
    out = make.out(4)
    print_kernel[(1,)](make.floats(4), out, 4)
    return out
