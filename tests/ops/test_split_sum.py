"""Long sums are computed in parts that Metal's kernels add up rightly."""

from __future__ import annotations

import pytest
import torch

from patcher.ops import split_sum as op
from patcher.ops.split_sum import addmm_fp32_, is_long, matmul_split, parts_of_sum, split_sum
from tests.parity import assert_accurate


@pytest.mark.parametrize(("terms", "parts"), [(0, 0), (1, 1), (32766, 1), (32767, 2), (65532, 2), (65533, 3)])
def test_the_parts_cover_every_term_once(terms: int, parts: int) -> None:
    """No part more than is needed, none of 32767 terms or more."""
    found = list(parts_of_sum(terms))
    assert len(found) == parts
    assert [0, *(part.stop for part in found)] == [*(part.start for part in found), terms]
    assert all(0 < part.stop - part.start < 32767 for part in found)


def test_what_needs_splitting() -> None:
    """32767 terms, where both sides of the result have 16: pytorch issue 195163."""
    assert is_long(16, 32767, 16)
    assert not is_long(16, 32766, 16) and not is_long(15, 32767, 16) and not is_long(16, 32767, 15)


@pytest.mark.parametrize("terms", [32767, 65533, 100_000])
def test_a_sum_is_cut_into_parts_that_are_short_enough(terms: int) -> None:
    """No part has more than 32766 terms, they are about equal, and together they are the sum."""
    lengths = []

    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        lengths.append(a.size(-1))
        return a @ b

    ones = torch.ones(2, terms, dtype=torch.bfloat16)
    total = split_sum(product, ones, ones.t())
    assert sum(lengths) == terms and max(lengths) <= 32766 and max(lengths) - min(lengths) <= len(lengths)
    assert total.dtype == torch.float32
    # bf16 rounds each of the parts to 8 bits.
    assert (total - terms).abs().max() <= terms * torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("limit", [8, 32767])
def test_products_in_parts_are_those_of_float64(
    dtype: torch.dtype, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A product in its operands' dtype, each part rounded to it; and one that is added in fp32 without roundings."""
    monkeypatch.setattr(op, "FIRST_WRONG", limit)
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 5, 30, generator=generator).to(dtype), torch.randn(2, 30, 4, generator=generator).to(dtype)
    product = matmul_split(a, b)
    assert product.dtype == dtype
    assert_accurate(product, a.double() @ b.double(), roundings=32 if dtype == torch.float32 else 8)  # 30 terms
    total = torch.ones(5, 4)
    assert addmm_fp32_(total, a[0], b[0]) is total
    assert_accurate(total, 1 + a[0].double() @ b[0].double(), roundings=32)
