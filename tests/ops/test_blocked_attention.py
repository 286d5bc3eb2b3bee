"""Attention in blocks of rows against float64; parity with upstream's is in tests/changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from patcher.ops import blocked_attention as op
from patcher.ops.blocked_attention import Scores, blocked_attention
from tests.ops.attention import causal, tensors
from tests.parity import EPS, assert_accurate


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_output_and_gradients_are_those_of_float64(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grouped heads, softcap, a bias and a window, two rows to a block: one rounding, in fp32 sums of up to 26 terms.

    The backward starts from the output as it was rounded, which costs 16 bits a second one.
    """
    monkeypatch.setattr(op, "ELEMENTS", 2 * 4 * 13 * 2)
    q, k, v, grad = tensors(dtype, (2, 4, 13, 8), (2, 2, 13, 8), (2, 2, 13, 8), (2, 4, 13, 8))
    before = torch.arange(13)[:, None] - torch.arange(13)
    hidden, bias = (before < 0) | (before > 6), torch.linspace(-1, 1, 13 * 13).view(13, 13)
    leaves = [t.clone().requires_grad_() for t in (q, k, v)]
    out = blocked_attention(leaves[0], leaves[1], leaves[2], Scores(0.3, 2.0, bias.masked_fill(hidden, -torch.inf)))
    out.backward(grad)

    wide = [t.double().requires_grad_() for t in (q, k, v)]
    keys, values = (t.repeat_interleave(2, 1) for t in wide[1:])
    z = 2.0 * torch.tanh(wide[0] @ keys.transpose(-1, -2) * 0.3 / 2.0) + bias.double()
    exact = z.masked_fill(hidden, -torch.inf).softmax(-1) @ values
    exact.backward(grad.double())
    roundings = 64 if dtype == torch.float32 else 4
    assert out.dtype == dtype
    assert_accurate(out.detach().flatten(), exact.detach().flatten(), roundings=roundings)
    for leaf, reference in zip(leaves, wide, strict=True):
        assert leaf.grad is not None and reference.grad is not None and leaf.grad.dtype == dtype
        # A query that sees one key has no gradient: the terms that cancel are as large as those of other rows.
        assert_accurate(leaf.grad.flatten(), reference.grad.flatten(), roundings=roundings)


def test_blocks_of_rows_give_what_one_block_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """With three rows to a block, output and gradients stay within 8 eps of one block's (sums of 11 terms)."""
    given = tensors(torch.float32, (2, 4, 11, 8), (2, 2, 11, 8), (2, 2, 11, 8))
    scores = Scores(0.3, 5.0, causal(11, 11, torch.float32))

    def run() -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in given]
        out = blocked_attention(leaves[0], leaves[1], leaves[2], scores)
        out.square().sum().backward()
        return [out.detach(), *(t.grad for t in leaves if t.grad is not None)]

    whole = run()
    monkeypatch.setattr(op, "ELEMENTS", 2 * 4 * 11 * 3)
    for ours, expected in zip(run(), whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=8 * EPS[torch.float32], atol=8 * EPS[torch.float32])


def test_autocast_does_not_reach_the_sums() -> None:
    """Under bf16 autocast fp32 inputs are computed in fp32, bit for bit, forward and backward."""
    given = tensors(torch.float32, (1, 2, 5, 8), (1, 2, 5, 8), (1, 2, 5, 8))

    def run(enabled: bool) -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in given]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            out = blocked_attention(leaves[0], leaves[1], leaves[2], Scores(0.3))
            out.sum().backward()
        return [out.detach(), *(t.grad for t in leaves if t.grad is not None)]

    for inside, outside in zip(run(True), run(False), strict=True):
        assert torch.equal(inside, outside)
