"""Launches of programs as Metal shaders: compiled once, and refused once where that cannot be."""

from __future__ import annotations

import logging
from collections.abc import Sequence as Items
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch

from patcher.errors import KernelFailed, compose
from patcher.tiles.on_metal.emitter import LARGEST_GROUP, SMALLEST_GROUP, Shader, shader_of
from patcher.tiles.on_metal.names import NotOnMetal
from patcher.tiles.program import Program

LOG = logging.getLogger(__name__)

WIDEST_GRID = (1 << 32) - 1
"""Threads along an axis of a Metal grid."""

TOP = 1 << 63
"""From here on an unsigned number is passed as the int64 of the same bits."""

Arguments: TypeAlias = "Items[torch.Tensor | int | float]"

Made = Any
"""What torch.mps.compile_shader's libraries hold: a function of tensors and numbers."""


class Launcher:
    """A compiled shader.

    Attributes:
        overlapping: whether it is for tensors that may lie in one another.
        threads: of a threadgroup.
        most: threads that have registers enough.
        widest: the most programs along the first axis of a grid.
        admitted: the widest grid, along each axis, for which its numbers have proved right.
        tried: how often it had to prove them since.
    """

    admitted: tuple[int, int, int] = (0, 0, 0)
    tried = 0

    def __init__(self, program: Program, shader: Shader, overlapping: bool) -> None:
        self.name, self.place = program.name, program.place
        self.shader, self.overlapping = shader, overlapping
        self.function: Made = getattr(torch.mps.compile_shader(shader.source), shader.name)
        self.threads, self.group = shader.threads, (shader.threads, 1, 1)
        self.widest = WIDEST_GRID // shader.threads
        self.most: int = self.function.max_threads_per_threadgroup

    def __call__(
        self,
        grid: tuple[int, int, int],
        tensors: Items[Any],
        whole: Items[Any],
        real: Items[Any],
    ) -> None:
        """Starts the shader for every place in ``grid``; the arguments are those that it lists, in order.

        Raises:
            KernelFailed: torch refuses to start it, or it failed.
        """
        passed: list[Any] = [*tensors]
        if whole:
            passed.append([number if number < TOP else number - 2 * TOP for number in map(int, whole)])
        if real:
            passed.append([*map(float, real)])
        x, y, z = grid
        try:
            self.function(*passed, threads=(x * self.threads, y, z), group_size=self.group)
        except torch.OutOfMemoryError as error:  # which scripts catch by its type
            error.add_note(f"in the Triton kernel {self.name} ({self.place}), as a Metal shader")
            raise
        except RuntimeError as error:
            raise self.failed(error) from error

    def launch(self, grid: tuple[int, int, int], arguments: Arguments) -> None:
        """The same with the arguments of the program, in its order."""
        lists = (self.shader.tensors, self.shader.whole, self.shader.real)
        self(grid, *([arguments[number] for number in numbers] for numbers in lists))

    def failed(self, error: RuntimeError) -> KernelFailed:
        """The error of a launch that torch ended."""
        return KernelFailed(
            compose(
                f"the Triton kernel {self.name} failed as a Metal shader: {error}",
                target=f"{self.name} ({self.place})",
                left="what the kernel had written before stays written",
                run="run it with PATCHER_TRITON=torch, which names the line, or check the arguments of the launch",
            )
        )

    def admits(self, grid: tuple[int, int, int]) -> bool:
        """Whether it has proved right for as wide a grid."""
        x, y, z = grid
        widest = self.admitted
        return x <= widest[0] and y <= widest[1] and z <= widest[2]

    def admit(self, grid: tuple[int, int, int]) -> None:
        """It has proved right for ``grid``. Grids that grow have it proved each time that they are twice as wide."""
        x, y, z = (max(new, 2 * old) if new > old else old for new, old in zip(grid, self.admitted, strict=True))
        self.admitted, self.tried = (min(x, self.widest), y, z), 0

    def extend(self, grid: tuple[int, int, int]) -> None:
        """It has been admitted for grids as wide as this one before."""
        x, y, z = (max(both) for both in zip(grid, self.admitted, strict=True))
        self.admitted = (x, y, z)

    def may_prove(self) -> bool:
        """Whether it is to be compared again: every time at first, and then ever less often."""
        self.tried += 1
        return self.tried & (self.tried - 1) == 0

    def written(self, arguments: Arguments) -> list[torch.Tensor]:
        """Those of the program's arguments that it may write."""
        return [tensor for n in self.shader.written if isinstance(tensor := arguments[n], torch.Tensor)]


