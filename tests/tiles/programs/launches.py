"""Grids, autotuning, heuristics, and what a launch takes."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from tests.tiles.registry import Make, case


@triton.jit
def grid_kernel(out_ptr):
    x = tl.program_id(0)
    y = tl.program_id(axis=1)
    z = tl.program_id(2)
    at = (x * tl.num_programs(1) + y) * tl.num_programs(2) + z
    tl.store(out_ptr + at, x * 100 + y * 10 + z + tl.num_programs(0) * 1000)


@case(each=((3,), (2, 4), (2, 3, 4), [5, 1]))
def grids(make: Make, grid: Any) -> torch.Tensor:
    """One, two and three dimensions."""
    out = make.out(32, dtype=torch.int32)
    grid_kernel[tuple(grid)](out)
    return out


@triton.jit
def meta_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=at < n) + tl.num_programs(0), mask=at < n)


@case
def grid_from_constants(make: Make) -> list[torch.Tensor]:
    """A grid as a function of the constants, also by name; options of the compiler are taken."""
    x, outputs = make.floats(100), [make.out(100) for _ in range(3)]
    meta_kernel[lambda meta: (triton.cdiv(100, meta["BLOCK"]),)](x, outputs[0], 100, BLOCK=32)
    meta_kernel[lambda meta: (triton.cdiv(meta["n"], meta["BLOCK"]),)](x, outputs[1], n=100, BLOCK=16)
    meta_kernel[(4,)](x, outputs[2], 100, BLOCK=32, num_warps=8, num_stages=2)
    return outputs


@triton.jit
def arguments_kernel(x_ptr, out_ptr, a, b, c, flag, N: tl.constexpr = 16, SCALE: tl.constexpr = 2):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    if flag:
        x = x + a
    tl.store(out_ptr + at, x * b + c * SCALE)


@case
def numbers_as_arguments(make: Make) -> list[torch.Tensor]:
    """Whole numbers, fractions and bools; by place and by name; constants with defaults."""
    x, outputs = make.floats(16), [make.out(16) for _ in range(4)]
    arguments_kernel[(1,)](x, outputs[0], 3, 0.5, 1, True)
    arguments_kernel[(1,)](x, outputs[1], 1, 1.0, 0, False, 16)
    arguments_kernel[(1,)](x, out_ptr=outputs[2], c=2, b=1, a=-3, flag=True, SCALE=5)
    arguments_kernel[(1,)](x, outputs[3], a=1, b=-0.1, c=1e-3, flag=1)
    return outputs


@triton.jit
def wide_kernel(out_ptr, n, m, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, at + n)
    tl.store(out_ptr + N + at, at - m)


@case
def wide_numbers(make: Make) -> torch.Tensor:
    """A number above 2**31 is an int64."""
    out = make.out(2, 16, dtype=torch.int64)
    wide_kernel[(1,)](out, 2**40 + 1, -(2**35), 16)
    assert out[0, 0] == 2**40 + 1
    return out


@triton.jit(do_not_specialize=["n"])
def plain_kernel(x_ptr, out_ptr, n, stride, N: tl.constexpr):
    at = tl.arange(0, N)
    mask = at < n
    value = tl.load(x_ptr + at * stride, mask=mask, other=0.0)
    tl.store(out_ptr + at, value * n.to(tl.float32))


@case
def do_not_specialize(make: Make) -> list[torch.Tensor]:
    """1 stays a number with methods where it is not specialized; a stride of 1 is as any other."""
    x, outputs = make.floats(32), [make.out(16) for _ in range(3)]
    for n, stride, out in zip((1, 16, 7), (1, 2, 1), outputs, strict=True):
        plain_kernel[(1,)](x, out, n, stride, 16)
    return outputs


@triton.jit
def one_kernel(x_ptr, out_ptr, rows, stride, N: tl.constexpr):
    at = tl.arange(0, N)
    total = tl.zeros([N], dtype=tl.float32)
    for row in range(rows):
        total += tl.load(x_ptr + row * stride + at)
    if stride == 1:
        total += 5
    tl.store(out_ptr + at, total / rows)


@case
def arguments_that_are_one(make: Make) -> list[torch.Tensor]:
    """The same kernel with 1 and with other numbers."""
    x, outputs = make.floats(64), [make.out(16) for _ in range(3)]
    for rows, stride, out in zip((1, 3, 1), (1, 16, 16), outputs, strict=True):
        one_kernel[(1,)](x, out, rows, stride, 16)
    return outputs


@triton.autotune(configs=[triton.Config({"BLOCK": 32}, num_warps=4)], key=["n"])
@triton.jit
def tuned_once_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=at < n) * 2, mask=at < n)


@triton.autotune(
    configs=[triton.Config({"BLOCK": size}, num_warps=2, num_stages=1) for size in (16, 32, 64)],
    key=["n"],
    reset_to_zero=["count_ptr"],
)
@triton.jit
def tuned_kernel(x_ptr, out_ptr, count_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=at < n) * 2, mask=at < n)
    tl.atomic_add(count_ptr, tl.sum((at < n).to(tl.int32), axis=0))


@case
def autotune_with_one_configuration(make: Make) -> torch.Tensor:
    """The constants come from the configuration."""
    x, out = make.floats(100), make.out(100)
    tuned_once_kernel[lambda meta: (triton.cdiv(100, meta["BLOCK"]),)](x, out, 100)
    assert torch.equal(out, x * 2)
    return out


@case(instead="configurations are timed on a GPU, also by the interpreter")
def autotune_with_several(make: Make) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Whichever configuration is chosen, the result is the same, and is computed once."""
    x, out, count = make.floats(100), make.out(100), torch.zeros(1, dtype=torch.int32)
    tuned_kernel[lambda meta: (triton.cdiv(100, meta["BLOCK"]),)](x, out, count, 100)
    return [out, count], [x * 2, torch.tensor([100], dtype=torch.int32)]


