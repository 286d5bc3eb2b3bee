"""Metal shaders on the simulated mps device: compiled as C++ by clang, run by the CPU.

    lib = torch.mps.compile_shader(source)          # as on a Mac
    lib.kernel(tensor, 3.0, threads=128)

Nothing here is needed, or looked for, before the first shader is compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from patcher import environment

if TYPE_CHECKING:
    from patcher.simulator.metal.library import ShaderLibrary

__all__ = ["CHECK", "compile_shader"]

CHECK = "PATCHER_METAL_CHECK"
"""Environment variable: 1 compiles every shader for the checker."""


def compile_shader(
    source: str,
    *,
    constants: Mapping[int, int | float | bool] | None = None,
    backwards: bool = False,
    check: bool | None = None,
) -> ShaderLibrary:
    """Compiles Metal source; stands in for ``torch._C._mps_compileShader``.

    Args:
        source: the shader; ``#include <metal_stdlib>`` and what belongs to it is known. ``torch.mps.compile_shader``
            has put ``<c10/metal/...>`` in its place before.
        constants: values of function constants by index. torch has no way to give them.
        backwards: lets threads take their turns in the opposite order. A kernel that depends on the order, for lack
            of a barrier, gives another result.
        check: compile for the checker, which raises RuntimeError for races between threads, accesses out of bounds, and
            reads of threadgroup memory that nobody has written. Slower by far. By default as the environment variable
            PATCHER_METAL_CHECK says (1 for yes), so that it can be had below ``torch.compile`` too.

    Raises:
        SyntaxError: with the lines of the source.
        SimulatorUnavailable: there is no clang.
    """
    from patcher.simulator.metal import library, toolchain

    checked = environment.value_of(CHECK) == "1" if check is None else check
    program = toolchain.compile_source(source, constants or {}, check=checked)
    return library.ShaderLibrary(program, backwards=backwards)
