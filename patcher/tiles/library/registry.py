"""The functions of the kernel language by name: what the front end does where a kernel calls one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

FUNCTIONS: dict[str, Callable[..., Any]] = {}
"""Name after ``tl.`` to a function of the builder and the kernel's arguments. ``libdevice.`` has its own names."""

METHODS: set[str] = set()
"""Functions that are also methods of tensors."""


def function(*names: str, method: bool = False) -> Callable[[F], F]:
    """Decorates the implementation of the functions ``names``, by default of the function's own name."""

    def register(implementation: F) -> F:
        for name in names or (implementation.__name__.rstrip("_"),):
            FUNCTIONS[name] = implementation
            if method:
                METHODS.add(name)
        return implementation

    return register


def shape_of(extents: Any) -> tuple[int, ...]:
    """A shape from what a kernel may write: one tuple, or the extents themselves.

    Raises:
        TypeError: an extent is not known at compile time.
    """
    if len(extents) == 1 and isinstance(extents[0], (tuple, list)):
        extents = tuple(extents[0])
    for extent in extents:
        if not isinstance(extent, int):
            raise TypeError("a shape is made of integers that are known at compile time (tl.constexpr)")
    return tuple(int(extent) for extent in extents)


def axis_of(axis: Any, rank: int) -> int:
    """An axis counted from the front. Raises ValueError where there is none such."""
    if not isinstance(axis, int) or not -rank <= axis < rank:
        raise ValueError(f"invalid axis {axis!r} of a block with {rank} axes")
    return axis % rank
