"""LayerNorm against float64 autograd; parity with Unsloth's kernels is in tests/changes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from patcher.ops import row_chunks
from patcher.ops.layer_norm import layer_norm, layer_norm_backward
from tests.parity import assert_accurate


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("with_bias", [True, False])
def test_output_and_gradients_are_those_of_float64(
    dtype: torch.dtype, with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Odd sizes, strided rows far from zero, several pieces, fp32 weights: at most 4 roundings."""
    monkeypatch.setattr(row_chunks, "ELEMENTS", 100)
    generator = torch.Generator().manual_seed(1)
    x = (torch.randn(7, 74, generator=generator) + 3).to(dtype)[:, ::2]
    grad = torch.randn(7, 37, generator=generator).to(dtype)
    weight = torch.rand(37, generator=generator) + 0.5
    bias = torch.randn(37, generator=generator) if with_bias else None

    y, mean, rstd = layer_norm(x, weight, bias, 1e-5)
    dx, dw, db = layer_norm_backward(grad, x, weight, mean, rstd, (True, True, with_bias))
    leaves = [x.double().requires_grad_(), weight.double().requires_grad_()]
    if bias is not None:
        leaves.append(bias.double().requires_grad_())
    exact = functional.layer_norm(leaves[0], (37,), *leaves[1:], eps=1e-5)
    exact.backward(grad.double())

    assert y.dtype == dx.dtype == dtype
    assert_accurate(y, exact.detach())
    for found, leaf in zip((dx, dw, db), leaves, strict=False):
        # The mean of 37 values near 3 errs by some eps of fp32, the differences from it are near 1.
        assert found is not None and leaf.grad is not None
        assert_accurate(found, leaf.grad, roundings=16 if found.dtype == torch.float32 else 4)
