"""Which back end runs a program: torch operators, or with ``PATCHER_TRITON=metal`` Metal on mps where it can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Items
from dataclasses import dataclass

import torch

from patcher import environment
from patcher.tiles import on_metal, on_torch
from patcher.tiles.fit import Fit
from patcher.tiles.program import Program


@dataclass(frozen=True)
class Launched:
    """Attributes:
    kernel: the kernel's name, with its module.
    back_end: "metal" or "torch".
    why: why it was not Metal.
    """

    kernel: str
    back_end: str
    why: str = ""


launches: Counter[Launched] = Counter()
"""How often which kernels were launched, and where they ran, since this process started."""


def run(
    program: Program,
    grid: tuple[int, int, int],
    arguments: Items[torch.Tensor | int | float],
    device: torch.device,
    num_warps: int = 4,
) -> None:
    """Runs ``program`` once for each place in ``grid``, on ``device``. Raises as the back ends do."""
    why = why_not(device)
    if not why:
        try:
            on_metal.run(program, grid, arguments, num_warps)
        except on_metal.NotOnMetal as refusal:
            why = str(refusal)
        else:
            launches[Launched(program.name, "metal")] += 1
            return
    on_torch.run(program, grid, arguments, device)
    launches[Launched(program.name, "torch", why)] += 1


def fit(program: Program, arguments: Items[torch.Tensor | int | float], device_type: str, num_warps: int = 4) -> Fit:
    """Whether ``program`` runs on the back end that is asked for; nothing runs.

    Args:
        arguments: those of the launch, or none where they are not known yet.
    """
    if why_not(torch.device(device_type)) or not on_metal.why_not(program, arguments, num_warps):
        return Fit.AS_ASKED
    return Fit.ELSEWHERE


def why_not(device: torch.device) -> str:
    """Why nothing runs as Metal on ``device``; empty where it does."""
    if device.type != "mps":
        return f"the tensors are on {device.type}"
    return "PATCHER_TRITON is not metal" if environment.triton_kernels() == "torch" else ""
