"""How long kernels, copies and waits take. What the simulated Mac's model expects of them is `expected`'s to say."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

MIB = 2**20
SECONDS = 0.4
"""Of measuring, for each case."""
MOST = 50


@dataclass(frozen=True)
class Timing:
    """What is timed: so many calls, and a wait for the GPU after the last one.

    Attributes:
        prepare: makes the tensors, and gives what is called.
        calls: between two looks at the clock.
    """

    prepare: Callable[[], Callable[[], object]]
    calls: int = 1

    def batch(self) -> Callable[[], None]:
        """All calls and the wait, ready to run."""
        call = self.prepare()

        def run() -> None:
            for _ in range(self.calls):
                call()
            torch.mps.synchronize()

        return run


def _random(*shape: int, dtype: torch.dtype = torch.float32, device: str = "mps") -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)


def _product(size: int, dtype: torch.dtype) -> Callable[[], Callable[[], object]]:
    def prepare() -> Callable[[], object]:
        a, b = _random(size, size, dtype=dtype), _random(size, size, dtype=dtype)
        out = torch.empty_like(a)
        return lambda: torch.mm(a, b, out=out)

    return prepare


def _elementwise(operator: Callable[..., object], mib: float) -> Callable[[], Callable[[], object]]:
    def prepare() -> Callable[[], object]:
        x = _random(int(mib * MIB) // 4)
        out = torch.empty_like(x)
        return lambda: operator(x, out=out)

    return prepare


def _copy(mib: float, source: str, target: str) -> Callable[[], Callable[[], object]]:
    def prepare() -> Callable[[], object]:
        x = _random(int(mib * MIB) // 4, device=source)
        out = torch.empty(x.shape, device=target)
        return lambda: out.copy_(x)

    return prepare


def _plus(x: torch.Tensor, out: torch.Tensor) -> object:
    return torch.add(x, x, out=out)


def _reduction() -> Callable[[], object]:
    x = _random(16 * MIB)
    return lambda: x.sum()


def _read_number() -> Callable[[], object]:
    x = _random(1)
    return lambda: x.item()


def _shader() -> Callable[[], object]:
    source = "kernel void one(device float* out, uint i [[thread_position_in_grid]]) { out[i] = 1; }"
    kernel, out = torch.mps.compile_shader(source).one, torch.empty(32, device="mps")
    return lambda: kernel(out)


def _allocation() -> Callable[[], object]:
    return lambda: torch.empty(3 * MIB, dtype=torch.uint8, device="mps")


TIMINGS = {
    "wait for an idle GPU": Timing(lambda: lambda: None),
    "launch of an addition": Timing(_elementwise(_plus, 0.0005), 200),
    "launch of a product": Timing(_product(16, torch.float32), 200),
    "launch of a shader": Timing(_shader, 200),
    "read of one number": Timing(_read_number, 20),
    "allocation of 3 MiB": Timing(_allocation, 200),
    "host to device, 4 KiB": Timing(_copy(0.004, "cpu", "mps"), 50),
    "host to device, 64 MiB": Timing(_copy(64, "cpu", "mps")),
    "device to host, 64 MiB": Timing(_copy(64, "mps", "cpu")),
    "device to device, 64 MiB": Timing(_copy(64, "mps", "mps"), 4),
    "addition, 64 MiB": Timing(_elementwise(_plus, 64), 4),
    "exponential, 64 MiB": Timing(_elementwise(torch.exp, 64), 4),
    "sum, 64 MiB": Timing(_reduction, 4),
    "product of 1024, float32": Timing(_product(1024, torch.float32), 2),
    "product of 2048, float32": Timing(_product(2048, torch.float32)),
    "product of 2048, float16": Timing(_product(2048, torch.float16)),
    "product of 2048, bfloat16": Timing(_product(2048, torch.bfloat16)),
}


def cases() -> list[str]:
    """What is timed, by name."""
    return list(TIMINGS)


def run(case: str) -> dict[str, Any]:
    """Seconds of one call: the median, the shortest and the longest of ``batches``; the first one does not count."""
    timing = TIMINGS[case]
    batch = timing.batch()
    batch()
    seconds: list[float] = []
    while not seconds or (sum(seconds) < SECONDS and len(seconds) < MOST):
        began = time.perf_counter()
        batch()
        seconds.append(time.perf_counter() - began)
    figures = {"median": statistics.median(seconds), "shortest": min(seconds), "longest": max(seconds)}
    return {**{name: value / timing.calls for name, value in figures.items()}, "batches": len(seconds)}
