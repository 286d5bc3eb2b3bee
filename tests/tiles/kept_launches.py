"""Launches in a process that knows what others have kept of shaders.

    python -m tests.tiles.kept_launches FOLDER GRID [SPOILING]

Two kernels are launched on GRID programs, one of them with another shader than is written for it. Prints one JSON
object: for each where it ran, why, how many comparisons there were, and whether the numbers are right; how long the
first launch took, and by how many bytes the memory of mps grew at the most, in all of them.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from patcher.simulator import startup
from patcher.simulator.meter import Meter
from patcher.tiles import admission, backends
from patcher.tiles.admission import comparison, verdicts
from tests.tiles.admitted import fault
from tests.tiles.jit import Jit, jit, tl

COMPARED: list[str] = []


@jit
def product(x, y, out, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out + at, tl.load(x + at) * tl.load(y + at) * 2.0)


@jit
def spoilt(x, y, out, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out + at, tl.load(x + at) * tl.load(y + at) * 2.0)


def launched(kernel: Jit, grid: int) -> dict[str, Any]:
    """What became of a launch on new tensors."""
    make = torch.Generator().manual_seed(grid)
    x, y, out = (torch.randn(1 << 18, generator=make).to("mps") for _ in range(3))
    backends.launches.clear()
    COMPARED.clear()
    before, began = torch.mps.current_allocated_memory(), time.perf_counter()
    with Meter() as meter:
        kernel[(grid,)](x, y, out, 1024)
    took = time.perf_counter() - began
    ((ran, _),) = backends.launches.items()
    size = 1024 * grid
    right = torch.allclose(out[:size].cpu(), (x * y * 2)[:size].cpu(), rtol=1e-6)
    peak = meter.usage().peak_bytes - before
    return {"back end": ran.back_end, "why": ran.why, "compared": len(COMPARED), "right": right, "s": took, "B": peak}


def main(folder: str, grid: str, spoiling: str = "") -> None:
    """Keeps verdicts in ``folder``; with ``spoiling`` the second kernel's shader is another one."""
    startup.start("M1")
    admission.why_not = lambda: ""  # type: ignore[assignment]
    verdicts.folder = lambda: Path(folder)  # type: ignore[assignment]
    compared = comparison.compared

    def noted(program: Any, *args: Any) -> Any:
        COMPARED.append(program.name)
        return compared(program, *args)

    comparison.compared = noted  # type: ignore[assignment]
    found = {"product": launched(product, int(grid))}
    with fault(("2.0f", "3.0f")) if spoiling else nullcontext():
        found["spoilt"] = launched(spoilt, int(grid))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
