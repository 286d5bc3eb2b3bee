"""Admission on the simulated Mac, with faults in shaders and without: ``python -m tests.tiles.admitted FOLDER``.

Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from patcher.simulator import startup
from patcher.tiles import backends
from patcher.tiles.admission import machine
from patcher.tiles.admission.blocks import trials
from tests.tiles.jit import Jit, jit, tl

FAULTS: dict[str, tuple[str, tuple[str, str]]] = {
    "no barrier": ("barriers", ("threadgroup_barrier(", "(void)(")),
    "no mask": ("masks and arithmetic of torch.int32", ("if (", "if (true || ")),
    "exp is off by 1e-5": ("functions", ("precise::exp(", "precise::exp(1.00001f * ")),
    "a sum without its greatest lane": ("sums, maxima and scans of torch.float32", ("simd_sum(", "simd_max(")),
    "another lane": ("sorting", ("simd_shuffle_xor(", "simd_shuffle_down(")),
    "another axis of the grid": ("grids and scalars", ("group.z", "group.y")),
    "another sum": ("whole numbers", ("^", "|")),
    "other bits": ("atomic operations on bits", ("atomic_fetch_xor", "atomic_fetch_or")),
    "another key": ("random numbers", ("^", "|")),
    "a sign": ("masks and arithmetic of uint32", ("(v4[r] > ", "(int(v4[r]) > (int)")),
    "another simdgroup": ("functions that combine torch.int32", ("^ 64u]", "^ 32u]")),
    "no sign": ("joining and splitting", ("(-", "(+")),
}
"""A change of a shader's source, and the trial that notices it."""


@jit
def everything(x, n, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    a = tl.load(x + at, at < n, 0)
    a = tl.exp(a - tl.max(a, 0)) / tl.sum(a * a, 0)
    tl.store(x + at, a, at < n)
    tl.debug_barrier()
    b = tl.load(x + tl.program_id(0) * N + N - 1 - tl.arange(0, N), at < n)
    tl.debug_barrier()
    tl.store(x + at, b, at < n)


@jit
def added(x, y, out, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out + at, tl.load(out + at) + tl.load(x + at) * tl.load(y + at) * 2.0)


@contextmanager
def fault(change: tuple[str, str]) -> Iterator[None]:
    """Shaders that are compiled meanwhile have it, in what comes after their parameters."""
    whole = torch.mps.compile_shader

    def compile_shader(source: str) -> Any:
        head, middle, body = source.partition("thread_index_in_threadgroup")
        return whole(head + middle + body.replace(*change))

    torch.mps.compile_shader = compile_shader
    yield
    torch.mps.compile_shader = whole


def launched_twice() -> tuple[list[tuple[str, str]], bool]:
    """Where a kernel ran, twice, with reasons, and whether it gave what torch gives."""
    kernel = Jit(everything.fn)
    x = torch.randn(400, generator=torch.Generator().manual_seed(3))
    there = x.to("mps")
    ran = []
    for _ in range(2):
        backends.launches.clear()
        kernel[(3,)](x, 300, 128)
        backends.launches.clear()
        kernel[(3,)](there, 300, 128)
        ((launched, _),) = backends.launches.items()
        ran.append((launched.back_end, launched.why))
    return ran, torch.allclose(there.cpu(), x, rtol=1e-4, atol=1e-6, equal_nan=True)


def launches_of(kernel: Jit, *grids_and_factors: tuple[int, Any]) -> list[tuple[str, bool]]:
    """Where launches of `added` ran one after the other, and whether each gave what torch gives."""
    ran, make = [], torch.Generator().manual_seed(3)
    for grid, factor in grids_and_factors:
        x, y, out = (torch.randn(1024, generator=make) for _ in range(3))
        y = y * factor
        there = [each.to("mps") for each in (x, y, out)]
        backends.launches.clear()
        kernel[(grid,)](*there, 128)
        ((launched, _),) = backends.launches.items()
        out[: 128 * grid] += (x * y * 2)[: 128 * grid]
        ran.append((launched.back_end, torch.allclose(there[2].cpu(), out, rtol=1e-5, atol=1e-6)))
    return ran


def with_little_memory() -> tuple[list[tuple[str, bool]], bool]:
    """A launch for which there is memory, and for its comparison there is not; whether all of it is given back."""
    torch.mps.empty_cache()
    taken = torch.empty(700 << 20, dtype=torch.uint8, device="mps")
    x = torch.randn(1 << 23, device="mps")
    before, limit = torch.mps.current_allocated_memory(), 1.01 * torch.mps.driver_allocated_memory()
    torch.mps.set_per_process_memory_fraction(limit / torch.mps.recommended_max_memory())
    backends.launches.clear()
    Jit(added.fn)[(1 << 16,)](x, x, x, 128)
    ((launched, _),) = backends.launches.items()
    torch.mps.set_per_process_memory_fraction(1.7)
    freed = torch.mps.current_allocated_memory() == before
    del taken
    return [(launched.back_end, launched.why)], freed


def main(folder: str) -> None:
    """Keeps what is right in ``folder``."""
    startup.start("M1")
    machine.folder = lambda: Path(folder)  # type: ignore[assignment]
    found: dict[str, Any] = {}
    every, few = machine.trials, tuple(trials())[:5]
    machine.trials = lambda: iter(few)  # type: ignore[assignment]
    with fault(FAULTS["no mask"][1]):
        found["with a fault"] = machine.why_not()
    found["kept with a fault"] = os.listdir(folder)
    machine.why_not.cache_clear()
    machine.trials = every  # type: ignore[assignment]
    found["without"] = machine.why_not()
    machine.why_not.cache_clear()
    machine.trials = lambda: 1 / 0  # type: ignore[assignment, return-value]
    found["again"] = machine.why_not()
    found["without faults"] = launched_twice()
    found["faults in trials"], found["faults in launches"] = {}, {}
    by_name = {trial.name: trial for trial in trials()}
    for name, (trial, change) in FAULTS.items():
        with fault(change):
            found["faults in trials"][name] = machine.tried_one(by_name[trial])
            if name in tuple(FAULTS)[:4]:
                found["faults in launches"][name] = launched_twice()
    with fault(("2.0f", "3.0f")):
        found["zeros first"] = launches_of(Jit(added.fn), (8, 0.0), (8, 0.0), (8, 1.0), (8, 1.0))
    found["zeros first, without"] = launches_of(Jit(added.fn), (8, 0.0), (8, 1.0), (8, 1.0))
    with fault(("int(group.x)", "int(group.x & 3u)")):
        found["a few programs first"] = launches_of(Jit(added.fn), (2, 1.0), (4, 1.0), (6, 1.0), (2, 1.0))
    found["with little memory"] = with_little_memory()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
