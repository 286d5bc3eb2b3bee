"""The building blocks of the kernel language, in small kernels that are launched on every Mac before others are.

Each is a function in the kernel language, and what it is launched with: tensors on the CPU, of which some are larger
than what the kernel is told, so that what lies behind a mask is compared too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from patcher.tiles import types
from patcher.tiles.language import LIBDEVICE_NAMES, MATH_NAMES, NAMES, Jitted
from patcher.tiles.types import DType

tl: Any = SimpleNamespace(**NAMES, math=SimpleNamespace(**MATH_NAMES))
libdevice: Any = SimpleNamespace(**LIBDEVICE_NAMES)

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
INTEGERS = (torch.int32, torch.int64, torch.int16, torch.int8, torch.uint8)
UNSIGNED = {torch.int16: types.uint16, torch.int32: types.uint32, torch.int64: types.uint64}
"""What tensors of signed numbers are seen as: not every torch moves tensors of unsigned ones of more bits to mps."""


@dataclass(frozen=True)
class Trial:
    """Attributes:
    name: of what is tried.
    kernel: the function.
    args: what it is launched with; tensors on the CPU.
    constants: the rest of its parameters, known when the program is made.
    grid: how many programs.
    num_warps: simdgroups of a threadgroup.
    seen_as: the types that the kernel sees tensors of such types as.
    """

    name: str
    kernel: Callable[..., Any]
    args: tuple[Any, ...]
    constants: dict[str, Any]
    grid: tuple[int, int, int] = (3, 1, 1)
    num_warps: int = 4
    seen_as: Mapping[torch.dtype, DType] = field(default_factory=dict)


class Combining(Jitted):
    """A function of the kernel language that joins two elements, or two pairs of them."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn


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
    for dtype, seen in UNSIGNED.items():
        x, y, out = (torch.iinfo(dtype).max // 50 * numbers(1600, dtype=dtype) for _ in range(3))
        args = x, y, out, 1100, 7
        yield Trial(f"masks and arithmetic of {seen}", masked, args, {"N": 512}, seen_as={dtype: seen})
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
    small, large = numbers(3 * 256, dtype=torch.int32), numbers(3 * 256, dtype=torch.int32) * 10_000_019
    yield Trial("whole numbers", whole, (large, small, zeros(8, 3 * 256, dtype=torch.int32)), {"N": 256})
    bits = small.abs(), numbers(3, 64, dtype=torch.int32), zeros(3 * 256, dtype=torch.int32)
    yield Trial("atomic operations on bits", on_bits, bits, {"N": 256})
    yield Trial("joining and splitting", moved, (numbers(3 * 256), small, zeros(3, 1280)), {"N": 256})
    for dtype in (torch.float32, torch.int32):
        pair = numbers(3 * 256, dtype=dtype), numbers(3 * 256, dtype=dtype)
        yield Trial(f"functions that combine {dtype}", combined, (*pair, zeros(4, 3 * 256, dtype=dtype)), {"N": 256})
    yield Trial("random numbers", drawn, (zeros(3 * 256), zeros(3 * 256, dtype=torch.int32), 1234567), {"N": 256})
    yield Trial("grids and scalars", placed, (numbers(12 * 64), zeros(12 * 64), 0.75, 5 << 33), {"N": 64}, (3, 2, 2))
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


def whole(x, y, out, N: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * N + tl.arange(0, N)
    width = tl.num_programs(0) * N
    a, b = tl.load(x + at), tl.load(y + at)
    by = tl.where(b == 0, 3, b)
    tl.store(out + at, a // by + a % by)
    tl.store(out + width + at, (a << (b & 7)) ^ (a >> (b & 15)) | ~b)
    tl.store(out + 2 * width + at, (a.to(tl.uint32) >> 3).to(tl.int32) + (a.to(tl.uint32) // 7).to(tl.int32))
    tl.store(out + 3 * width + at, a.to(tl.int8).to(tl.int32) + a.to(tl.uint8).to(tl.int32))
    tl.store(out + 4 * width + at, a.to(tl.int16).to(tl.int32) + a.to(tl.uint16).to(tl.int32))
    tl.store(out + 5 * width + at, ((a.to(tl.int64) * a) >> 20).to(tl.int32))
    tl.store(out + 6 * width + at, (a.to(tl.int64).to(tl.uint64) // 11 >> 30).to(tl.int32) + tl.umulhi(a, a))
    tl.store(
        out + 7 * width + at, a.to(tl.float32).to(tl.int32, bitcast=True) + (b * 0.37).to(tl.bfloat16).to(tl.int32)
    )


def on_bits(x, bins, old, N: tl.constexpr):  # type: ignore[no-untyped-def]
    row, at = tl.program_id(0), tl.arange(0, N)
    a = tl.load(x + row * N + at)
    tl.atomic_or(bins + row * 64 + at % 16, a)
    tl.atomic_xor(bins + row * 64 + 16 + at % 16, a)
    tl.atomic_and(bins + row * 64 + 32 + at % 16, a | 64)
    tl.store(old + row * N + at, tl.atomic_xchg(x + row * N + at, a + 1))
    tl.atomic_cas(bins + row * 64 + 48, tl.load(bins + row * 64 + 48), row + 1000)


def moved(x, y, out, N: tl.constexpr):  # type: ignore[no-untyped-def]
    row, at, half = tl.program_id(0), tl.arange(0, N), tl.arange(0, N // 2)
    a, start = tl.load(x + row * N + at), out + row * 5 * N
    tl.store(start + tl.arange(0, 2 * N), tl.reshape(tl.join(a, -a), (2 * N,)))
    even, odd = tl.split(tl.reshape(a, (N // 2, 2)))
    tl.store(start + 2 * N + half, even - odd)
    tl.store(start + 3 * N + at, tl.flip(a, 0))
    counts = tl.histogram(tl.load(y + row * N + at).abs() % 16, 16)
    tl.store(start + 4 * N + tl.arange(0, 16), counts.to(tl.float32))


@Combining
def greater(a, b):  # type: ignore[no-untyped-def]
    return tl.where(a > b, a, b)


@Combining
def following(a, b, c, d):  # type: ignore[no-untyped-def]
    return a | c, tl.where(c < 0, d, b + d)


def combined(x, y, out, N: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * N + tl.arange(0, N)
    width = tl.num_programs(0) * N
    a, b = tl.load(x + at), tl.load(y + at)
    signs = (b * 8).to(tl.int32)
    tl.store(out + at, tl.associative_scan(a, 0, greater) - tl.reduce(b, 0, greater))
    signs, sums = tl.associative_scan((signs, a), 0, following, reverse=True)
    tl.store(out + width + at, sums + signs % 8)
    tl.store(out + 2 * width + tl.program_id(0) * 2 * N + tl.arange(0, 2 * N), tl.cat(a, b, can_reorder=True))


def drawn(real, whole, seed, N: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(real + at, tl.rand(seed, at))
    tl.store(whole + at, tl.randint(seed, at))


def placed(x, out, by, far, N: tl.constexpr):  # type: ignore[no-untyped-def]
    plane = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    at = (plane * tl.num_programs(0) + tl.program_id(0)) * N + tl.arange(0, N)
    tl.store(out + at, tl.load(x + at) * by + (far >> 33))


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
