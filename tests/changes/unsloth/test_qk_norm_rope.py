"""Qwen3's head norm with rotary embedding, patched, against Unsloth's own Triton kernels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.oracle import INTERPRETED, PATCHED
from tests.parity import assert_parity

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
BATCH, TOKENS, HEAD, EPS = 2, 5, 16, 1e-6
POSITIONS = torch.tensor([[0, 1, 2, 0, 1], [7, 8, 8, 0, 3]])


def _inputs(dtype: torch.dtype, tokens: int = TOKENS, table_dtype: torch.dtype | None = None) -> tuple[Tensor, ...]:
    """Q, K (a slice of a fused projection), their weights, cos and sin."""
    generator = torch.Generator().manual_seed(1)
    Q = torch.randn(BATCH, tokens, 4, HEAD, generator=generator).to(dtype)
    K = torch.randn(BATCH, tokens, 4, HEAD, generator=generator).to(dtype)[:, :, 1:3]
    Wq, Wk = (torch.rand(HEAD, generator=generator).to(dtype) + 0.5 for _ in "qk")
    angles = torch.arange(9)[:, None] / 100 ** torch.linspace(0, 1, HEAD // 2)
    angles = torch.cat((angles, angles), -1)
    return Q, K, Wq, Wk, angles.cos().to(table_dtype or dtype), angles.sin().to(table_dtype or dtype)


def _gradients(Q: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    dQ, dK = (torch.randn(x.shape, generator=generator).to(x.dtype).transpose(1, 2) for x in (Q, K))
    return dQ, dK


def _assert_parity(found: Tensor, expected: Tensor, steps: float = 2) -> None:
    """The kernel rounds both products and their difference, the op one product and a multiply-add.

    In 16 bits one product's rounding, half an eps of at most sqrt(2) times the head's largest element, and one step
    of the result: together less than 2 eps of it. A gradient then goes through weights up to 1.5 and the norm: 4 eps.
    """
    if expected.dtype == torch.float32:
        assert_parity(found, expected)
        return
    scale = expected.double().abs().amax(-1, keepdim=True)
    assert ((found.double() - expected.double()).abs() <= steps * torch.finfo(expected.dtype).eps * scale).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("positions", [None, POSITIONS])
def test_parity_of_the_fused_function(dtype: torch.dtype, positions: Tensor | None) -> None:
    """Outputs and gradients of ``Fast_QK_Norm_RoPE``, which upstream runs on CUDA, and of the entry point here."""
    inputs = _inputs(dtype)
    gradients = _gradients(*inputs[:2])
    expected = INTERPRETED.call("qk_norm_rope:fused", *inputs, *gradients, EPS, positions)
    found = PATCHED.call("qk_norm_rope:fast", *inputs, *gradients, EPS, positions)
    assert "Fast_QK_Norm_RoPEBackward" in found["nodes"]
    assert found["dWq"] is None and found["dWk"] is None
    for name in ("Q", "K", "dQ", "dK"):
        assert found[name].dtype == expected[name].dtype
        _assert_parity(found[name], expected[name], steps=4 if name.startswith("d") else 2)


@pytest.mark.parametrize("positions", [None, POSITIONS])
def test_parity_for_a_table_of_another_dtype(positions: Tensor | None) -> None:
    """fp32 heads, bf16 tables: without positions the heads are rounded to bf16 before they are rotated."""
    inputs = _inputs(torch.float32, table_dtype=torch.bfloat16)
    gradients = _gradients(*inputs[:2])
    expected = INTERPRETED.call("qk_norm_rope:fused", *inputs, *gradients, EPS, positions)
    found = PATCHED.call("qk_norm_rope:fast", *inputs, *gradients, EPS, positions)
    for name in ("Q", "K"):
        scale = expected[name].abs().amax(-1, keepdim=True)
        steps = 2 * torch.finfo(torch.bfloat16 if positions is None else torch.float32).eps
        assert ((found[name] - expected[name]).abs() <= steps * scale).all()
        assert found[name].equal(found[name].bfloat16().float()) == (positions is None)
        assert_parity(found[f"d{name}"], expected[f"d{name}"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_trained_weights_take_the_unfused_pair(dtype: torch.dtype) -> None:
    """Full fine-tuning: the weights get gradients, through upstream's RMSNorm and rotary embedding."""
    Q, K, Wq, Wk, cos, sin = _inputs(dtype)
    arguments = (Q, K, Wq.requires_grad_(), Wk, cos, sin, *_gradients(Q, K), EPS)
    found, expected = (oracle.call("qk_norm_rope:fast", *arguments) for oracle in (PATCHED, INTERPRETED))
    assert "Fast_QK_Norm_RoPEBackward" not in found["nodes"]
    for name in ("Q", "K", "dQ", "dK", "dWq"):
        _assert_parity(found[name], expected[name])


def test_positions_given_once_hold_for_every_row() -> None:
    """``[1, tokens]`` for a batch of two, as transformers passes them."""
    inputs = _inputs(torch.float32)
    gradients = _gradients(*inputs[:2])
    once = PATCHED.call("qk_norm_rope:fast", *inputs, *gradients, EPS, POSITIONS[1:])
    each = PATCHED.call("qk_norm_rope:fast", *inputs, *gradients, EPS, POSITIONS[1:].expand(2, -1))
    assert all(torch.equal(once[name], each[name]) for name in ("Q", "K", "dQ", "dK"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_decode_step(dtype: torch.dtype) -> None:
    """New tensors with one token each, as the fused forward gives; upstream itself answers None off CUDA."""
    Q, K, Wq, Wk, cos, sin = _inputs(dtype, tokens=1)
    positions = torch.tensor([[8], [3]])
    found = PATCHED.call("qk_norm_rope:decode", Q, K, Wq, Wk, cos, sin, positions, EPS)
    expected = INTERPRETED.call("qk_norm_rope:fused", Q, K, Wq, Wk, cos, sin, *_gradients(Q, K), EPS, positions)
    assert INTERPRETED.call("qk_norm_rope:decode", Q, K, Wq, Wk, cos, sin, positions, EPS) is None
    for tensor, name in zip(found, ("Q", "K"), strict=True):
        _assert_parity(tensor, expected[name])


def test_a_decode_step_that_does_not_fit_is_left_to_upstream() -> None:
    """None for two tokens, for no positions, and for weights of another dtype."""
    Q, K, Wq, Wk, cos, sin = _inputs(torch.float32, tokens=1)
    one, two = torch.zeros(BATCH, 1, dtype=torch.int64), _inputs(torch.float32, tokens=2)
    for arguments in (
        (*two, one),
        (Q, K, Wq, Wk, cos, sin, None),
        (Q, K, Wq.bfloat16(), Wk, cos, sin, one),
        (Q, K, Wq, Wk, cos[:, :8], sin[:, :8], one),
    ):
        assert PATCHED.call("qk_norm_rope:decode", *arguments, EPS) is None
