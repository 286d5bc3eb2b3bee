"""Functions that call one another, tuples, constants of the module."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.testing import assert_close

from tests.tiles.registry import EPS32, Make, case

SCALE = tl.constexpr(2.5)
FLAG: tl.constexpr = tl.constexpr(True)
KIND = tl.constexpr("relu")


@triton.jit
def scaled(x, scale=2.0, shift: tl.constexpr = 1):
    return x * scale + shift


@triton.jit
def pair(x, y):
    return x + y, x - y


@triton.jit
def activated(x, KIND: tl.constexpr):
    if KIND == "relu":
        return tl.maximum(x, 0.0)
    elif KIND == "square":
        return x * x
    else:
        return x


@triton.jit
def defaults_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, scaled(x))
    tl.store(out_ptr + N + at, scaled(x, 3.0))
    tl.store(out_ptr + 2 * N + at, scaled(x, shift=5))
    tl.store(out_ptr + 3 * N + at, scaled(scale=x, x=4, shift=N))
    tl.store(out_ptr + 4 * N + at, scaled(scaled(x), tl.load(x_ptr)))


@case
def defaults_and_keywords(make: Make) -> torch.Tensor:
    """Functions with defaults, keywords and constants."""
    x, out = make.floats(16), make.out(5, 16)
    defaults_kernel[(1,)](x, out, 16)
    assert_close(out[0], x * 2 + 1)
    return out


@triton.jit
def tuples_kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    y = tl.load(y_ptr + at)
    total, difference = pair(x, y)
    both = pair(total, difference)
    tl.store(out_ptr + at, total * difference)
    tl.store(out_ptr + N + at, both[0] + both[1] * 2)
    (a, b), c = pair(x, x), 3
    tl.store(out_ptr + 2 * N + at, a + b + c)
    x, y = y, x
    tl.store(out_ptr + 3 * N + at, x - y)


@case
def several_returns(make: Make) -> torch.Tensor:
    """Functions that return two values; tuples taken apart and by index."""
    out = make.out(4, 16)
    tuples_kernel[(1,)](make.floats(16), make.floats(16), out, 16)
    return out


@triton.jit
def choices_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, activated(x, "relu"))
    tl.store(out_ptr + N + at, activated(x, "square"))
    tl.store(out_ptr + 2 * N + at, activated(x, KIND="none"))
    tl.store(out_ptr + 3 * N + at, activated(x, KIND))


@case
def returns_in_branches(make: Make) -> torch.Tensor:
    """Which return is taken depends on a constant."""
    out = make.out(4, 16)
    choices_kernel[(1,)](make.floats(16), out, 16)
    return out


@triton.jit
def globals_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at) * SCALE
    if FLAG:
        x += 1
    HALF: tl.constexpr = N // 2
    WIDE: tl.constexpr = HALF * 2 + (1 if N > 8 else 0)
    x = tl.where(at < HALF, x, WIDE)
    tl.store(out_ptr + at, x)


@case
def constants_of_the_module(make: Make) -> torch.Tensor:
    """``tl.constexpr`` at module level, and constants computed in the kernel."""
    out = make.out(16)
    globals_kernel[(1,)](make.floats(16), out, 16)
    return out


@triton.jit
def store_twice(pointer, value, at):
    tl.store(pointer + at, value)
    tl.store(pointer + 16 + at, value * 2)


@triton.jit
def load_row(pointer, row, stride, N: tl.constexpr):
    return tl.load(pointer + row * stride + tl.arange(0, N))


@triton.jit
def effects_kernel(x_ptr, out_ptr, stride, N: tl.constexpr):
    pid = tl.program_id(0)
    store_twice(out_ptr + pid * 32, load_row(x_ptr, pid, stride, N), tl.arange(0, N))


@case
def functions_with_effects(make: Make) -> torch.Tensor:
    """Functions that load and store."""
    x, out = make.floats(3, 16), make.out(3, 2, 16)
    effects_kernel[(3,)](x, out, x.stride(0), 16)
    assert torch.equal(out, torch.stack([x, x * 2], 1))
    return out


@triton.jit
def step(acc, x, i, LAST: tl.constexpr):
    acc += x * i
    if LAST:
        acc = acc * 0.5
    return acc


@triton.jit
def steps_kernel(x_ptr, out_ptr, n, N: tl.constexpr):
    at = tl.arange(0, N)
    acc = tl.full([N], 1.0, tl.float32)
    for i in range(n):
        acc = step(acc, tl.load(x_ptr + i * N + at), i, LAST=False)
    acc = step(acc, tl.load(x_ptr + at), n, True)
    tl.store(out_ptr + at, acc)


@case(rtol=4 * EPS32, atol=8 * EPS32, because="a product and a sum may be fused, which rounds once less, six times")
def functions_in_a_loop(make: Make) -> torch.Tensor:
    """A function carries a block through a loop; its parameter is assigned inside."""
    out = make.out(16)
    steps_kernel[(1,)](make.floats(5, 16), out, 5, 16)
    return out


@triton.jit
def kept(x, mask: tl.constexpr, other: tl.constexpr):
    return tl.where(mask, x, other)


@triton.jit
def named_constants_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, kept(kept(x, x > 0, 5), at % 3 == 0, -x))


@case
def blocks_for_parameters_called_constexpr(make: Make) -> torch.Tensor:
    """Within a kernel the annotation of a function's parameter makes no constant of a block."""
    x, out = make.ints(32), make.out(32, dtype=torch.int32)
    named_constants_kernel[(1,)](x, out, 32)
    return out


