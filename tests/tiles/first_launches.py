"""What the first launch of a Triton kernel as a Metal shader takes on the simulated Mac, in seconds.

    python -m tests.tiles.first_launches

Of Unsloth's kernels and of every case of ``tests/tiles/programs``, as they are called in the tests: reading the source,
which makes the program; writing the shader; and compiling it, which is clang's part on the simulated Mac, with a cache
that is empty at first. All in one process.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

STEPS = ("reading", "writing", "compiling")
SPENT: dict[str, list[float]] = {step: [] for step in STEPS}


def timed(function: Callable[..., Any], step: str) -> Callable[..., Any]:
    """The function, whose time is put down."""

    def call(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = function(*args, **kwargs)
        SPENT[step].append(time.perf_counter() - began)
        return result

    return call


def watch() -> None:
    """Puts down what each step takes."""
    import importlib

    import torch

    from patcher.tiles import launch

    run: Any = importlib.import_module("patcher.tiles.on_metal.run")
    launch.read = timed(launch.read, "reading")  # type: ignore[attr-defined]
    run.shader_of = timed(run.shader_of, "writing")
    torch.mps.compile_shader = timed(torch.mps.compile_shader, "compiling")


def run_cases(out: str) -> None:
    """Unsloth's kernels, and every case."""
    import importlib

    from tests.tiles import upstream, worker
    from tests.tiles.registry import CASES

    upstream.main(out)
    for program in worker.PROGRAMS:
        importlib.import_module(f"tests.tiles.programs.{program}")
    for case in CASES.values():
        worker.answer(case, "metal")


def main() -> None:
    from patcher.simulator.metal import toolchain
    from tests.tiles import worker

    worker.prepare("metal")
    toolchain.runtime_library()  # is built once on a machine, and belongs to no shader
    watch()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PATCHER_CACHE"] = folder
        run_cases(f"{folder}/out")
    print("| Step | programs | median, ms | 9 of 10, ms | most, ms | together, s |\n|---|---|---|---|---|---|")
    for step, found in SPENT.items():
        most = quantiles(found, n=10)[-1]
        figures = " | ".join(f"{1000 * value:.1f}" for value in (median(found), most, max(found)))
        print(f"| {step} | {len(found)} | {figures} | {sum(found):.1f} |")


if __name__ == "__main__":
    main()
