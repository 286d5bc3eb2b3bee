"""Concatenation on mps, by copies where torch's kernel cannot count the elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from patcher.engine.ledger import original

MOST_ELEMENTS = 2**31
"""A result with more is put together by copies (pytorch issue 189960)."""


def cat(keys: Any, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """``tensors`` one behind the other along ``dim``."""
    if not _is_large(tensors, dim):
        joined: Tensor = original("aten::cat on MPS").call_boxed(keys, tensors, dim)
        return joined
    dim = dim % tensors[0].dim()
    shape = list(tensors[0].shape)
    shape[dim] = sum(part.size(dim) for part in tensors)
    return _copied(tensors, dim, tensors[0].new_empty(shape))


def cat_out(keys: Any, tensors: Sequence[Tensor], dim: int = 0, *, out: Tensor) -> Tensor:
    """`cat` into ``out``."""
    if _is_large(tensors, dim) and out.dtype is tensors[0].dtype:
        whole = cat(keys, tensors, dim)
        return out.resize_(whole.shape).copy_(whole)
    original("aten::cat.out on MPS").call_boxed(keys, tensors, dim, out=out)
    return out


def _is_large(tensors: Sequence[Tensor], dim: int) -> bool:
    """Whether the result is too large, and the parts fit; others torch converts or refuses."""
    if sum(part.numel() for part in tensors) <= MOST_ELEMENTS:
        return False
    first = tensors[0]
    if not -first.dim() <= dim < first.dim():
        return False
    return all(_kind(part, dim) == _kind(first, dim) for part in tensors)


def _kind(part: Tensor, dim: int) -> tuple[Any, ...]:
    """What the parts have in common: all but their extent along ``dim``."""
    return (
        part.dtype,
        part.device,
        [size for place, size in enumerate(part.shape) if place not in (dim, dim + part.dim())],
    )


def _copied(tensors: Sequence[Tensor], dim: int, out: Tensor) -> Tensor:
    start = 0
    for part in tensors:
        out.narrow(dim, start, part.size(dim)).copy_(part)
        start += part.size(dim)
    return out