@triton.jit
def tuple_argument_kernel(pointers, sizes, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(pointers[0] + at, mask=at < sizes[0], other=0.0)
    y = tl.load(pointers[1] + at, mask=at < sizes[1], other=0.0)
    tl.store(out_ptr + at, x - y)
    total = tl.zeros([N], tl.float32)
    for i in tl.static_range(len(pointers)):
        total += tl.load(pointers[i] + at) * sizes[i]
    tl.store(out_ptr + N + at, total)


@case
def tuples_as_arguments(make: Make) -> torch.Tensor:
    """Tuples of tensors and of numbers are arguments."""
    x, y, out = make.floats(16), make.floats(16), make.out(2, 16)
    tuple_argument_kernel[(1,)]((x, y), (5, 9), out, 16)
    return out


@triton.jit
def apply(function: tl.constexpr, x, y):
    return function(x, y)


@triton.jit
def larger(x, y):
    return tl.where(x > y, x, y)


@triton.jit
def smaller(x, y):
    return tl.where(x < y, x, y)


@triton.jit
def passed_kernel(x_ptr, y_ptr, out_ptr, FUNCTION: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    y = tl.load(y_ptr + at)
    tl.store(out_ptr + at, apply(FUNCTION, x, y))
    tl.store(out_ptr + N + at, FUNCTION(x, 0.5))


@case
def functions_as_constants(make: Make) -> list[torch.Tensor]:
    """A jitted function is passed as a constant and called."""
    x, y, outputs = make.floats(16), make.floats(16), [make.out(2, 16), make.out(2, 16)]
    passed_kernel[(1,)](x, y, outputs[0], larger, 16)
    passed_kernel[(1,)](x, y, outputs[1], smaller, 16)
    assert torch.equal(outputs[0][0], torch.maximum(x, y))
    return outputs


@triton.jit
def dtype_kernel(x_ptr, out_ptr, DTYPE: tl.constexpr, ACC: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    acc = tl.zeros((N,), dtype=ACC)
    acc += tl.load(x_ptr + at).to(DTYPE).to(ACC)
    acc += tl.full((N,), 1.25, ACC)
    if DTYPE == tl.bfloat16:
        acc += 100
    tl.store(out_ptr + at, acc.to(DTYPE))


@case(each=("float16", "bfloat16", "float32"))
def dtypes_as_constants(make: Make, dtype: str) -> torch.Tensor:
    """A dtype of Triton is passed as a constant."""
    out = make.out(16)
    dtype_kernel[(1,)](make.floats(16), out, DTYPE=getattr(tl, dtype), ACC=tl.float32, N=16)
    return out


@triton.jit
def shapes_kernel(x_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    x = tl.load(x_ptr + at)
    ROWS: tl.constexpr = x.shape[0]
    y = x + ROWS * 100 + x.shape[1]
    z = tl.zeros_like(x) + len(x.shape) + tl.full(x.shape, 0.5, x.dtype)
    tl.store(out_ptr + at, y + z)


@case
def shapes_are_constants(make: Make) -> torch.Tensor:
    """x.shape, len(x.shape), zeros_like."""
    out = make.out(4, 8)
    shapes_kernel[(1,)](make.floats(4, 8), out, 4, 8)
    return out


@triton.jit
def python_kernel(out_ptr, n, N: tl.constexpr):
    at = tl.arange(0, N)
    x = min(n, 7) + max(n, 3) * 0 + at
    tl.store(out_ptr + at, x + int(N / 4) + (N // 3) * 2**2)
    tl.store(out_ptr + N + at, tl.cdiv(n, 4) + tl.cdiv(N, 3) + at * 0)


@case
def python_builtins(make: Make) -> torch.Tensor:
    """min, max, int and ** on constants and numbers."""
    out = make.out(2, 16, dtype=torch.int32)
    python_kernel[(1,)](out, 9, 16)
    return out


@triton.jit(noinline=True)
def doubled(n):
    return n * 2


@triton.jit
def scaled_by_size(x, n):
    if n > 3:
        return x * 2
    return x - 1


@triton.jit
def runtime_return_kernel(x_ptr, out_ptr, N: tl.constexpr):
    pid = tl.program_id(0)
    x = tl.load(x_ptr + tl.arange(0, N))
    tl.store(out_ptr + pid * N + tl.arange(0, N), scaled_by_size(x, doubled(pid)))


@case
def returns_at_runtime(make: Make) -> torch.Tensor:
    """Which return is taken differs between programs."""
    x, out = make.floats(16), make.out(3, 16)
    runtime_return_kernel[(3,)](x, out, 16)
    assert torch.equal(out, torch.stack([x - 1, x - 1, x * 2]))
    return out


@case
def kernel_of_a_function(make: Make) -> torch.Tensor:
    """A kernel that is defined where it is launched."""

    @triton.jit
    def inner_kernel(x_ptr, out_ptr, N: tl.constexpr):
        at = tl.arange(0, N)
        tl.store(out_ptr + at, scaled(tl.load(x_ptr + at)))

    out = make.out(16)
    inner_kernel[(1,)](make.floats(16), out, 16)
    return out


@triton.jit
def full_kernel(out_ptr, n, fraction_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.full([N], n, tl.float32))
    tl.store(out_ptr + N + at, tl.full((N,), tl.load(fraction_ptr), dtype=tl.float32))
    tl.store(out_ptr + 2 * N + at, tl.full([N], 3, tl.int32) + tl.full([N], float("inf"), tl.float32))
    tl.store(out_ptr + 3 * N + tl.arange(0, N // 2), tl.arange(N // 2, N))


@case
def full(make: Make) -> torch.Tensor:
    """full of numbers known only when it runs; arange from a start."""
    out = make.out(4, 16)
    full_kernel[(1,)](out, 9, make.floats(1), 16)
    return out
