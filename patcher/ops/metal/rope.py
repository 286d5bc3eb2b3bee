"""`patcher.ops.rope` as a Metal shader: one launch for queries and keys."""

from __future__ import annotations

import torch
from torch import Tensor

from patcher.ops.metal.library import library

GROUP = (32, 8, 1)
"""Pairs, heads and tokens of a threadgroup."""


def rope_(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    out: Tensor,
    positions: Tensor | None = None,
    transpose: bool = False,
    in_table_dtype: bool = False,
) -> Tensor:
    """As `patcher.ops.rope.rope_`."""
    _launch([x], [out], cos, sin, positions, transpose, in_table_dtype)
    return out


def rope_pair_(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    q_out: Tensor,
    k_out: Tensor,
    positions: Tensor | None = None,
    transpose: bool = False,
    in_table_dtype: bool = False,
) -> None:
    """As `patcher.ops.rope.rope_pair_`."""
    alike = (q.dtype, q_out.dtype, q.shape[0], *q.shape[2:]) == (k.dtype, k_out.dtype, k.shape[0], *k.shape[2:])
    for inputs, outputs in [([q, k], [q_out, k_out])] if alike else [([q], [q_out]), ([k], [k_out])]:
        _launch(inputs, outputs, cos, sin, positions, transpose, in_table_dtype)


def _launch(
    inputs: list[Tensor],
    outputs: list[Tensor],
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
    transpose: bool,
    in_table_dtype: bool,
) -> None:
    x, out = inputs[0], outputs[0]
    batch, heads, tokens, head = x.shape
    cos, sin = rows_of_table(cos), rows_of_table(sin)
    at = cos if positions is None else positions.reshape(-1).contiguous()
    dtype = sin.dtype if in_table_dtype else torch.promote_types(x.dtype, cos.dtype)
    tensors = [inputs[0], outputs[0], inputs[-1], outputs[-1]]
    strides = [stride for each in tensors for stride in each.stride()]
    how = [head // 2, tokens, heads, cos.stride(0), sin.stride(0), positions is not None, transpose, *strides]
    grid = (head // 2, sum(each.shape[1] for each in inputs), batch * tokens)
    if 0 not in grid:
        names = zip("XOSNCI", (x.dtype, out.dtype, cos.dtype, sin.dtype, dtype, at.dtype), strict=True)
        library("rope", *names).rotated(*tensors, cos, sin, at, how, threads=grid, group_size=GROUP)


def rows_of_table(table: Tensor) -> Tensor:
    """``[positions, columns]`` with the elements of a row side by side."""
    rows = table.reshape(-1, table.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()
