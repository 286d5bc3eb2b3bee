"""RMSNorm against float64 autograd; parity with Unsloth's kernels is in tests/changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from patcher.ops import row_chunks
from patcher.ops.rms_norm import add_rms_norm_, rms_norm, rms_norm_backward
from tests.parity import assert_accurate

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
EPS = 1e-6


@pytest.fixture(autouse=True)
def _several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_chunks, "ELEMENTS", 100)


def _inputs(rows: int, columns: int, dtype: torch.dtype, weight_dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows * columns)
    x = torch.randn(rows, 2 * columns, generator=generator).to(dtype)[:, ::2]  # strided
    weight = (torch.rand(columns, generator=generator) + 0.5).to(weight_dtype)
    return x, weight, torch.randn(rows, columns, generator=generator).to(dtype)


def _float64(x: Tensor, weight: Tensor, grad: Tensor, offset: bool) -> tuple[Tensor, Tensor, Tensor]:
    x, weight = x.double().requires_grad_(), weight.double().requires_grad_()
    y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * (weight + 1 if offset else weight)
    dx, dw = torch.autograd.grad(y, (x, weight), grad.double())
    return y.detach(), dx, dw


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weight_dtype", [torch.float32, None])
def test_output_and_gradients_are_those_of_float64(
    dtype: torch.dtype, weight_dtype: torch.dtype | None, offset: bool
) -> None:
    """Odd sizes, strided rows, several pieces, mixed dtypes: at most the roundings that the formula has."""
    x, weight, grad = _inputs(7, 37, dtype, weight_dtype or dtype)
    y, rstd = rms_norm(x, weight, EPS, unit_offset=offset)
    dx = torch.empty(x.shape, dtype=dtype)
    dw = rms_norm_backward(grad, x, weight, rstd, grad_input=dx, unit_offset=offset, needs_grad_weight=True)
    assert dw is not None and dw.dtype == weight.dtype and y.dtype == dtype
    exact_y, exact_dx, exact_dw = _float64(x, weight, grad, offset)
    assert_accurate(y, exact_y)
    assert_accurate(dx, exact_dx)
    assert_accurate(dw, exact_dw)


@pytest.mark.parametrize("offset", [False, True])
def test_the_backward_can_start_from_the_output(offset: bool) -> None:
    """In fp32 the normalised row that is recomputed as y / w gives the gradient that the input gives."""
    x, weight, grad = _inputs(5, 33, torch.float32, torch.float32)
    y, rstd = rms_norm(x, weight, EPS, unit_offset=offset)
    dx = torch.empty_like(grad)
    assert rms_norm_backward(grad, y, weight, rstd, grad_input=dx, unit_offset=offset, saved_is_output=True) is None
    assert_accurate(dx, _float64(x, weight, grad, offset)[1])


def test_the_gradient_may_be_written_over_the_one_that_came_in() -> None:
    """The same bits as with separate memory, dw included, although dx overwrites grad piece by piece."""
    x, weight, grad = _inputs(9, 40, torch.bfloat16, torch.bfloat16)
    _, rstd = rms_norm(x, weight, EPS)
    separate = torch.empty_like(grad)
    dw = rms_norm_backward(grad, x, weight, rstd, grad_input=separate, needs_grad_weight=True)
    dw_in_place = rms_norm_backward(grad, x, weight, rstd, grad_input=grad, needs_grad_weight=True)
    assert torch.equal(grad, separate)
    assert dw is not None and dw_in_place is not None and torch.equal(dw, dw_in_place)


def test_no_rows_give_no_rows_and_a_zero_weight_gradient() -> None:
    """A batch that is empty after masking does not stop training."""
    x, weight, grad = _inputs(0, 8, torch.float32, torch.float32)
    y, rstd = rms_norm(x, weight, EPS)
    dw = rms_norm_backward(grad, x, weight, rstd, grad_input=torch.empty_like(grad), needs_grad_weight=True)
    assert y.shape == (0, 8) and dw is not None and dw.eq(0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("add", [True, False])
def test_add_rms_norm_overwrites_both_tensors(dtype: torch.dtype, add: bool) -> None:
    """A strided x and its residual end as norm and sum; the sum is rounded before it is normalised."""
    x, weight, residual = _inputs(3, 24, dtype, dtype)
    total = (x.float() + residual.float()).to(dtype) if add else x.clone()
    y = add_rms_norm_(x, residual, weight, EPS, add=add)
    assert y is x and torch.equal(residual, total)
    assert_accurate(y, _float64(total, weight, total, False)[0])
