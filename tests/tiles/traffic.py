"""Bytes that shaders touch, and those that their programs name: ``python -m tests.tiles.traffic OUT [CASE...]``.

What a program names is counted on torch operators: elements that are not masked off, for each program of the grid. What
its shader touches is counted on the simulated Mac, by what simdgroups do at once. Atomic operations are in neither.
OUT becomes a JSON file: for each case, for each shader that ran in it, a `Traffic` as a dict.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from patcher.tiles import on_metal, on_torch
from patcher.tiles.on_torch import executor
from patcher.tiles.on_torch.carriers import itemsize
from patcher.tiles.program import Operation
from tests.tiles import carried, worker
from tests.tiles.registry import CASES


@dataclass
class Traffic:
    """Attributes:
    kernel: the kernel's name.
    named: bytes that loads and stores name.
    touched: bytes that the shader reads and writes.
    scalars: bytes of what is named that single elements are, which all threads of a group read.
    """

    kernel: str
    named: tuple[int, int] = (0, 0)
    touched: tuple[int, int] = (0, 0)
    scalars: int = 0


FOUND: list[Traffic] = []


def count_named() -> None:
    """Loads and stores on torch operators add to the last of `FOUND`."""
    executor.Portion.do_load = _counted(executor.Portion.do_load, 1, 0)  # type: ignore[method-assign]
    executor.Portion.do_store = _counted(executor.Portion.do_store, 2, 1)  # type: ignore[method-assign]


def _counted(perform: Callable[..., Any], mask_at: int, which: int) -> Callable[..., Any]:
    def counted(self: Any, op: Operation, *operands: torch.Tensor) -> Any:
        shape, rank = (self.count, *op.operands[0].shape), len(op.operands[0].shape)
        here = torch.ones(shape, dtype=torch.bool)
        if len(operands) > mask_at:
            here = here & operands[mask_at]
        if self.active is not None:
            here = here & self.spread(self.active, rank)
        scalar = op.operands[0].scalar.element_ty
        size = int(here.sum()) * itemsize(scalar)
        found = FOUND[-1]
        found.named = tuple(n + size * (i == which) for i, n in enumerate(found.named))  # type: ignore[assignment]
        found.scalars += size if rank == 0 and which == 0 else 0
        return perform(self, op, *operands)

    return counted


def run(program: Any, grid: Any, arguments: Any, device: Any, num_warps: int = 4) -> None:
    """As `carried.run`; and with torch on copies, to count."""
    FOUND.append(Traffic(program.name))
    copied: dict[int, torch.Tensor] = {}
    try:
        given = [carried._carried(x, copied) if isinstance(x, torch.Tensor) else x for x in arguments]
        launcher = on_metal.launcher_of(program, grid, given, num_warps)
        launcher.function.counts = True
        launcher.launch(grid, given)
    except on_metal.NotOnMetal:
        on_torch.run(program, grid, arguments, device)
        FOUND.pop()
        return
    places = {x.untyped_storage().data_ptr() for x in copied.values()}
    touched = [both for address, both in launcher.function.touched.items() if address in places]
    FOUND[-1].touched = tuple(map(sum, zip(*touched, strict=True))) or (0, 0)  # type: ignore[assignment]
    on_torch.run(program, grid, arguments, device)


def main(out: str, *names: str) -> None:
    """Runs the cases whose names begin so and, with ``::3``, every third one; or all."""
    worker.prepare("metal-checked")
    carried.launch.run = run  # type: ignore[assignment]
    count_named()
    answers: dict[str, list[dict[str, Any]]] = {}
    for program in worker.PROGRAMS:
        importlib.import_module(f"tests.tiles.programs.{program}")
    step = next((int(name[2:]) for name in names if name.startswith("::")), 0 if names else 1)
    begins = tuple(name for name in names if not name.startswith("::"))
    for number, (name, case) in enumerate(CASES.items()):
        if (step and number % step == 0) or name.startswith(begins):
            FOUND.clear()
            worker.answer(case, "metal")
            answers[name] = [asdict(found) for found in FOUND]
    Path(out).write_text(json.dumps(answers, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
