"""SwiGLU and GEGLU against float64 autograd; parity with Unsloth's kernels is in tests/changes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn import functional

from patcher.ops import row_chunks
from patcher.ops.gated_linear_unit import gated, gated_backward, gated_backward_
from patcher.ops.geglu import gelu, gelu_and_slope, gelu_tanh, gelu_tanh_and_slope
from patcher.ops.swiglu import silu, silu_and_slope
from tests.parity import assert_accurate

UNITS = {
    "swiglu": (silu, silu_and_slope, functional.silu),
    "geglu": (gelu, gelu_and_slope, functional.gelu),
    "geglu_tanh": (gelu_tanh, gelu_tanh_and_slope, partial(functional.gelu, approximate="tanh")),
}


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_output_and_gradients_are_those_of_float64(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Odd sizes in several pieces; values up to 12, where 1 + tanh and 1 + erf have lost their digits."""
    monkeypatch.setattr(row_chunks, "ELEMENTS", 100)
    forward, with_slope, reference = UNITS[name]
    generator = torch.Generator().manual_seed(1)
    e, g, dh = (scale * torch.randn(2, 5, 33, generator=generator) for scale in (4.0, 1.0, 1.0))
    e, g, dh = e.to(dtype), g.to(dtype), dh.to(dtype)
    leaf_e, leaf_g = e.double().requires_grad_(), g.double().requires_grad_()
    exact = reference(leaf_e) * leaf_g
    exact.backward(dh.double())
    assert leaf_e.grad is not None and leaf_g.grad is not None

    assert_accurate(gated(e, g, forward), exact.detach())
    assert_accurate(gated(e.transpose(0, 1), g.transpose(0, 1), forward), exact.detach().transpose(0, 1))
    given = [x.view(10, 33) for x in (dh, e, g)]
    new = gated_backward(*given, with_slope)
    old = gated_backward_(*given, with_slope)
    for found, expected, tensor, separate in zip(
        old, (exact.detach(), leaf_g.grad, leaf_e.grad), given, new, strict=True
    ):
        assert found is tensor and torch.equal(found, separate)
        assert_accurate(found, expected.view(10, 33))
