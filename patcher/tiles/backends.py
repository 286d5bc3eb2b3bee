"""Which back end runs a program: Metal on mps where its numbers have proved right, torch operators everywhere else."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Any

import torch

from patcher import environment
from patcher.tiles import admission, on_metal, on_torch
from patcher.tiles.fit import Fit
from patcher.tiles.program import Program

LOG = logging.getLogger(__name__)


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
) -> on_metal.Launcher | None:
    """Runs ``program`` once for each place in ``grid``, on ``device``. Raises as the back ends do.

    Returns:
        The shader that ran, and whose numbers are right; None where torch operators ran.
    """
    why = why_not(device)
    if not why:
        try:
            launcher = on_metal.launcher_of(program, grid, arguments, num_warps)
            if launcher.admits(grid):
                launcher.launch(grid, arguments)
            else:
                why = _first_launch(program, launcher, grid, arguments)
            if not why:
                launches[Launched(program.name, "metal")] += 1
                return launcher
        except (on_metal.NotOnMetal, admission.Undecided) as refusal:
            why = str(refusal)
    on_torch.run(program, grid, arguments, device)
    launches[Launched(program.name, "torch", why)] += 1
    return None


def fit(program: Program, arguments: Items[torch.Tensor | int | float], device_type: str, num_warps: int = 4) -> Fit:
    """Whether ``program`` runs on the back end that is asked for; nothing runs.

    Args:
        arguments: those of the launch, or none where they are not known yet.
    """
    if why_not(torch.device(device_type)) or not on_metal.why_not(program, arguments, num_warps):
        return Fit.AS_ASKED
    return Fit.ELSEWHERE


def shader_of(program: Program, num_warps: int = 4) -> on_metal.Launcher | None:
    """The shader of ``program`` for tensors on mps that do not lie in one another, proved or not; None without one."""
    if not torch.backends.mps.is_available() or why_not(torch.device("mps")):
        return None
    try:
        return on_metal.launcher_of(program, (1, 1, 1), (), num_warps)
    except on_metal.NotOnMetal:
        return None


def why_not(device: torch.device) -> str:
    """Why nothing runs as Metal on ``device``; empty where it does."""
    if device.type != "mps":
        return f"the tensors are on {device.type}"
    return "PATCHER_TRITON is torch" if environment.triton_kernels() == "torch" else admission.why_not()


def _first_launch(
    program: Program, launcher: on_metal.Launcher, grid: tuple[int, int, int], arguments: Items[Any]
) -> str:
    """Runs a program for the first time as this shader, or on this wide a grid, and admits or refuses the shader.

    What another process has found out before is not found out again.

    Returns:
        Why it is not admitted; then nothing has changed. Empty where it is, and the tensors have its numbers.
    """
    if not launcher.may_prove():
        return "its shader has not proved right yet"
    known = admission.recall(program, launcher)
    if known.wrong:
        return _refused(program, launcher, known.wrong, " (found before; PATCHER_TRITON_CACHE=0 compares it again)")
    launcher.extend(known.grid)
    if launcher.admits(grid):
        launcher.launch(grid, arguments)
        return ""
    wrong = admission.first_launch(program, launcher, grid, arguments)
    if wrong:
        admission.keep(program, launcher, wrong)
        return _refused(program, launcher, wrong)
    launcher.admit(grid)
    admission.keep(program, launcher)
    return ""


def _refused(program: Program, launcher: on_metal.Launcher, wrong: str, hint: str = "") -> str:
    """Nothing runs with this shader any more; gives the reason that the account has. The warning has a hint besides."""
    wrong = f"as a shader it gave other numbers than with torch: {wrong}"
    on_metal.refuse(launcher, wrong)
    LOG.log(_level(program), "the Triton kernel %s runs with torch operators: %s%s", program.name, wrong, hint)
    return wrong


_warned: set[str] = set()


def _level(program: Program) -> int:
    """A kernel is warned of once, whatever variants of it there are."""
    level = logging.DEBUG if program.name in _warned else logging.WARNING
    _warned.add(program.name)
    return level
