"""The building blocks of the kernel language, in small kernels that are launched on every Mac before others are.

Each is a function in the kernel language, and what it is launched with: tensors on the CPU, of which some are larger
than what the kernel is told, so that what lies behind a mask is compared too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from patcher.tiles.language import LIBDEVICE_NAMES, MATH_NAMES, NAMES

tl: Any = SimpleNamespace(**NAMES, math=SimpleNamespace(**MATH_NAMES))
libdevice: Any = SimpleNamespace(**LIBDEVICE_NAMES)

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
INTEGERS = (torch.int32, torch.int64, torch.int8, torch.uint8)


@dataclass(frozen=True)
class Trial:
    """Attributes:
    name: of what is tried.
    kernel: the function.
    args: what it is launched with; tensors on the CPU.
    constants: the rest of its parameters, known when the program is made.
    grid: how many programs.
    num_warps: simdgroups of a threadgroup.
    """

    name: str
    kernel: Callable[..., Any]
    args: tuple[Any, ...]
    constants: dict[str, Any]
    grid: tuple[int, int, int] = (3, 1, 1)
    num_warps: int = 4


def trials() -> Iterator[Trial]:
    """Everything that is tried."""
    make = torch.Generator("cpu").manual_seed(20)

    def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        if dtype.is_floating_point:
            return torch.randn(shape, generator=make, dtype=torch.float32, device="cpu").to(dtype)
        least = 0 if dtype == torch.uint8 else -100
        return torch.randint(least, 100, shape, generator=make, device="cpu").to(dtype)

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device="cpu")

    for dtype in (*FLOATS, *INTEGERS):
        x, y, out = (numbers(1600, dtype=dtype) for _ in range(3))
        yield Trial(f"masks and arithmetic of {dtype}", masked, (x, y, out, 1100, 7), {"N": 512})
    for dtype in (*FLOATS, torch.int32):
        out = zeros(3, 4, 1024, dtype=dtype)
        yield Trial(f"sums, maxima and scans of {dtype}", reduced, (numbers(3, 1024, dtype=dtype), out), {"N": 1024})
        out = zeros(3, 32, 64, dtype=dtype)
        yield Trial(f"rows and columns of {dtype}", rows, (numbers(3, 32, 64, dtype=dtype), out), {"M": 32, "N": 64})
    for dtype, warps in ((torch.float32, 4), (torch.float16, 2), (torch.bfloat16, 8), (torch.int8, 4)):
        sides = numbers(3, 64, 32, dtype=dtype), numbers(3, 32, 64, dtype=dtype)
        out = zeros(3, 64, 64, dtype=torch.int32 if dtype == torch.int8 else torch.float32)
        shape = {"M": 64, "K": 32, "N": 64}
        yield Trial(f"products of {dtype}", product, (*sides, out), shape, num_warps=warps)
    kinds = {torch.float32: numbers(1000), torch.int32: numbers(1000, dtype=torch.int32)}
    for dtype, x in kinds.items():
        place, bins = numbers(1000, dtype=torch.int32).abs() % 16, numbers(3, 16, dtype=dtype)
        yield Trial(f"atomic operations on {dtype}", atomics, (x, place, bins, 900), {"N": 512}, (2, 1, 1))
    yield Trial("functions", functions, (numbers(3 * 256), zeros(12, 3 * 256)), {"N": 256})
    yield Trial("barriers", exchanged, (numbers(3 * 1024), zeros(3 * 1024)), {"N": 1024}, num_warps=8)
    yield Trial("sorting", ordered, (numbers(3 * 256), zeros(3, 2, 256)), {"N": 256})
    yield Trial("branches and loops", branched, (numbers(3 * 256), zeros(3 * 256), 5), {"N": 256}, (3, 1, 1))


def masked(x, y, out, n, by, N: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * N + tl.arange(0, N)
    a = tl.load(x + at, at < n)
    b = tl.load(y + n - 1 - at, at < n, 3)
    tl.store(out + at, tl.where(a > b, a * b - by, a + b), (at < n) & (at % by != 0))


def reduced(x, out, N: tl.constexpr):  # type: ignore[no-untyped-def]
    row, at = tl.program_id(0), tl.arange(0, N)
    a = tl.load(x + row * N + at)
    tl.store(out + row * 4 * N + at, tl.cumsum(a, 0))
    tl.store(out + row * 4 * N + N + at, a - tl.max(a, 0))
    tl.store(out + row * 4 * N + 2 * N + at, a + tl.argmin(a, 0) + tl.argmax(a, 0))
    tl.store(out + row * 4 * N + 3 * N, tl.sum(a, 0))


def rows(x, out, M: tl.constexpr, N: tl.constexpr):  # type: ignore[no-untyped-def]
    start = tl.program_id(0) * M * N
    i, j = tl.arange(0, M)[:, None], tl.arange(0, N)[None, :]
    a = tl.load(x + start + i * N + j)
    a = a - tl.min(a, 1)[:, None] + tl.sum(a, 0)[None, :]
    tl.store(out + start + j * M + i, tl.trans(tl.reshape(tl.trans(a), (M, N))).reshape(M, N))


def product(x, y, out, M: tl.constexpr, K: tl.constexpr, N: tl.constexpr):  # type: ignore[no-untyped-def]
    which, i, j, k = tl.program_id(0), tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    a = tl.load(x + which * M * K + i[:, None] * K + k[None, :])
    b = tl.load(y + which * K * N + k[:, None] * N + j[None, :])
    tl.store(out + which * M * N + i[:, None] * N + j[None, :], tl.dot(a, b))


def atomics(x, place, bins, n, N: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * N + tl.arange(0, N)
    a, where = tl.load(x + at, at < n), tl.load(place + at, at < n)
    tl.atomic_add(bins + where, a, at < n)
    tl.atomic_max(bins + 16 + where, a, at < n)
    tl.atomic_min(bins + 32 + where, a, at < n)


def functions(x, out, N: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * N + tl.arange(0, N)
    width = tl.num_programs(0) * N
    a = tl.load(x + at)
    b = tl.abs(a) + 0.01
    tl.store(out + at, tl.exp(a))
    tl.store(out + width + at, tl.log(b))
    tl.store(out + 2 * width + at, tl.sin(a) + tl.cos(a))
    tl.store(out + 3 * width + at, tl.sqrt(b))
    tl.store(out + 4 * width + at, tl.rsqrt(b))
    tl.store(out + 5 * width + at, tl.erf(a))
    tl.store(out + 6 * width + at, tl.sigmoid(a))
    tl.store(out + 7 * width + at, libdevice.tanh(a))
    tl.store(out + 8 * width + at, libdevice.pow(b, a))
    tl.store(out + 9 * width + at, tl.floor(a) / b)
    tl.store(out + 10 * width + at, tl.exp2(a) + tl.log2(b))
    tl.store(out + 11 * width + at, tl.fma(a, b, a))


def exchanged(x, out, N: tl.constexpr):  # type: ignore[no-untyped-def]
    start, at = tl.program_id(0) * N, tl.arange(0, N)
    tl.store(x + start + at, tl.load(x + start + at) * 2)
    for turn in range(3):
        tl.debug_barrier()
        other = tl.load(x + start + (at * 5 + turn) % N)
        tl.debug_barrier()
        tl.store(x + start + at, other + 1)
    tl.debug_barrier()
    tl.store(out + start + at, tl.load(x + start + N - 1 - at))


def ordered(x, out, N: tl.constexpr):  # type: ignore[no-untyped-def]
    row, at = tl.program_id(0), tl.arange(0, N)
    a = tl.load(x + row * N + at)
    tl.store(out + row * 2 * N + at, tl.sort(a))
    tl.store(out + row * 2 * N + N + at, tl.gather(a, (at * 7) % N, 0))


def branched(x, out, n, N: tl.constexpr):  # type: ignore[no-untyped-def]
    row, at = tl.program_id(0), tl.arange(0, N)
    a = tl.load(x + row * N + at)
    if tl.sum(a, 0) > 0:
        tl.store(x + row * N + at, a + 1)
        a = a * 2
    else:
        a = a - 1
    for turn in range(row, n):
        a = a * 0.5 + turn
    while tl.max(a, 0) > 1:
        a = a * 0.5
    tl.store(out + row * N + at, a)
