"""A function of single elements over blocks, with branches and loops of its own for each element."""

from __future__ import annotations

from typing import Any

from patcher.tiles.builder import Builder, Operand
from patcher.tiles.library.registry import function
from patcher.tiles.library.shapes import join, split
from patcher.tiles.program import Sequence, Value
from patcher.tiles.types import block


@function()
def map_elementwise(b: Builder, scalar_fn: Any, *args: Operand, pack: int = 1) -> Any:
    """What the function gives for the elements of the blocks at each place; with ``pack`` for so many at once.

    It takes the elements of the first block, then those of the next one, and gives its results in the same order.
    """
    if not args or pack < 1 or pack & (pack - 1):
        raise ValueError(f"map_elementwise takes blocks, and a pack that is a power of two; this is {pack}")
    values = b.alike(*args)
    shape, count = values[0].shape or (1,), values[0].type.numel
    if count % pack:
        raise ValueError(f"a block of {count} elements does not go into packs of {pack}")
    parts = [part for value in values for part in _parted(b, b.broadcast(value, shape), pack)]
    sides = tuple(Value(part.scalar) for part in parts)
    with b.inside(Sequence(sides)) as sequence:
        given = b.call(scalar_fn, *sides)
        sequence.results = tuple(b.tensor(one) for one in (given if isinstance(given, tuple) else (given,)))
    if len(sequence.results) % pack or any(value.shape for value in sequence.results):
        raise TypeError(f"the function of map_elementwise gives {len(sequence.results)} values for packs of {pack}")
    kinds = tuple(block(value.scalar, (count // pack,)) for value in sequence.results)
    found = b.operation("elementwise", tuple(parts), kinds, (sequence,))
    whole = [_whole(b, list(found[at : at + pack])) for at in range(0, len(found), pack)]
    results = tuple(b.reshape(value, values[0].shape) for value in whole)
    return results if len(results) > 1 else results[0]


def _parted(b: Builder, x: Value, pack: int) -> list[Value]:
    """The elements 0, pack, 2 pack ... of a block as one with one axis, the elements 1, pack + 1 ..., and so on."""
    if pack == 1:
        return [b.reshape(x, (x.type.numel,))]
    even, odd = split(b, b.reshape(x, (x.type.numel // 2, 2)))
    pairs = zip(_parted(b, even, pack // 2), _parted(b, odd, pack // 2), strict=True)
    return [part for pair in pairs for part in pair]


def _whole(b: Builder, parts: list[Value]) -> Value:
    """The block that `_parted` gives in ``parts``, with one axis."""
    if len(parts) == 1:
        return parts[0]
    joined = join(b, _whole(b, parts[::2]), _whole(b, parts[1::2]))
    return b.reshape(joined, (joined.type.numel,))
