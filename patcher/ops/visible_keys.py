"""Which keys a query of attention sees: one interval for every query, from the pattern and the lengths.

Query ``i`` stands at key ``c = i + S - L``, so that the last query stands at the last key (as in flash-attn from 2.1
on), and sees the keys from ``c - left`` to ``c + right``; a causal query sees none after ``c``. Of packed rows a query
sees keys of its own row only, and ``S`` and ``L`` are that row's lengths. Biases and boolean masks come on top.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pattern:
    """What attention does with its scores ``s = scale * q . k``.

    Attributes:
        scale: factor of the dot products.
        causal: whether a query sees no key after the one that it stands at.
        window: how many keys to the left and to the right of that one are seen, None for all.
        softcap: scores become ``softcap * tanh(s / softcap)``, before a bias is added.
        dropout_p: how likely a weight is dropped after the softmax; the others are divided by ``1 - dropout_p``.
        seed: of the generator of dropout (`patcher.ops.philox`), 64 bits.
    """

    scale: float
    causal: bool = False
    window: tuple[int | None, int | None] = (None, None)
    softcap: float | None = None
    dropout_p: float = 0.0
    seed: int = 0

    @property
    def reach(self) -> tuple[int | None, int | None]:
        """Keys to the left and to the right that are seen, None for all."""
        left, right = self.window
        return left, min(0 if right is None else right, 0) if self.causal else right


class Visible(Protocol):
    """The intervals of all queries."""

    def keys(self, rows: slice) -> slice:
        """Keys beyond which none of these queries sees any; what the host can tell without waiting for the device."""

    def seen_by_all(self, rows: slice) -> slice:
        """Keys that each of these queries sees, as far as the host can tell; may be empty."""

    def hidden(self, rows: slice, keys: slice, device: torch.device) -> Tensor:
        """Boolean ``[rows, keys]``: whether the query does not see the key."""

    def width(self, rows: int) -> int:
        """At most so many keys are in `keys` of that many queries."""


@dataclass(frozen=True)
class Band:
    """Rows of one length: the intervals lie along a diagonal.

    Attributes:
        queries, total: ``L`` and ``S``.
        left, right: `Pattern.reach`.
    """

    queries: int
    total: int
    left: int | None
    right: int | None

    def _first(self, query: int) -> int:
        return 0 if self.left is None else self._clamped(query + self.total - self.queries - self.left)

    def _end(self, query: int) -> int:
        if self.right is None:
            return self.total
        return self._clamped(query + self.total - self.queries + self.right + 1)

    def _clamped(self, key: int) -> int:
        return min(max(key, 0), self.total)

    def keys(self, rows: slice) -> slice:
        first = self._first(rows.start)
        return slice(first, max(first, self._end(rows.stop - 1)))

    def seen_by_all(self, rows: slice) -> slice:
        return slice(self._first(rows.stop - 1), self._end(rows.start))

    def hidden(self, rows: slice, keys: slice, device: torch.device) -> Tensor:
        shift = self.total - self.queries
        at = torch.arange(rows.start + shift, rows.stop + shift, device=device)[:, None]
        key = torch.arange(keys.start, keys.stop, device=device)
        sides = []
        if self.right is not None:
            sides.append(key > at + self.right)
        if self.left is not None:
            sides.append(key < at - self.left)
        if not sides:
            return torch.zeros_like(key, dtype=torch.bool).expand(len(at), -1)
        return sides[0] if len(sides) == 1 else sides[0].logical_or_(sides[1])

    def width(self, rows: int) -> int:
        if self.left is None or self.right is None:
            return self.total
        return min(self.total, max(0, rows + self.left + self.right))


@dataclass(frozen=True)
class Packed:
    """Rows of several lengths, one after the other.

    Attributes:
        first, end: int64 ``[T]``, for each query the first key that it sees and the one after the last.
        total: how many keys there are in all.
        reach: how many keys before and after its own place in the pack a query may see, where queries and keys are
            packed alike; None where `starts` is there.
        starts: cumulative lengths of the queries' rows and of the keys', on the host.
    """

    first: Tensor
    end: Tensor
    total: int
    reach: tuple[int, int] | None
    starts: tuple[list[int], list[int]] | None

    def keys(self, rows: slice) -> slice:
        if self.reach is not None:
            return slice(max(0, rows.start - self.reach[0]), min(self.total, rows.stop + self.reach[1]))
        assert self.starts is not None
        queries, keys = self.starts
        last = len(keys) - 1
        first, end = (min(bisect_right(queries, row), last) for row in (rows.start, rows.stop - 1))
        return slice(keys[max(0, first - 1)], keys[end])

    def seen_by_all(self, rows: slice) -> slice:
        return slice(0, 0)

    def hidden(self, rows: slice, keys: slice, device: torch.device) -> Tensor:
        key = torch.arange(keys.start, keys.stop, device=device)
        return (key < self.first[rows, None]).logical_or_(key >= self.end[rows, None])

    def width(self, rows: int) -> int:
        return self.total if self.reach is None else min(self.total, rows + sum(self.reach))


def packed(
    starts_query: Tensor,
    starts_key: Tensor,
    longest_query: int,
    longest_key: int,
    queries: int,
    keys: int,
    pattern: Pattern,
) -> Packed:
    """Intervals of packed rows.

    Args:
        starts_query, starts_key: cumulative lengths ``[rows + 1]``, from 0 on. Where both are one tensor the host does
            not wait for the device.
        longest_query, longest_key: bounds of the rows' lengths.
        queries, keys: ``T`` and ``U``. What lies behind the last row sees nothing and is not seen.
        pattern: reach and causality.
    """
    left, right = pattern.reach
    at = torch.arange(queries, device=starts_query.device)
    row = torch.searchsorted(starts_query[1:], at, right=True, out_int32=True)
    row.clamp_(max=starts_query.numel() - 2)
    begin, end = starts_key[row].to(torch.int64), starts_key[row + 1].to(torch.int64)
    stands = at - starts_query[row + 1] + end
    first = begin if left is None else torch.maximum(begin, stands - left)
    last = end if right is None else torch.minimum(end, stands + (right + 1))
    last = last.masked_fill_(at >= starts_query[-1], 0)
    if starts_query is not starts_key:
        return Packed(first, last, keys, None, (starts_query.tolist(), starts_key.tolist()))
    longest = max(0, max(longest_query, longest_key) - 1)
    before, after = (longest if side is None else min(max(side, 0), longest) for side in (left, right))
    return Packed(first, last, keys, (before, after), None)
