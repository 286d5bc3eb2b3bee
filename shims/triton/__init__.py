"""Stands in for Triton, which has no macOS build: kernels are defined and run as they ship.

A launch makes a block program of the kernel's source and runs it on torch operators (`patcher.tiles`). ``language``
has the kernel language's names. Outside of it only names that an installed library reads are here; every other one is
an AttributeError or ImportError, as where Triton lacks it.

The version is at least what the libraries ask for when they are imported (Unsloth 3.0, its flash-linear-attention
3.3), and below 3.5, from which on transformers would hand MXFP4 weights on the CPU to Triton kernels.
"""

from __future__ import annotations

__version__ = "3.4.0+patcher"

from patcher.tiles.classes import aggregate, must_use_result
from patcher.tiles.language import plain
from triton import backends as backends
from triton import compiler as compiler
from triton import language as language
from triton import runtime as runtime
from triton import testing as testing
from triton.compiler.errors import CompilationError
from triton.runtime.autotuner import Config, autotune, heuristics
from triton.runtime.jit import JITFunction, KernelInterface, TensorWrapper, constexpr_function, jit, reinterpret


def set_allocator(allocator: object) -> None:
    """Does nothing: kernels need no memory of their own here."""


def cdiv(x: int, y: int) -> int:
    """``x / y`` rounded up, for a positive ``y``."""
    return -(-plain(x) // plain(y))  # type: ignore[no-any-return]


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is at least ``n``; 0 for ``n <= 0``, as Triton's own."""
    n, power = plain(n), 1
    while power < n:  # so that torch.compile takes all numbers with this answer for one case
        power *= 2
    return power if n > 0 else 0


__all__ = [
    "CompilationError",
    "Config",
    "JITFunction",
    "KernelInterface",
    "TensorWrapper",
    "aggregate",
    "autotune",
    "cdiv",
    "constexpr_function",
    "heuristics",
    "jit",
    "language",
    "must_use_result",
    "next_power_of_2",
    "reinterpret",
    "runtime",
    "set_allocator",
    "testing",
]
