"""Unsloth's SwiGLU, patched, against its own Triton kernels; what is compared is in gated.py."""

from __future__ import annotations

import pytest
import torch

from tests.changes.unsloth import gated

KINDS = ["swiglu"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_parity_of_the_forward(kind: str, dtype: torch.dtype) -> None:
    gated.assert_forward(kind, dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_parity_of_the_backward_and_its_memory(kind: str, dtype: torch.dtype) -> None:
    gated.assert_backward_and_its_memory(kind, dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_parity_of_mixed_dtypes(kind: str) -> None:
    gated.assert_mixed_dtypes(kind)
