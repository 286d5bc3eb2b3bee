"""The head norm and the rotation together against float64; parity with Unsloth is in tests/changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from patcher.ops import row_chunks
from patcher.ops.qk_norm_rope import qk_norm_rope, qk_norm_rope_backward
from tests.ops.rotation import DTYPES, HEAD, heads, rotated_in_float64, tables
from tests.parity import assert_accurate


@pytest.fixture(autouse=True)
def _one_token_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_chunks, "ELEMENTS", 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("positions", [None, torch.tensor([[10, 0, 3, 3, 1], [0, 1, 2, 0, 1]])])
def test_norm_and_rotation_are_those_ofrotated_in_float64(dtype: torch.dtype, positions: Tensor | None) -> None:
    """Output and gradient of both steps together, from strided heads; up to 6 roundings one after another."""
    x, grad = heads(dtype, 4).transpose(1, 2), heads(dtype, 5).transpose(1, 2)
    weight, (cos, sin) = torch.linspace(0.5, 1.5, HEAD).to(dtype), tables(dtype)
    y, rstd = qk_norm_rope(x, weight, cos, sin, 1e-6, positions)
    dx = qk_norm_rope_backward(grad, x, weight, rstd, cos, sin, positions)
    leaf = x.double().requires_grad_()
    normed = leaf * torch.rsqrt(leaf.square().mean(-1, keepdim=True) + 1e-6) * weight.double()
    exact = rotated_in_float64(normed.transpose(1, 2), cos, sin, positions).transpose(1, 2)
    exact.backward(grad.double())
    assert leaf.grad is not None and y.is_contiguous() and dx.dtype == dtype
    assert_accurate(y, exact.detach(), roundings=6)
    assert_accurate(dx, leaf.grad, roundings=8)
