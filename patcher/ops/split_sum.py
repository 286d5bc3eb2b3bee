"""A matrix product whose sums are cut into parts that Metal's kernels add up rightly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LONGEST = 32766
"""A sum over more terms reads past its operands on M1 and M2 (pytorch issues 177116 and 195163)."""

TILE = 16
"""Only where both sides of the result are at least this long: smaller products take another kernel (issue 195163)."""


def is_long(rows: int, terms: int, columns: int) -> bool:
    """Whether a product (rows, terms) @ (terms, columns) is one that must be split."""
    return terms > LONGEST and rows >= TILE and columns >= TILE


def split_sum(product: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` as a sum of products over parts of the terms.

    Args:
        product: computes one part: ``torch.mm`` or ``torch.bmm``.
        a: (..., m, k).
        b: (..., k, n), of the same dtype.

    Returns:
        (..., m, n) in the operands' dtype, in fp32 where that has 16 bits: each part has been rounded to it, the sum
        has not.
    """
    terms = a.size(-1)
    parts = -(-terms // LONGEST)
    length = -(-terms // parts)
    total = _wide(product(a.narrow(-1, 0, length), b.narrow(-2, 0, length)))
    for start in range(length, terms, length):
        part = min(length, terms - start)
        total.add_(product(a.narrow(-1, start, part), b.narrow(-2, start, part)))
    return total


def _wide(part: Tensor) -> Tensor:
    return part.float() if part.dtype in (torch.float16, torch.bfloat16) else part
