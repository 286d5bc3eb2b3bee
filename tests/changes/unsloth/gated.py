"""Unsloth's gated units, patched, against its own Triton kernels: values and memory that is written."""

from __future__ import annotations

from typing import Any

import torch

from tests.oracle import INTERPRETED, PATCHED
from tests.parity import assert_parity


def _both(case: str, *args: Any) -> tuple[Any, Any]:
    found, expected = (oracle.call(f"gated:{case}", *args) for oracle in (PATCHED, INTERPRETED))
    return found, expected


def _randn(*shape: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    return (2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def assert_forward(kind: str, dtype: torch.dtype) -> None:
    """A number of elements that no block size divides; the activation and the product are rounded."""
    e, g = _randn(2, 7, 149, dtype=dtype, seed=1), _randn(2, 7, 149, dtype=dtype, seed=2)
    found, expected = _both("forward", kind, e, g)
    assert_parity(found, expected, steps=2)


def assert_backward_and_its_memory(kind: str, dtype: torch.dtype) -> None:
    """h, df and de end up in DW, e and g, and those three tensors are returned."""
    DW, e, g = (_randn(14, 149, dtype=dtype, seed=seed) for seed in (1, 2, 3))
    found, expected = _both("backward", kind, DW, e, g)
    assert found["same"] and expected["same"]
    for name in ("h", "df", "de"):
        assert_parity(found[name], expected[name], steps=2)


def assert_mixed_dtypes(kind: str) -> None:
    """An fp32 gradient with bf16 activations, as autocast hands them over; each memory keeps its dtype."""
    DW, e, g = (_randn(6, 33, dtype=dtype, seed=1) for dtype in (torch.float32, torch.bfloat16, torch.bfloat16))
    found, expected = _both("backward", kind, DW, e, g)
    for name in ("h", "df", "de"):
        assert_parity(found[name], expected[name], steps=2)
