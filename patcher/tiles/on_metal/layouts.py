"""Where the elements of a block are: which thread and which register, bit by bit of the element's index.

Every extent is a power of two, so that the index of an element, counted in row-major order, is a row of bits. A layout
tells of each of them, from the least significant one, where it is found: in the number of the thread, in the number of
the register, or nowhere, because all elements along it are the same. Thread bits that a layout does not use are spare:
threads that differ in them hold the same elements. Broadcasting, reshaping and permuting move bits, and no element.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from patcher.tiles.types import Shape


class Place(NamedTuple):
    """One bit of the number of a thread ("t") or of a register ("r")."""

    kind: str
    number: int


Layout: TypeAlias = "tuple[Place | None, ...]"


def bits_of(extent: int) -> int:
    """log2 of a power of two."""
    return extent.bit_length() - 1


def canonical(bits: int, thread_bits: int) -> Layout:
    """Element i in thread ``i % threads``, the next ones in the next register."""
    threads, rest = min(bits, thread_bits), max(0, bits - thread_bits)
    return (*(Place("t", n) for n in range(threads)), *(Place("r", n) for n in range(rest)))


def registers(layout: Layout) -> int:
    """How many elements a thread holds."""
    return 1 << sum(place is not None and place.kind == "r" for place in layout)


def compact(layout: Layout) -> Layout:
    """The same with registers numbered without gaps."""
    used = sorted({place.number for place in layout if place is not None and place.kind == "r"})
    return tuple(Place("r", used.index(p.number)) if p is not None and p.kind == "r" else p for p in layout)


def filled(layout: Layout, thread_bits: int) -> Layout:
    """Bits that are nowhere get spare thread bits, and then registers."""
    taken = {place for place in layout if place is not None}
    threads = (Place("t", n) for n in range(thread_bits) if Place("t", n) not in taken)
    more = (Place("r", n) for n in range(registers(layout).bit_length() - 1, len(layout) + thread_bits))
    free = _chained(threads, more)
    return tuple(next(free) if place is None else place for place in layout)


def _chained(*parts: Iterable[Place]) -> Iterator[Place]:
    for part in parts:
        yield from part


def fits(layout: Layout, target: Layout) -> bool:
    """Whether each thread itself holds what it needs for ``target``."""
    pairs = ((own, wanted) for own, wanted in zip(layout, target, strict=True) if own is not None)
    return all(own == wanted if own.kind == "t" else wanted is None or wanted.kind == "r" for own, wanted in pairs)


def spare_mask(layout: Layout, thread_bits: int) -> int:
    """The thread bits that are spare."""
    used = sum(1 << place.number for place in layout if place is not None and place.kind == "t")
    return ((1 << thread_bits) - 1) & ~used


def index_text(places: Layout) -> str:
    """The number whose bits are at ``places``, computed from ``t`` and ``r``."""
    parts = []
    for start, length in _runs(places):
        place = places[start]
        assert place is not None
        shift = start - place.number
        moved = f"({place.kind} << {shift})" if shift > 0 else f"({place.kind} >> {-shift})" if shift else place.kind
        parts.append(f"({moved} & {((1 << length) - 1) << start}u)")
    return f"({' | '.join(parts)})" if len(parts) > 1 else parts[0] if parts else "0u"


def _runs(places: Layout) -> Iterator[tuple[int, int]]:
    """First bits and lengths of stretches of bits that stay side by side."""
    start = 0
    while start < len(places):
        first, length = places[start], 1
        if first is not None:
            while start + length < len(places) and places[start + length] == Place(first.kind, first.number + length):
                length += 1
            yield start, length
        start += length


def register_text(layout: Layout, target: Layout) -> str:
    """The register of ``layout`` that holds the element which ``r`` means in ``target``."""
    pairs = [(own, wanted) for own, wanted in zip(layout, target, strict=True) if own is not None and own.kind == "r"]
    places: list[Place | None] = [None] * max((own.number + 1 for own, _ in pairs), default=0)
    for own, wanted in pairs:
        places[own.number] = wanted
    whole = tuple(Place("r", number) for number in range(len(places)))
    same = bool(places) and tuple(places) == whole and registers(target) == 1 << len(places)
    return "r" if same else index_text(tuple(places))


# -- how operations on shapes move bits --------------------------------------------------------------------------------


def axis_bits(shape: Shape, axis: int) -> range:
    """The bits of the index that count along ``axis``."""
    start = sum(bits_of(extent) for extent in shape[axis + 1 :])
    return range(start, start + bits_of(shape[axis]))


def broadcast_bits(source: Shape, target: Shape) -> tuple[int, ...]:
    """For each bit of the source's index the bit of the target's index."""
    found: list[int] = []
    for axis in reversed(range(len(source))):
        found += axis_bits(target, axis) if source[axis] == target[axis] else ()
    return tuple(found)


def permuted_bits(source: Shape, order: tuple[int, ...]) -> tuple[int, ...]:
    """For each bit of the source's index the bit in a block whose axis i is the source's ``order[i]``."""
    target = tuple(source[axis] for axis in order)
    found: list[int] = []
    for axis in reversed(range(len(source))):
        found += axis_bits(target, order.index(axis))
    return tuple(found)


def moved(layout: Layout, to: tuple[int, ...], bits: int) -> Layout:
    """The layout of a block whose bit ``to[i]`` is bit i of this one."""
    found: list[Place | None] = [None] * bits
    for place, target in zip(layout, to, strict=True):
        found[target] = place
    return tuple(found)
