"""What first launches have told of shaders, kept on disk for the processes to come.

A verdict is trusted as in the process that found it: for the same program and shader, as far as the same grids. A
shader that is wrong stays so whatever another process finds, since each kind of verdict has a file of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from patcher import environment, kept, surroundings
from patcher.tiles.on_metal import Launcher
from patcher.tiles.program import Program

MOST_KEPT = 4096
"""Files that are kept, the newest ones; each is less than 4 KiB."""

LONGEST = 1000
"""Characters of a reason that are kept."""


@dataclass(frozen=True)
class Verdict:
    """Attributes:
    grid: the widest one for which the shader is right, along each axis.
    wrong: what is wrong with its numbers; empty where nothing is known to be.
    """

    grid: tuple[int, int, int] = (0, 0, 0)
    wrong: str = ""


def recall(program: Program, launcher: Launcher) -> Verdict:
    """What was kept of a shader; nothing where ``PATCHER_TRITON_CACHE`` is off."""
    if not environment.triton_cache():
        return Verdict()
    told, right = _places(program, launcher)
    wrong, grid = kept.read(told), kept.read(right)
    if isinstance(wrong, str) and wrong:
        return Verdict(wrong=wrong)
    if isinstance(grid, list) and len(grid) == 3 and all(type(extent) is int and extent > 0 for extent in grid):
        return Verdict((grid[0], grid[1], grid[2]))
    return Verdict()


def keep(program: Program, launcher: Launcher, wrong: str = "") -> None:
    """Keeps that a shader is right for the grids that it is admitted for, or what is wrong with it."""
    if environment.triton_cache():
        told, right = _places(program, launcher)
        kept.write(told if wrong else right, wrong[:LONGEST] or list(launcher.admitted), MOST_KEPT)


def folder() -> Path:
    """Where verdicts are kept."""
    return environment.cache_folder() / "triton-shaders"


def _places(program: Program, launcher: Launcher) -> tuple[Path, Path]:
    name = key(program, launcher)
    return folder() / f"{name}.wrong.json", folder() / f"{name}.right.json"


def key(program: Program, launcher: Launcher) -> str:
    """What a verdict holds for: the surroundings, the program, and its shader."""
    shader = launcher.shader
    how = f"{shader.name} {shader.threads} {launcher.overlapping}"
    return surroundings.key(str(replace(program, place="")), how, shader.source)
