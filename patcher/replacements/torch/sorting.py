"""Sorting on mps in parts that torch's kernel gets right, and the inverse of unique values by looking them up."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from patcher.engine.ledger import original

MOST_COLUMNS = 2**22
"""Along another dimension than the last no more columns are sorted at a time (pytorch issue 183885)."""


def sort_stable(
    keys: Any, self: Tensor, *, stable: bool | None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    """Values and indices of ``self`` sorted along ``dim``."""
    call = partial(original("aten::sort.stable on MPS").call_boxed, keys, stable=stable, descending=descending)
    most = MOST_COLUMNS
    if self.numel() <= most or self.dim() < 2 or dim % self.dim() == self.dim() - 1:
        whole: tuple[Tensor, Tensor] = call(self, dim=dim)
        return whole
    first = self.movedim(dim, 0)
    columns = first.reshape(self.size(dim), -1)
    parts = [call(columns[:, start : start + most], dim=0) for start in range(0, columns.size(1), most)]
    values, indices = (torch.cat(each, 1).view(first.shape).movedim(0, dim) for each in zip(*parts, strict=True))
    return values, indices


def _unique2(
    keys: Any, self: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, where each element of ``self`` is among them, and their counts."""
    call = partial(original("aten::_unique2 on MPS").call_boxed, keys)
    if not (return_inverse and self.dtype is torch.int64):
        found: tuple[Tensor, Tensor, Tensor] = call(self, sorted, return_inverse, return_counts)
        return found
    values, _, counts = call(self, True, False, return_counts)
    return values, torch.searchsorted(values, self.contiguous()), counts
