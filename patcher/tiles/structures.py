"""What a name in a kernel can hold besides one value: tuples, aggregates, block pointers and tensor descriptors.

A structure is its values in a fixed order and a way back from values to a structure; whatever carries values through
branches, loops and calls carries structures so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from patcher.tiles.program import Value
from patcher.tiles.types import Shape


@dataclass(frozen=True)
class BlockPointer:
    """A window of ``block_shape`` onto a tensor of ``shape`` and ``strides`` (elements), at ``offsets``.

    Attributes:
        checked: whether every access is checked against ``shape``, as those of a tensor descriptor are.
        padding: what is read outside, "zero" or "nan".
    """

    base: Value
    shape: tuple[Value, ...]
    strides: tuple[Value, ...]
    offsets: tuple[Value, ...]
    block_shape: Shape
    checked: bool = False
    padding: str = "zero"


class Aggregate:
    """Base of the classes that ``@triton.aggregate`` makes: values by name, in a fixed order.

    Attributes:
        __aggregate_fields__: the fields' names and the classes of what they hold.
    """

    __aggregate_fields__: ClassVar[dict[str, Any]] = {}

    def __bool__(self) -> bool:
        raise TypeError(f"{type(self).__name__} is an aggregate, which is neither true nor false")

    def parts(self) -> tuple[Any, ...]:
        """What the fields hold, in order."""
        return tuple(vars(self)[name] for name in self.__aggregate_fields__)

    def with_parts(self, parts: tuple[Any, ...]) -> Aggregate:
        """Another one of its class, which no constructor has seen."""
        made = object.__new__(type(self))
        vars(made).update(zip(self.__aggregate_fields__, parts, strict=True))
        return made


def flatten(thing: Any) -> list[Value]:
    """The values in ``thing``, which may be a structure, a value, or anything known at compile time."""
    if isinstance(thing, Value):
        return [thing]
    if isinstance(thing, tuple):
        return [value for part in thing for value in flatten(part)]
    if isinstance(thing, Aggregate):
        return flatten(thing.parts())
    if isinstance(thing, BlockPointer):
        return [thing.base, *thing.shape, *thing.strides, *thing.offsets]
    return []


def rebuild(thing: Any, values: Iterator[Value]) -> Any:
    """A structure like ``thing`` of other values."""
    if isinstance(thing, Value):
        return next(values)
    if isinstance(thing, tuple):
        parts = [rebuild(part, values) for part in thing]
        return type(thing)(*parts) if hasattr(thing, "_fields") else tuple(parts)
    if isinstance(thing, Aggregate):
        return thing.with_parts(rebuild(thing.parts(), values))
    if isinstance(thing, BlockPointer):
        base, rank = next(values), len(thing.block_shape)
        shape, strides, offsets = (tuple(next(values) for _ in range(rank)) for _ in range(3))
        return BlockPointer(base, shape, strides, offsets, thing.block_shape, thing.checked, thing.padding)
    return thing


def kind(thing: Any) -> Any:
    """What two structures must have in common to be merged: their form, the types of their values, their constants."""
    if isinstance(thing, Value):
        return thing.type
    if isinstance(thing, tuple):
        return (type(thing), *(kind(part) for part in thing))
    if isinstance(thing, Aggregate):
        return (type(thing), *map(kind, thing.parts()))
    if isinstance(thing, BlockPointer):
        return ("block pointer", thing.block_shape, thing.checked, *(value.type for value in flatten(thing)))
    return ("constant", thing)


def say(thing: Any) -> str:
    """The type of ``thing`` in words of the kernel language."""
    if isinstance(thing, Value):
        return str(thing.type)
    if isinstance(thing, tuple):
        return f"({', '.join(map(say, thing))})"
    if isinstance(thing, Aggregate):
        return f"{type(thing).__name__}{say(thing.parts())}"
    if isinstance(thing, BlockPointer):
        return f"block pointer to {thing.base.scalar}{list(thing.block_shape)}"
    return f"the constant {thing!r}"
