"""Rotary embedding of Unsloth, patched, against its own Triton kernel: values, gradients, memory that is written."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.oracle import INTERPRETED, PATCHED
from tests.parity import assert_parity

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
BATCH, TOKENS, HEADS, KEY_HEADS, HEAD = 2, 6, 5, 3, 20
POSITIONS = torch.tensor([[0, 1, 2, 0, 1, 2], [7, 8, 8, 0, 3, 1]], dtype=torch.int32)


def _both(case: str, *args: Any) -> tuple[Any, Any]:
    found, expected = (oracle.call(f"rope_embedding:{case}", *args) for oracle in (PATCHED, INTERPRETED))
    return found, expected


def _heads(heads: int, dtype: torch.dtype, layout: str, seed: int) -> Tensor:
    """``[batch, heads, tokens, head]``: contiguous, a transposed projection, or a slice of a fused QKV projection."""
    generator = torch.Generator().manual_seed(seed)
    if layout == "contiguous":
        return torch.randn(BATCH, heads, TOKENS, HEAD, generator=generator).to(dtype)
    wide = torch.randn(BATCH, TOKENS, heads + (2 if layout == "fused" else 0), HEAD, generator=generator).to(dtype)
    return wide[:, :, :heads].transpose(1, 2)


def _tables(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    angles = torch.arange(9)[:, None] / 100 ** torch.linspace(0, 1, HEAD // 2)
    angles = torch.cat((angles, angles), -1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "fused"])
@pytest.mark.parametrize("positions", [None, POSITIONS])
def test_parity_for_every_layout(dtype: torch.dtype, layout: str, positions: Tensor | None) -> None:
    """Values, gradients, output strides, and which inputs are rotated in their own memory, are upstream's.

    One product is rounded, then one multiply-add: the bits agree up to the multiply-add of fp32, half an eps.
    """
    Q, K = _heads(HEADS, dtype, layout, 1), _heads(KEY_HEADS, dtype, layout, 2)
    dQ, dK = _heads(HEADS, dtype, "contiguous", 3), _heads(KEY_HEADS, dtype, "transposed", 4)
    found, expected = _both("fast", Q, K, *_tables(dtype), dQ, dK, positions)
    for name in ("Q", "K", "dQ", "dK"):
        assert_parity(found[name], expected[name], noise=1)
    assert found["in_place"] == expected["in_place"] and found["strides"] == expected["strides"]
    assert torch.equal(found["given"][0], dQ) and torch.equal(found["given"][1], dK)


@pytest.mark.parametrize("positions", [None, POSITIONS])
@pytest.mark.parametrize(("dtype", "table_dtype"), [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)])
def test_parity_for_a_table_of_another_dtype(
    dtype: torch.dtype, table_dtype: torch.dtype, positions: Tensor | None
) -> None:
    """Without positions the heads take the table's dtype (fp32 for Gemma), with them the wider of both."""
    Q, K = _heads(HEADS, dtype, "transposed", 1), _heads(KEY_HEADS, dtype, "fused", 2)
    found, expected = _both("fast", Q, K, *_tables(table_dtype), torch.ones_like(Q), torch.ones_like(K), positions)
    for name in ("Q", "K", "dQ", "dK"):
        assert_parity(found[name], expected[name], noise=1)


def test_expanded_gradients_are_not_written() -> None:
    """``sum().backward()`` hands in one number for all elements."""
    Q, K = _heads(HEADS, torch.float32, "transposed", 1), _heads(KEY_HEADS, torch.float32, "transposed", 2)
    one = torch.ones(()).expand
    found, expected = _both("fast", Q, K, *_tables(torch.float32), one(Q.shape), one(K.shape))
    assert_parity(found["dQ"], expected["dQ"], noise=1)
    assert found["given"][0].eq(1).all()


@pytest.mark.parametrize("contiguous", [True, False])
def test_parity_of_the_function_for_one_tensor(contiguous: bool) -> None:
    """``Fast_RoPE_Embedding.apply``: a contiguous tensor is rotated in place, another one into new memory."""
    Q = _heads(HEADS, torch.bfloat16, "transposed" if contiguous else "fused", 1).transpose(1, 2)
    found, expected = _both("single", Q, *_tables(torch.bfloat16), torch.ones_like(Q))
    assert found["in_place"] == expected["in_place"] == contiguous
    assert_parity(found["Y"], expected["Y"], noise=1)
    assert_parity(found["dQ"], expected["dQ"], noise=1)


def test_the_plain_torch_entry_point_is_untouched() -> None:
    """``inplace_rope_embedding`` launches nothing: both processes run upstream's code, to the same bits."""
    Q, K = _heads(HEADS, torch.float32, "contiguous", 1), _heads(HEADS, torch.float32, "contiguous", 2)
    cos, sin = (table[:TOKENS][None, None] for table in _tables(torch.float32))
    found, expected = _both("slow", Q, K, cos, sin, None, torch.ones_like(Q))
    assert all(torch.equal(found[name], expected[name]) for name in ("Q", "K", "dQ"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_decode_step_rotates_in_place(dtype: torch.dtype) -> None:
    """``decode_rope_inplace`` answers True and leaves what upstream's kernel leaves on CUDA."""
    generator = torch.Generator().manual_seed(1)
    Q, K = (torch.randn(BATCH, 1, n, HEAD, generator=generator).to(dtype).transpose(1, 2) for n in (HEADS, KEY_HEADS))
    positions = torch.tensor([[8], [3]])
    found = PATCHED.call("rope_embedding:decode", Q, K, *_tables(dtype), positions)
    expected = INTERPRETED.call("rope_embedding:launch_decode", Q, K, *_tables(dtype), positions)
    assert found["answer"] is True
    for name in ("Q", "K"):
        assert_parity(found[name], expected[name], noise=1)


@pytest.mark.parametrize("case", ["two tokens", "no positions", "other dtype", "too few positions", "odd table"])
def test_a_decode_step_that_does_not_fit_is_left_to_upstream(case: str) -> None:
    """The answer is False and nothing is written."""
    tokens = 2 if case == "two tokens" else 1
    Q, K = torch.randn(BATCH, HEADS, tokens, HEAD), torch.randn(BATCH, HEADS, tokens, HEAD)
    cos, sin = _tables(torch.bfloat16 if case == "other dtype" else torch.float32)
    if case == "odd table":
        cos = cos[:, :-1]
    positions = None if case == "no positions" else torch.zeros(1 if case == "too few positions" else BATCH, 1)
    found = PATCHED.call("rope_embedding:decode", Q, K, cos, sin, positions)
    assert found["answer"] is False and torch.equal(found["Q"], Q) and torch.equal(found["K"], K)
