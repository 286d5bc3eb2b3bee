"""Kernels for tests of `patcher.tiles` itself, without the shim: ``@jit``, and ``tl`` with the language's names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from patcher.tiles.language import LIBDEVICE_NAMES, MATH_NAMES, NAMES, Jitted
from patcher.tiles.launch import Kernel
from patcher.tiles.program import Program

tl = SimpleNamespace(**NAMES, math=SimpleNamespace(**MATH_NAMES))
libdevice = SimpleNamespace(**LIBDEVICE_NAMES)


class Jit(Jitted):
    """A kernel, or a device function."""

    def __init__(self, fn: Callable[..., Any], fixed: tuple[str, ...] = ()) -> None:
        self.fn = fn
        self.kernel = Kernel(fn, [_parameter(p, fixed) for p in inspect.signature(fn).parameters.values()])

    def __getitem__(self, grid: Any) -> Callable[..., Program]:
        return lambda *args, **kwargs: self.kernel.launch(grid, args, kwargs)

    def compile(self, *args: Any, **kwargs: Any) -> Program:
        """The program for such arguments."""
        return self.kernel.compile(args, kwargs)


def jit(fn: Callable[..., Any]) -> Jit:
    return Jit(fn)


def _parameter(parameter: inspect.Parameter, fixed: tuple[str, ...]) -> Any:
    return SimpleNamespace(
        name=parameter.name,
        is_constexpr="constexpr" in str(parameter.annotation),
        do_not_specialize=parameter.name in fixed,
        annotation=parameter.annotation,
    )