@triton.heuristics(
    {
        "BLOCK": lambda given: triton.next_power_of_2(given["n"]),
        "EVEN": lambda given: given["n"] % given["BLOCK"] == 0,
    }
)
@triton.jit
def heuristic_kernel(x_ptr, out_ptr, n, EVEN: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    if EVEN:
        tl.store(out_ptr + at, tl.load(x_ptr + at) + 100)
    else:
        tl.store(out_ptr + at, tl.load(x_ptr + at, mask=at < n), mask=at < n)


@case
def heuristics(make: Make) -> list[torch.Tensor]:
    """Constants are computed from arguments, and from each other."""
    x, outputs = make.floats(32), [make.out(32), make.out(32)]
    heuristic_kernel[(1,)](x, outputs[0], 20)
    heuristic_kernel[(1,)](x, outputs[1], n=32)
    return outputs


@triton.autotune(configs=[triton.Config({"N": 16})], key=[])
@triton.heuristics({"TWICE": lambda given: given["N"] == 16})
@triton.jit
def both_kernel(x_ptr, out_ptr, N: tl.constexpr, TWICE: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    if TWICE:
        x = x * 2
    tl.store(out_ptr + at, x)


@case
def autotune_over_heuristics(make: Make) -> torch.Tensor:
    """Heuristics see what autotuning has chosen."""
    x, out = make.floats(16), make.out(16)
    both_kernel[(1,)](x, out)
    assert torch.equal(out, x * 2)
    return out


@case
def repeated_launches(make: Make) -> torch.Tensor:
    """One launcher, called for other tensors, dtypes and sizes."""
    total = torch.zeros(8)
    launcher = meta_kernel[(1,)]
    for n, dtype in ((8, torch.float32), (5, torch.float64), (8, torch.float16), (8, torch.int32)):
        out = make.out(8, dtype=dtype)
        launcher(make.values(8, dtype), out, n, BLOCK=8)
        total = total + out
    return total


@case
def cdiv_and_powers(make: Make) -> torch.Tensor:
    """``triton.cdiv`` and ``triton.next_power_of_2`` on the host."""
    return torch.tensor([[triton.cdiv(n, 8), triton.next_power_of_2(n)] for n in range(1, 40)])


def overridden_body(x_ptr, out_ptr, cap, CAPPED: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    if CAPPED:
        x = tl.minimum(x, cap)
    tl.store(out_ptr + at, x)


overridden_kernel = triton.heuristics({"CAPPED": lambda given: bool(given["CAPPED"])})(triton.jit(overridden_body))


@case
def heuristics_over_arguments(make: Make) -> list[torch.Tensor]:
    """A heuristic replaces what the caller gave; decorators are called as functions."""
    x, outputs = make.floats(16), [make.out(16), make.out(16)]
    overridden_kernel[(1,)](x, outputs[0], 0.5, CAPPED=0.0, N=16)
    overridden_kernel[(1,)](x, outputs[1], 0.5, CAPPED=30.0, N=16)
    assert torch.equal(outputs[1], x.clamp(max=0.5))
    return outputs


@triton.jit
def generated_kernel(x_ptr, out_ptr, xnumel, rnumel, XBLOCK: tl.constexpr, RBLOCK: tl.constexpr):
    xoffset = tl.program_id(0) * XBLOCK
    xindex = xoffset + tl.arange(0, XBLOCK)[:, None]
    xmask = tl.full([XBLOCK, RBLOCK], True, tl.int1) & (xindex < xnumel)
    rbase = tl.arange(0, RBLOCK)[None, :]
    total = tl.full([XBLOCK, RBLOCK], 0, tl.int32)
    for roffset in range(0, rnumel, RBLOCK):
        rindex = roffset + rbase
        rmask = rindex < rnumel
        value = tl.load(x_ptr + (rindex + rnumel * xindex), rmask & xmask, eviction_policy="evict_first", other=0)
        value = tl.broadcast_to(value, [XBLOCK, RBLOCK])
        total = tl.where(rmask & xmask, total + value, total)
    summed = tl.sum(total, 1)[:, None]
    tl.store(out_ptr + xindex, summed, xindex < xnumel)


@case
def generated_code(make: Make) -> torch.Tensor:
    """A reduction as torch.compile writes it."""
    x, out = make.ints(5, 20), make.out(8, dtype=torch.int32)
    generated_kernel[(2,)](x, out, 5, 20, XBLOCK=4, RBLOCK=8)
    assert torch.equal(out[:5], x.sum(1).int())
    return out
