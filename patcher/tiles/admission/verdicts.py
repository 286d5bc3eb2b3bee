"""What first launches have told of shaders, kept on disk for the processes to come.

A verdict is trusted as in the process that found it: for the same program and shader, as far as the same grids. A
shader that is wrong stays so whatever another process finds, since each kind of verdict has a file of its own.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from patcher import environment
from patcher.tiles.admission import kept
from patcher.tiles.admission.machine import surroundings
from patcher.tiles.on_metal import Launcher
from patcher.tiles.program import Program

PACKAGE = Path(environment.__file__).parent
"""What the numbers of both back ends depend on, beside the machine: the language, and what is changed of torch."""

PREFIXES = ("PYTORCH_MPS_", "MTL_")
NAMES = frozenset(("PATCHER_WITHOUT", "PATCHER_SIMULATE_FAULTS", "PATCHER_SIMULATE_TORCH", "UNSLOTH_SIMULATE_MAC"))
"""Variables that may change numbers: torch's fast mathematics, Metal's debugging, changes and machines; the limits of
torch's allocator do not."""

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
    """What a verdict holds for: machine, macOS, torch, this package, variables, the program, and its shader."""
    shader = launcher.shader
    digest = hashlib.sha256(_package())
    how = f"{shader.name} {shader.threads} {launcher.overlapping}"
    written = (str(replace(program, place="")), how, shader.source)
    for part in (*surroundings(), *_variables(), *written):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:32]


def _variables() -> list[str]:
    found = environment.snapshot().items()
    return sorted(
        f"{name}={value}"
        for name, value in found
        if name in NAMES or (name.startswith(PREFIXES) and not name.endswith("_WATERMARK_RATIO"))
    )


@functools.cache
def _package() -> bytes:
    """A digest of every file of this package."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes() + b"\0")
    return digest.digest()
