"""Which keys a query of attention sees: one interval for every query, from the pattern and the lengths.

Query ``i`` stands at key ``c = i + S - L``, so that the last query stands at the last key (as in flash-attn from 2.1
on), and sees the keys from ``c - left`` to ``c + right``; a causal query sees none after ``c``. Of packed rows a query
sees keys of its own row only, and ``S`` and ``L`` are that row's lengths. Biases and boolean masks come on top.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
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

    def mean_width(self, rows: int) -> float:
        """About so many are."""


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

    def mean_width(self, rows: int) -> float:
        if (self.left is None) != (self.right is None):
            return (self.total + min(rows, self.total)) / 2
        return self.width(rows)


@dataclass(frozen=True)
class Packed:
    """Rows of several lengths, one after the other; what lies behind the last one sees nothing and is not seen.

    Attributes:
        starts_query, starts_key: cumulative lengths ``[rows + 1]``, from 0 on. Where both are one tensor the host does
            not wait for the device.
        longest_query, longest_key: bounds of the rows' lengths.
        queries, total: of all rows.
        left, right: `Pattern.reach`.
    """

    starts_query: Tensor
    starts_key: Tensor
    longest_query: int
    longest_key: int
    queries: int
    total: int
    left: int | None
    right: int | None

    @cached_property
    def intervals(self) -> tuple[Tensor, Tensor]:
        """For each query the first key that it sees and the one after the last, ``[T]``."""
        at = torch.arange(self.queries, device=self.starts_query.device)
        row = torch.searchsorted(self.starts_query[1:], at, right=True, out_int32=True)
        row.clamp_(max=self.starts_query.numel() - 2)
        begin, end = self.starts_key[row], self.starts_key[row + 1]
        stands = at - self.starts_query[row + 1] + end
        first = begin if self.left is None else torch.maximum(begin, stands - self.left)
        last = end if self.right is None else torch.minimum(end, stands + (self.right + 1))
        return first, last.masked_fill(at >= self.starts_query[-1], 0)

    @cached_property
    def _reach(self) -> tuple[int, int] | None:
        """How far before and after its place in the pack a query may see; None where keys are packed otherwise."""
        if self.starts_query is not self.starts_key:
            return None
        longest = max(0, max(self.longest_query, self.longest_key) - 1)
        before, after = (longest if side is None else min(max(side, 0), longest) for side in (self.left, self.right))
        return before, after

    @cached_property
    def _starts(self) -> tuple[list[int], list[int]]:
        """The cumulative lengths on the host, which waits for them."""
        return self.starts_query.tolist(), self.starts_key.tolist()

    def keys(self, rows: slice) -> slice:
        if self._reach is not None:
            return slice(max(0, rows.start - self._reach[0]), min(self.total, rows.stop + self._reach[1]))
        queries, keys = self._starts
        last = len(keys) - 1
        first, end = (min(bisect_right(queries, row), last) for row in (rows.start, rows.stop - 1))
        return slice(keys[max(0, first - 1)], keys[end])

    def seen_by_all(self, rows: slice) -> slice:
        return slice(0, 0)

    def hidden(self, rows: slice, keys: slice, device: torch.device) -> Tensor:
        first, end = self.intervals
        key = torch.arange(keys.start, keys.stop, device=device)
        return (key < first[rows, None]).logical_or_(key >= end[rows, None])

    def width(self, rows: int) -> int:
        return self.total if self._reach is None else min(self.total, rows + sum(self._reach))

    def mean_width(self, rows: int) -> float:
        return self.width(rows)
