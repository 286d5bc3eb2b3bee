"""Hints to a compiler, which change nothing here, and checks and messages."""

from __future__ import annotations

from typing import Any

from patcher.tiles.builder import Builder, Operand
from patcher.tiles.library.registry import function
from patcher.tiles.program import Value


@function("multiple_of", "max_contiguous", "max_constancy")
def hinted(b: Builder, input: Any, values: Any) -> Any:
    """The input as it is."""
    return input


@function("assume", "debug_barrier", "extra.cuda.gdc_wait", "extra.cuda.gdc_launch_dependents")
def nothing(b: Builder, *_: Any) -> None:
    """Says something to the compiler, or orders what is in order anyway."""


@function()
def condition(b: Builder, arg1: Any, disable_licm: bool = False) -> Any:
    """The condition of a ``while`` as it is; the hint changes nothing."""
    return arg1


@function()
def expect_zero(b: Builder, x: Any, mask: Any) -> Any:
    """The input as it is."""
    return x


@function()
def static_assert(b: Builder, cond: Any, msg: Any = "") -> None:
    """Raises TypeError where the condition, known at compile time, does not hold."""
    if isinstance(cond, Value):
        raise TypeError("static_assert needs a condition that is known at compile time")
    if not cond:
        raise TypeError(f"static_assert failed: {msg}")


@function()
def static_print(
    b: Builder, *values: Any, sep: str = " ", end: str = "\n", file: Any = None, flush: bool = False
) -> None:
    """Prints while the kernel is read."""
    print(*(value.type if isinstance(value, Value) else value for value in values), sep=sep, end=end)


@function()
def device_assert(b: Builder, cond: Operand, msg: Any = "", mask: Operand | None = None) -> None:
    """Ends the launch with an error where the condition does not hold."""
    test = b.truth(cond)
    if mask is not None:
        test = b.bits("or", test, b.invert(b.truth(mask)))
    b.operation("assert", (test,), message=str(msg))


@function()
def device_print(b: Builder, prefix: str, *args: Operand, hex: bool = False) -> None:
    """Prints values of every program."""
    b.operation("print", tuple(b.tensor(arg) for arg in args), text=str(prefix), hex=bool(hex))
