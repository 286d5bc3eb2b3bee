"""Which back end runs a program: Metal on mps where it can, torch operators elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Items

import torch

from patcher import environment
from patcher.tiles import on_metal, on_torch
from patcher.tiles.program import Program

SWITCH = "PATCHER_TILES"
"""Environment variable: "metal" or "torch" is the back end for mps."""

launches: Counter[tuple[str, str]] = Counter()
"""Launches by kernel and back end."""


def run(
    program: Program,
    grid: tuple[int, int, int],
    arguments: Items[torch.Tensor | int | float],
    device: torch.device,
    num_warps: int = 4,
) -> None:
    """Runs ``program`` once for each place in ``grid``, on ``device``. Raises as the back ends do."""
    if device.type == "mps" and environment.value_of(SWITCH) != "torch":
        try:
            on_metal.run(program, grid, arguments, num_warps)
        except on_metal.NotOnMetal:
            pass
        else:
            launches[program.name, "metal"] += 1
            return
    launches[program.name, "torch"] += 1
    on_torch.run(program, grid, arguments, device)
