"""What a kernel becomes for arguments of certain types, and what torch asks Triton's compiler for."""

from __future__ import annotations

import typing
from collections.abc import Callable
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import triton

if typing.TYPE_CHECKING:
    from patcher.tiles.on_metal import Launcher
    from patcher.tiles.program import Program
    from triton.runtime.jit import JITFunction


_MOST_REGISTERS = 255
"""Registers that CUDA gives a thread at the most, which scripts expect."""


class CompiledKernel:
    """What a launch and ``kernel.warmup(...)`` give.

    Attributes:
        name: the kernel's.
        src: the kernel.
        program: the block program that was made of it.
        options: the compiler's options at the launch.
    """

    def __init__(self, src: JITFunction[Any], program: Program, options: dict[str, Any]) -> None:
        self.name, self.src, self.program, self.options = src.__name__, src, program, options

    def __str__(self) -> str:
        return str(self.program)

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        """The launcher for ``grid``, of all arguments of the kernel, constants too."""

        def launch(*args: Any) -> Any:
            return self.src.run(*args, grid=grid, **self.options)

        return launch

    def _init_handles(self) -> None:
        """Does nothing: what it makes in Triton is made when it is asked for."""

    @property
    def metadata(self) -> SimpleNamespace:
        """``shared``, the bytes of threadgroup memory; name, target, and the options, which Metal makes no use of.

        Metal allots threadgroup memory by 16 bytes. At least as much is told, as scripts divide by it.
        """
        from triton.runtime.driver import driver

        usual = {"num_warps": 4, "num_stages": 3, "num_ctas": 1}
        shared = 16 * max(1, -(-self._shader.shader.memory // 16) if self._shader else 1)
        target = driver.active.get_current_target()
        return SimpleNamespace(**{**usual, **self.options, "name": self.name, "shared": shared, "target": target})

    @property
    def n_max_threads(self) -> int:
        """The most threads of a threadgroup that have registers enough, where a shader runs; else the most of any."""
        from patcher.tiles.launch import num_warps
        from patcher.tiles.on_metal.emitter import LARGEST_GROUP, SMALLEST_GROUP

        return max(self._shader.most, SMALLEST_GROUP * num_warps(self.options)) if self._shader else LARGEST_GROUP

    @property
    def n_regs(self) -> int:
        """Its thread's share of the registers that ``get_device_properties`` tells, at most what a thread may have.

        So ``max_num_regs // (n_regs * warpSize * num_warps)``, by which scripts choose a grid, is at least 1.
        """
        from triton.runtime.driver import driver

        registers: int = driver.active.utils.get_device_properties()["max_num_regs"]
        return min(_MOST_REGISTERS, registers // self.n_max_threads)

    @property
    def asm(self) -> dict[str, str]:
        """The program, and Metal's source of it where a shader is made."""
        return {"program": str(self.program), **({"metal": self._shader.shader.source} if self._shader else {})}

    @cached_property
    def _shader(self) -> Launcher | None:
        """The shader for tensors on mps that do not lie in one another."""
        from patcher.tiles.backends import shader_of
        from patcher.tiles.launch import num_warps

        return shader_of(self.program, num_warps(self.options))


def triton_key() -> str:
    """What torch.compile adds to the keys of its caches: entries made with a real Triton are not mixed up with ours."""
    return f"patch-for-mac shim {triton.__version__}"
