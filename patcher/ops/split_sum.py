"""Matrix products whose sums are cut into parts that Metal's kernels add up rightly.

This is the only file that knows how long a sum may be and where it is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

FIRST_WRONG = 32767
"""From this number of terms on, a sum reads past its operands on M1 and M2 (pytorch issues 177116, 193487, 195163)."""

TILE = 16
"""Only where both sides of the result are at least this long: smaller products take another kernel (issue 195163)."""


def is_long(rows: int, terms: int, columns: int) -> bool:
    """Whether a product (rows, terms) @ (terms, columns) is one that must be split."""
    return terms >= FIRST_WRONG and rows >= TILE and columns >= TILE


def parts_of_sum(terms: int) -> Iterator[slice]:
    """Consecutive parts of a sum: as few as may be, each below `FIRST_WRONG` terms, about equally long."""
    length = -(-terms // max(1, -(-terms // (FIRST_WRONG - 1))))
    for start in range(0, terms, max(1, length)):
        yield slice(start, min(start + length, terms))


def split_sum(product: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` as a sum of products over parts of the terms.

    Args:
        product: computes one part: ``torch.mm`` or ``torch.bmm``.
        a: (..., m, k) with ``k`` of at least 1.
        b: (..., k, n), of the same dtype.

    Returns:
        (..., m, n) in the operands' dtype, in fp32 where that has 16 bits: each part has been rounded to it, the sum
        has not.
    """
    first, *others = parts_of_sum(a.size(-1))
    total = _wide(product(a[..., first], b[..., first, :]))
    for part in others:
        total.add_(product(a[..., part], b[..., part, :]))
    return total


def matmul_split(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` in the operands' dtype, (..., m, k) @ (..., k, n); a long sum in parts, for any ``m`` and ``n``."""
    if a.size(-1) < FIRST_WRONG:
        return torch.matmul(a, b)
    return split_sum(torch.matmul, a, b).to(a.dtype)


def addmm_fp32_(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``total += a @ b`` in place for a fp32 ``total``, (m, k) @ (k, n); a long sum in parts.

    The products of bf16 or fp16 operands are not rounded first.
    """
    for part in parts_of_sum(a.size(1)):
        total.addmm_(a[:, part].to(torch.float32), b[part].to(torch.float32))
    return total


def _wide(part: Tensor) -> Tensor:
    return part.float() if part.dtype in (torch.float16, torch.bfloat16) else part