def overlapping(tensors: Items[torch.Tensor]) -> bool:
    """Whether some of the tensors have one storage."""
    return len({tensor.untyped_storage().data_ptr() for tensor in tensors}) < len(tensors)


_launchers: WeakKeyDictionary[Program, dict[tuple[int, bool], Launcher | NotOnMetal]] = WeakKeyDictionary()


def run(program: Program, grid: tuple[int, int, int], arguments: Arguments, num_warps: int = 4) -> Launcher:
    """Runs ``program`` once for each place in ``grid``, on tensors on mps; gives the shader that did.

    Raises:
        NotOnMetal: nothing ran; another back end can do it.
        KernelFailed: the shader was refused or failed.
    """
    launcher = launcher_of(program, grid, arguments, num_warps)
    launcher.launch(grid, arguments)
    return launcher


def launcher_of(program: Program, grid: tuple[int, int, int], arguments: Arguments, num_warps: int) -> Launcher:
    """The compiled shader for such a launch. Raises NotOnMetal where there is none."""
    launcher = _launcher(program, arguments, num_warps)
    if isinstance(launcher, NotOnMetal):
        raise launcher
    if grid[0] > launcher.widest:
        raise NotOnMetal(f"a grid of {grid[0]} programs along its first axis")
    return launcher


def why_not(program: Program, arguments: Arguments, num_warps: int = 4) -> str:
    """Why there is no shader of ``program`` for such arguments; empty where there is one."""
    launcher = _launcher(program, arguments, num_warps)
    return str(launcher) if isinstance(launcher, NotOnMetal) else ""


def refuse(launcher: Launcher, why: str) -> None:
    """Nothing runs with this shader any more."""
    refusal = NotOnMetal(why)
    launcher.admitted = (0, 0, 0)
    for made in _launchers.values():
        for key in [key for key, found in made.items() if found is launcher]:
            made[key] = refusal


def _launcher(program: Program, arguments: Arguments, num_warps: int) -> Launcher | NotOnMetal:
    """The compiled shader, or why there is none; made once."""
    key = (num_warps, overlapping([argument for argument in arguments if isinstance(argument, torch.Tensor)]))
    made = _launchers.setdefault(program, {})
    if key not in made:
        made[key] = _made(program, *key)
    return made[key]


def _made(program: Program, num_warps: int, overlapping: bool) -> Launcher | NotOnMetal:
    """The compiled shader, or why there is none; with less threads where so many have not registers enough."""
    most = LARGEST_GROUP
    try:
        while True:
            launcher = Launcher(program, shader_of(program, num_warps, overlapping, most), overlapping)
            if launcher.threads <= launcher.most:
                return launcher
            if launcher.most < SMALLEST_GROUP:
                raise NotOnMetal(f"{launcher.threads} threads, and {launcher.most} have registers enough")
            most = 1 << (launcher.most.bit_length() - 1)
    except NotOnMetal as refusal:
        LOG.debug("%s runs with torch: %s", program.name, refusal)
        return refusal
    except (SyntaxError, RuntimeError) as error:  # of the compiler, or because there is none
        LOG.warning("%s runs with torch, since its shader does not compile: %s", program.name, error)
        return NotOnMetal(f"its shader does not compile: {error}")
