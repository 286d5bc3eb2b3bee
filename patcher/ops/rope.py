"""Rotary position embedding, Llama's form: the two halves of a head are the two coordinates of its rotations.

``out0 = x0 * cos - x1 * sin``, ``out1 = x1 * cos + x0 * sin``; the transpose has ``-sin``.
Su et al., "RoFormer", 2021, in the layout of ``transformers``' ``rotate_half``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.compiler import is_compiling

from patcher.ops.row_chunks import row_chunks
from patcher.ops.variants.choice import Choice

VARIANT = Choice("rope")


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
    """Rotates every head of ``x`` into ``out``, which may be ``x`` itself.

    Args:
        x: ``[batch, heads, tokens, head]``, any strides; ``head`` is even.
        cos: ``[positions, >= head / 2]``; the first half of the columns is used.
        sin: as ``cos``.
        out: the shape of ``x``, any strides; ``x`` itself, or memory that does not overlap it.
        positions: row of the table for each of ``batch * tokens`` tokens; without them the token's index.
        transpose: rotates back, which is the backward.
        in_table_dtype: computes in ``sin``'s dtype; else in the wider of ``x``'s and the table's.

    Returns:
        ``out``. Each product ``x1 * sin`` is rounded to the dtype of the computation, as a 16-bit GPU kernel does;
        the other product and the sum are one multiply-add. Copies in that dtype, of the heads and of the table's rows,
        are never larger than `row_chunks.ELEMENTS` or one token.
    """
    if x.is_mps and not is_compiling() and (variant := VARIANT[x.dtype]):
        return variant.rope_(  # type: ignore[no-any-return]
            x, cos, sin, out=out, positions=positions, transpose=transpose, in_table_dtype=in_table_dtype
        )
    batch, heads, tokens, head = x.shape
    half = head // 2
    dtype = sin.dtype if in_table_dtype else torch.promote_types(x.dtype, cos.dtype)
    for samples in row_chunks(batch, heads * tokens * head):
        for part in row_chunks(tokens, (samples.stop - samples.start) * heads * head):
            rows = None if positions is None else positions.reshape(batch, tokens)[samples, part]
            c, s = (_rows_of(table, half, part, rows).to(dtype) for table in (cos, sin))
            if transpose:
                s = -s
            first, second = x[samples, :, part, :half].to(dtype), x[samples, :, part, half:].to(dtype)
            out0 = (second * s).neg_().addcmul_(first, c)
            out1 = (first * s).addcmul_(second, c) if transpose else (second * c).addcmul_(first, s)
            out[samples, :, part, :half] = out0
            out[samples, :, part, half:] = out1
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
    """`rope_` of queries into ``q_out`` and of keys into ``k_out``, which have heads of their own number."""
    if q.is_mps and not is_compiling() and (variant := VARIANT[q.dtype]):
        return variant.rope_pair_(  # type: ignore[no-any-return]
            q, k, cos, sin, q_out=q_out, k_out=k_out,
            positions=positions, transpose=transpose, in_table_dtype=in_table_dtype,
        )  # fmt: skip
    for x, out in ((q, q_out), (k, k_out)):
        rope_(x, cos, sin, out=out, positions=positions, transpose=transpose, in_table_dtype=in_table_dtype)
    return None


def _rows_of(table: Tensor, half: int, tokens: slice, positions: Tensor | None) -> Tensor:
    """The table's rows ``[batch or 1, 1, tokens, half]``: these tokens', or those at positions ``[batch, tokens]``."""
    table = table.reshape(-1, table.shape[-1])[:, :half]
    if positions is None:
        return table[tokens][None, None]
    return table.index_select(0, positions.reshape(-1)).view(len(positions), 1, -1, half)
