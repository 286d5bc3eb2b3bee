"""Operators whose numbers on a Mac are not the CPU's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.simulator.conftest import TORCH

HALVES = [torch.float16, torch.bfloat16]
IN_ONE_KERNEL = TORCH not in ("2.13", "2.14")
"""From 2.15 on powers and softmax have Metal kernels, which round once."""


def logits(dtype: torch.dtype) -> Tensor:
    return torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).mul(4).to(dtype)


def step_by_step(x: Tensor, dim: int) -> Tensor:
    """Activation.mm, log_softmax_mps_out: maximum, difference, exponential, sum, logarithm, difference."""
    shifted = x - x.amax(dim, keepdim=True)
    return shifted - shifted.exp().sum(dim, keepdim=True).log()


@pytest.mark.parametrize("dim", [0, -1])
@pytest.mark.parametrize("dtype", HALVES)
def test_log_softmax_rounds_at_each_step_in_half_precision(dtype: torch.dtype, dim: int) -> None:
    """Of a likely token the error is one of the maximum's last place, not of the result's."""
    x = logits(dtype)
    ours, cpus = torch.log_softmax(x.to("mps"), dim).cpu(), torch.log_softmax(x, dim)
    assert torch.equal(ours, cpus if IN_ONE_KERNEL else step_by_step(x, dim))
    assert IN_ONE_KERNEL or not torch.equal(ours, cpus)
    out = torch.empty_like(x, device="mps")
    assert torch.equal(torch.ops.aten._log_softmax.out(x.to("mps"), dim, False, out=out).cpu(), ours)


@pytest.mark.parametrize("dtype", HALVES)
def test_its_gradient_does_too(dtype: torch.dtype) -> None:
    """log_softmax_backward_mps_out: exponential, sum, product, difference."""
    x, weight = logits(dtype), logits(dtype).flip(0)
    here, there = x.to("mps").requires_grad_(), x.clone().requires_grad_()
    torch.log_softmax(here, -1).backward(weight.to("mps"))
    torch.log_softmax(there, -1).backward(weight)
    assert here.grad is not None and there.grad is not None
    if IN_ONE_KERNEL:
        assert torch.equal(here.grad.cpu(), there.grad)
    else:
        assert torch.equal(here.grad.cpu(), weight - step_by_step(x, -1).exp() * weight.sum(-1, keepdim=True))
        assert not torch.equal(here.grad.cpu(), there.grad)


def test_in_float32_it_is_the_cpus() -> None:
    """There a step's rounding is that of the dtype."""
    x = logits(torch.float32)
    assert torch.equal(torch.log_softmax(x.to("mps"), -1).cpu(), torch.log_softmax(x, -1))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64])
def test_zero_to_a_negative_integer_power_is_undefined(dtype: torch.dtype) -> None:
    """Before 2.15 it is not the CPU's 0; every other power is the CPU's, and so are those of floats."""
    base, exponent = (
        torch.tensor([0, 0, 0, 1, -1, 2, 3], dtype=dtype),
        torch.tensor([-1, -2, 0, -3, -3, -1, 4], dtype=dtype),
    )
    expected = torch.pow(base, exponent)
    if not IN_ONE_KERNEL:
        expected[:2] = torch.iinfo(dtype).max
    ours = torch.pow(base.to("mps"), exponent.to("mps"))
    assert torch.equal(ours.cpu(), expected) and ours.dtype == dtype
    assert torch.equal(base.to("mps").pow_(exponent.to("mps")).cpu(), expected)
    assert torch.equal(torch.pow(0, exponent.to("mps")).cpu()[:2], expected[:2])
    floats = torch.pow(base.float().to("mps"), exponent.to("mps"))
    assert torch.equal(floats.cpu(), torch.pow(base.float(), exponent))


@pytest.mark.parametrize("dtype", HALVES)
def test_the_gradient_of_the_largest_difference_finds_it(dtype: torch.dtype) -> None:
    """cdist with p = inf: the distance is computed once more in float32, where rounding has not moved it."""
    x, y = logits(dtype)[:, :8], logits(dtype).flip(1)[:3, :8]
    here, there = x.to("mps").requires_grad_(), x.float().requires_grad_()
    torch.cdist(here, y.to("mps"), p=float("inf")).sum().backward()
    torch.cdist(there, y.float(), p=float("inf")).sum().backward()
    assert here.grad is not None and there.grad is not None
    assert torch.equal(here.grad.cpu(), there.grad.to(dtype)) and here.grad.abs().sum() > 0


def test_the_nanmedian_of_nothing_is_zero() -> None:
    """In 2.13, which looks for it before the row; later it is NaN, as on the CPU. Other rows are the CPU's."""
    x = torch.full((3, 4), float("nan"))
    x[1, 2], x[2] = 5.0, torch.arange(4.0)
    values, indices = torch.nanmedian(x.to("mps"), 1)
    expected = torch.nanmedian(x, 1)
    if TORCH == "2.13":
        expected.values[0], expected.indices[0] = 0, 0
    assert torch.equal(values.cpu().nan_to_num(-1), expected.values.nan_to_num(-1))
    assert torch.equal(indices.cpu(), expected.indices)
    assert torch.nanmedian(x.to("mps"), 1, keepdim=True).values.shape == (3, 1)


def test_the_trace_of_a_bool_matrix_is_an_integer() -> None:
    """As its sum is; the CPU refuses it."""
    trace = torch.tensor([[True, False], [True, True]], device="mps").trace()
    assert trace.dtype == torch.int64 and trace.item() == 2
