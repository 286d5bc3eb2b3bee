"""The residual added and RMSNorm in one step of decoding, against Unsloth's own Triton kernel."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.oracle import INTERPRETED, PATCHED
from tests.parity import assert_parity

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
EPS = 1e-6


def _both(case: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    found, expected = (oracle.call(f"rms_layernorm:{case}", *args, **kwargs) for oracle in (PATCHED, INTERPRETED))
    return found, expected


def _randn(*shape: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("add", [True, False])
def test_the_fused_add_of_a_decode_step(dtype: torch.dtype, add: bool) -> None:
    """Both tensors are overwritten as upstream's kernel does, also a strided slice of the batched MLP's output."""
    X, residual = _randn(3, 2, 40, dtype=dtype, seed=1)[:, :1], _randn(3, 1, 40, dtype=dtype, seed=2)
    found, expected = _both("add_inference", X, residual, torch.linspace(0.5, 2, 40).to(dtype), EPS, add=add)
    assert found["same"] and torch.equal(found["residual"], expected["residual"])
    assert_parity(found["X"], expected["X"])


def test_the_fused_add_is_offered_off_cuda() -> None:
    """Upstream refuses every device but CUDA; the replacement refuses only shapes and devices that do not match."""
    X, W = torch.ones(2, 1, 8), torch.ones(8)
    answers = [(X, X.clone(), W), (X, X[:1], W), (X, X.clone(), W[:4]), (X, X.clone().to("meta"), W)]
    found, expected = _both("add_inference_ok", answers)
    assert found == [True, False, False, False]
    assert expected == [False] * 4
