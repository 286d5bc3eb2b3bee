"""RMSNorm of Unsloth, patched, against its own Triton kernels: values, gradients, memory that is written."""

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


@pytest.mark.parametrize("gemma", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [7, 100, 640])
def test_parity_with_a_trained_weight(dtype: torch.dtype, gemma: bool, columns: int) -> None:
    """Narrow rows take upstream's multi-row kernel, others its one-row kernel; at most 640 terms in a sum."""
    X, dY = _randn(2, 5, columns, dtype=dtype, seed=1), _randn(2, 5, columns, dtype=dtype, seed=2)
    W = (_randn(columns, dtype=dtype, seed=3) + 1).requires_grad_()
    found, expected = _both("forward_backward", X, W, dY, EPS, gemma=gemma)
    for name in ("Y", "dX", "dW"):
        assert_parity(found[name], expected[name])
    assert torch.equal(found["dY"], dY), "the incoming gradient belongs to autograd"


@pytest.mark.parametrize("gemma", [False, True])
def test_strided_input_and_mixed_dtypes(gemma: bool) -> None:
    """A bf16 activation with an fp32 weight (upcast norms) and every second column of a wider tensor."""
    X, dY = _randn(3, 4, 60, dtype=torch.bfloat16, seed=1)[..., ::2], _randn(3, 4, 30, dtype=torch.bfloat16, seed=2)
    W = _randn(30, dtype=torch.float32, seed=3).requires_grad_()
    found, expected = _both("forward_backward", X, W, dY, EPS, gemma=gemma)
    assert expected["dW"].dtype == torch.float32
    for name in ("Y", "dX", "dW"):
        assert_parity(found[name], expected[name])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradients_memory_is_reused_when_the_caller_allows_it(dtype: torch.dtype) -> None:
    """``reuse_grad``: dX is written over dY, as upstream's kernel does; with a frozen weight there is no dW."""
    X, dY = _randn(2, 5, 64, dtype=dtype, seed=1), _randn(2, 5, 64, dtype=dtype, seed=2)
    found, expected = _both("forward_backward", X, torch.ones(64, dtype=dtype), dY, EPS, reuse_grad=True)
    assert found["dW"] is None and expected["dW"] is None
    assert torch.equal(found["dY"], found["dX"]) and torch.equal(expected["dY"], expected["dX"])
    assert_parity(found["dX"], expected["dX"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gemma", [False, True])
def test_the_backward_from_the_saved_output(dtype: torch.dtype, gemma: bool) -> None:
    """``UNSLOTH_RMSNORM_SAVE_OUTPUT``: the same gradient as upstream's kernel makes from Y."""
    X, dY = _randn(2, 5, 48, dtype=dtype, seed=1), _randn(2, 5, 48, dtype=dtype, seed=2)
    W = torch.linspace(0.5, 2, 48).to(dtype)
    found, expected = _both("forward_backward", X, W, dY, EPS, gemma=gemma, from_y=True)
    assert_parity(found["dX"], expected["dX"])


def test_transformers_modules_are_patched_and_restored() -> None:
    """``patch_rms_layernorm`` installs a module that runs on the replacement; ``unpatch_rms_layernorm`` removes it."""
    X, W = _randn(2, 3, 24, dtype=torch.bfloat16, seed=1), _randn(24, dtype=torch.bfloat16, seed=2)
    found, expected = _both("llama_module", X, W, EPS)
    assert found["names"] == expected["names"] == ["LlamaRMSNorm", "Unsloth_LlamaRMSNorm", "LlamaRMSNorm"]
    assert_parity(found["Y"], expected["Y"])


def test_as_much_is_saved_for_the_backward_as_upstream_saves() -> None:
    """The 16-bit input, the weight and four bytes per row: no fp32 copy of an activation is kept."""
    X, W = _randn(4, 8, 32, dtype=torch.bfloat16, seed=1), torch.ones(32, dtype=torch.bfloat16)
    found, expected = _both("saved_bytes", X, W, EPS)
    assert found["bytes"] == expected["bytes"] == 2 * X.numel() * 2 + 2 * 4 * 32 + W.numel() * 2


def test_checkpointing_recomputes_the_same_gradient() -> None:
    """Bit for bit: the statistics are functions of the input alone."""
    X, W = _randn(4, 8, 32, dtype=torch.bfloat16, seed=1), torch.ones(32, dtype=torch.bfloat16)
    plain = PATCHED.call("rms_layernorm:saved_bytes", X, W, EPS)
    again = PATCHED.call("rms_layernorm:saved_bytes", X, W, EPS, checkpoint=True)
    assert torch.equal(plain["dX"], again["dX"])
