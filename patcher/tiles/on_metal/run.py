"""Launches of programs as Metal shaders: compiled once, and refused once where that cannot be."""

from __future__ import annotations

import logging
from collections.abc import Sequence as Items
from typing import Any
from weakref import WeakKeyDictionary

import torch

from patcher.errors import KernelFailed, compose
from patcher.tiles.on_metal.emitter import Shader, shader_of
from patcher.tiles.on_metal.names import NotOnMetal
from patcher.tiles.program import Program

LOG = logging.getLogger(__name__)

WIDEST_GRID = (1 << 32) - 1
"""Threads along an axis of a Metal grid."""

Made = Any
"""What torch.mps.compile_shader's libraries hold: a function of tensors and numbers."""


class Launcher:
    """A compiled shader."""

    def __init__(self, shader: Shader) -> None:
        self.shader = shader
        self.function: Made = getattr(torch.mps.compile_shader(shader.source), shader.name)
        if self.function.max_threads_per_threadgroup < shader.threads:
            most = self.function.max_threads_per_threadgroup
            raise NotOnMetal(f"{shader.threads} threads, and {most} have registers enough")

    def __call__(self, grid: tuple[int, int, int], arguments: Items[torch.Tensor | int | float]) -> None:
        shader = self.shader
        x, y, z = grid
        if x * shader.threads > WIDEST_GRID:
            raise NotOnMetal(f"a grid of {x} programs along its first axis")
        passed: list[Any] = [argument for argument in arguments if isinstance(argument, torch.Tensor)]
        if shader.whole:
            passed.append([_signed(int(arguments[number])) for number in shader.whole])
        if shader.real:
            passed.append([float(arguments[number]) for number in shader.real])
        self.function(*passed, threads=(x * shader.threads, y, z), group_size=(shader.threads, 1, 1))


def _signed(number: int) -> int:
    """The int64 of the same bits."""
    return number - (1 << 64) if number >= 1 << 63 else number


_launchers: WeakKeyDictionary[Program, dict[tuple[int, bool], Launcher | NotOnMetal]] = WeakKeyDictionary()


def run(
    program: Program, grid: tuple[int, int, int], arguments: Items[torch.Tensor | int | float], num_warps: int = 4
) -> None:
    """Runs ``program`` once for each place in ``grid``, on tensors on mps.

    Raises:
        NotOnMetal: nothing ran; another back end can do it.
        KernelFailed: the shader was refused or failed.
    """
    launcher = _launcher(program, arguments, num_warps)
    if isinstance(launcher, NotOnMetal):
        raise launcher
    try:
        launcher(grid, arguments)
    except torch.OutOfMemoryError as error:  # which scripts catch by its type
        error.add_note(f"in the Triton kernel {program.name} ({program.place}), as a Metal shader")
        raise
    except RuntimeError as error:
        raise _failed(program, error) from error


def why_not(program: Program, arguments: Items[torch.Tensor | int | float], num_warps: int = 4) -> str:
    """Why there is no shader of ``program`` for such arguments; empty where there is one."""
    launcher = _launcher(program, arguments, num_warps)
    return str(launcher) if isinstance(launcher, NotOnMetal) else ""


def _launcher(program: Program, arguments: Items[torch.Tensor | int | float], num_warps: int) -> Launcher | NotOnMetal:
    """The compiled shader, or why there is none; made once."""
    tensors = [argument for argument in arguments if isinstance(argument, torch.Tensor)]
    storages = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    key = (num_warps, len(storages) < len(tensors))
    made = _launchers.setdefault(program, {})
    if key not in made:
        made[key] = _made(program, *key)
    return made[key]


def _failed(program: Program, error: RuntimeError) -> KernelFailed:
    return KernelFailed(
        compose(
            f"the Triton kernel {program.name} failed as a Metal shader: {error}",
            target=f"{program.name} ({program.place})",
            left="what the kernel had written before stays written",
            run="run it with PATCHER_TRITON=torch, which names the line, or check the arguments of the launch",
        )
    )


def _made(program: Program, num_warps: int, overlapping: bool) -> Launcher | NotOnMetal:
    """The compiled shader, or why there is none."""
    try:
        return Launcher(shader_of(program, num_warps, overlapping))
    except NotOnMetal as refusal:
        LOG.debug("%s runs with torch: %s", program.name, refusal)
        return refusal
    except (SyntaxError, RuntimeError) as error:  # of the compiler, or because there is none
        LOG.warning("%s runs with torch, since its shader does not compile: %s", program.name, error)
        return NotOnMetal(f"its shader does not compile: {error}")
