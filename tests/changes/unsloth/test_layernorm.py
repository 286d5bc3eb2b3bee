"""LayerNorm of Unsloth, patched, against its own Triton kernels."""

from __future__ import annotations

import pytest
import torch

from tests.oracle import INTERPRETED, PATCHED
from tests.parity import assert_parity


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("columns", [9, 320])
@pytest.mark.parametrize(("train_weight", "train_bias"), [(True, True), (False, False), (True, None), (False, True)])
def test_parity(dtype: torch.dtype, columns: int, train_weight: bool, train_bias: bool | None) -> None:
    """Every combination of trained, frozen and absent parameters; strided input around 2; up to 320 terms."""
    generator = torch.Generator().manual_seed(columns)
    X = (torch.randn(2, 5, 2 * columns, generator=generator) + 2).to(dtype)[..., ::2]
    dY = torch.randn(2, 5, columns, generator=generator).to(dtype)
    W = torch.rand(columns, generator=generator).to(dtype).requires_grad_(train_weight)
    b = None
    if train_bias is not None:
        b = torch.randn(columns, generator=generator).to(dtype).requires_grad_(train_bias)
    found, expected = (
        oracle.call("layernorm:forward_backward", X, W, b, dY, 1e-5) for oracle in (PATCHED, INTERPRETED)
    )
    for name, value in expected.items():
        if value is None:
            assert found[name] is None
        else:
            assert_parity(found[name], value)
