"""What a launch of a Triton kernel as a Metal shader costs on the host, in microseconds.

    python benchmarks/bench_launches.py

From ``kernel[grid](...)`` to the call of the function that ``torch.mps.compile_shader`` gives, and back, on the
simulated Mac; the function itself is one that does nothing, so that no shader's own time counts. The program and the
shader are there already. The least of 300 repetitions of 200 launches counts, which other programs of the host seldom
disturb. On one core of a shared AMD EPYC, torch 2.13.0, Python 3.11, 28 November 2026, before such launches went their
own way (`patcher/tiles/warm.py`) and after:

| Launch | before, us | us |
|---|---|---|
| 3 tensors, 1 number, 1 constant | 19.8 | 6.8 |
| the same, grid a function | 20.3 | 7.7 |
| 4 tensors, 6 numbers, 2 constants | 32.4 | 7.8 |
| keywords alone | 22.1 | 7.1 |
| autotuned | 23.2 | 9.7 |
"""

from __future__ import annotations

import os
import re
import timeit
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from patcher import patch_for_mac

NUMBER, REPETITIONS = 200, 300


class Nothing:
    """In the place of a compiled shader, which ran once: so its numbers have proved right, and it is what runs."""

    def __init__(self, function: Any) -> None:
        self.max_threads_per_threadgroup = function.max_threads_per_threadgroup
        self.function = function

    def __call__(self, *arguments: Any, **how: Any) -> None:
        if self.function is not None:
            self.function(*arguments, **how)
            self.function = None


def microseconds(call: Callable[[], Any]) -> float:
    """Of one call, the least of `REPETITIONS`."""
    call()
    return min(timeit.repeat(call, number=NUMBER, repeat=REPETITIONS)) / NUMBER * 1e6


def calls() -> dict[str, Callable[[], Any]]:
    """Launches by name, in the forms in which upstream's kernels are launched."""
    import torch
    import triton
    from kernels_of_launches import add, gated, normed, scaled

    x, y, out = (torch.randn(4096).to("mps") for _ in range(3))
    rows = torch.randn(64, 64).to("mps")
    tuned = triton.autotune([triton.Config({"BLOCK": 1024})], key=["n"])(scaled)
    return {
        "3 tensors, 1 number, 1 constant": lambda: add[(4,)](x, y, out, 4096, BLOCK=1024),
        "the same, grid a function": lambda: add[lambda meta: (triton.cdiv(4096, meta["BLOCK"]),)](
            x, y, out, 4096, BLOCK=1024
        ),
        "4 tensors, 6 numbers, 2 constants": lambda: normed[(64,)](
            rows, rows.stride(0), out, 64, x, y, 64, 1e-6, False, BLOCK_SIZE=64, num_warps=4
        ),
        "keywords alone": lambda: gated[(4,)](e=x, g=y, h=out, n=4096, BLOCK_SIZE=1024, LONG=0),
        "autotuned": lambda: tuned[(4,)](x, 2.0, 4096),
    }


def main() -> None:
    os.environ["PATCHER_TRITON_CACHE"] = "0"  # nothing is kept of what `Nothing` computes
    patch_for_mac(simulate="M3 Max 36GB")
    import torch

    from patcher.tiles import admission

    admission.why_not()
    compile_shader = torch.mps.compile_shader

    def compiled(source: str) -> Any:
        name = re.findall(r"kernel void (\w+)", source)[0]
        return SimpleNamespace(**{name: Nothing(getattr(compile_shader(source), name))})

    torch.mps.compile_shader = compiled  # type: ignore[assignment]
    print("| Launch | us |\n|---|---|")
    for name, call in calls().items():
        print(f"| {name} | {microseconds(call):.1f} |")


if __name__ == "__main__":
    main()
