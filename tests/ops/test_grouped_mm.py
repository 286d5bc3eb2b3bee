"""Products of rows grouped by expert against float64; parity with upstream's kernels is in tests/changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from patcher.ops.grouped_mm import grouped_mm, grouped_mm_weight_
from tests.parity import assert_accurate

SIZES = torch.tensor([4, 0, 7])
"""Rows of three experts, one of which has none; two rows belong to nobody."""


def _inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, w, grad = (torch.randn(*shape, generator=generator) for shape in ((13, 16), (3, 24, 16), (13, 24)))
    return x.to(dtype), w.to(dtype), grad.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_products_and_gradients_are_those_of_float64(dtype: torch.dtype) -> None:
    """fp32 sums of up to 24 terms, rounded once; rows of nobody are zero, an idle expert's weight is as it was."""
    x, w, grad = _inputs(dtype)
    y, grad_x = grouped_mm(x, w, SIZES), grouped_mm(grad, w, SIZES, transpose=False)
    total = grouped_mm_weight_(torch.ones_like(w), x, grad, SIZES)
    assert y.dtype == grad_x.dtype == total.dtype == dtype
    roundings = 48 if dtype == torch.float32 else 2
    for expert, rows in ((0, slice(0, 4)), (2, slice(4, 11))):
        wide = w[expert].double()
        assert_accurate(y[rows], x[rows].double() @ wide.t(), roundings=roundings)
        assert_accurate(grad_x[rows], grad[rows].double() @ wide, roundings=roundings)
        assert_accurate(total[expert], 1 + grad[rows].double().t() @ x[rows].double(), roundings=roundings)
    assert y[11:].eq(0).all() and grad_x[11:].eq(0).all() and total[1].eq(1).all()


def test_rows_are_rounded_to_the_weights_dtype() -> None:
    """fp32 rows meet bf16 weights: the product is that of the rounded rows, in fp32."""
    x, w, _ = _inputs(torch.float32)
    y = grouped_mm(x, w.bfloat16(), SIZES)
    assert y.dtype == torch.float32
    assert_accurate(y[:4], x[:4].bfloat16().double() @ w[0].bfloat16().double().t(), roundings=48)
