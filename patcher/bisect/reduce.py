"""Delta debugging: from a set with which something fails to one of which no member can be left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise


def smallest(items: Sequence[str], fails: Callable[[tuple[str, ...]], bool]) -> tuple[str, ...]:
    """A part of ``items`` that still fails, and none of whose members can be left out.

    The ddmin algorithm of Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input (2002): one culprit
    among n is found within about 2 log2(n) calls, several that act together within at most n squared.

    Args:
        items: fail together.
        fails: whether a part of them, in their order, fails; asked once for each part.
    """
    known: dict[tuple[str, ...], bool] = {}

    def asked(part: tuple[str, ...]) -> bool:
        if part not in known:
            known[part] = fails(part)
        return known[part]

    left, pieces = tuple(items), 2
    while len(left) > 1:
        parts = _split(left, pieces)
        rests = [tuple(item for item in left if item not in part) for part in parts]
        part = next((part for part in parts if asked(part)), None)
        rest = None if part else next((rest for rest in rests if asked(rest)), None)
        if part:
            left, pieces = part, 2
        elif rest:
            left, pieces = rest, max(pieces - 1, 2)
        elif pieces >= len(left):
            break
        else:
            pieces *= 2
        pieces = min(pieces, len(left))
    return left


def _split(items: tuple[str, ...], pieces: int) -> list[tuple[str, ...]]:
    ends = [len(items) * number // pieces for number in range(pieces + 1)]
    return [items[begin:end] for begin, end in pairwise(ends)]
