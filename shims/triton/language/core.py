"""Types and functions of the kernel language that are read outside kernels."""

from __future__ import annotations

from typing import Any, NoReturn

from patcher.errors import KernelNotReplaced


class dtype:
    """A data type of the kernel language, named as Triton names it: ``fp32``, ``bf16``, ``int64``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dtype) and self.name == other.name

    def __hash__(self) -> int:
        return hash((dtype, self.name))

    def __repr__(self) -> str:
        return f"triton.language.{self.name}"


float16 = dtype("fp16")
bfloat16 = dtype("bf16")
float32 = dtype("fp32")
float64 = dtype("fp64")
int64 = dtype("int64")


class tensor:
    """A value inside a kernel. Nothing makes one; it is there for annotations."""


class constexpr:
    """Marks a parameter that is known when the kernel is compiled, or wraps such a value."""

    def __init__(self, value: Any) -> None:
        self.value: Any = value.value if isinstance(value, constexpr) else value

    def __repr__(self) -> str:
        return f"constexpr[{self.value}]"


def cast(input: Any, dtype: Any, fp_downcast_rounding: str | None = None, bitcast: bool = False) -> NoReturn:
    """Raises KernelNotReplaced: works only inside a kernel."""
    raise inside_kernel("cast")


def view(input: Any, *shape: Any) -> NoReturn:
    """Raises KernelNotReplaced: works only inside a kernel."""
    raise inside_kernel("view")


def inside_kernel(name: str) -> KernelNotReplaced:
    """The error for calling ``name``, a function of the kernel language, from ordinary Python."""
    return KernelNotReplaced(
        f"triton.language.{name} was called outside a kernel; it works only inside one, and Triton cannot run on a Mac"
    )
