"""Blocks of queries: the same numbers however they are cut, and memory that grows with the length."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from patcher.ops import blocked_attention as op
from patcher.ops.attention import Pattern, attention
from tests.ops.attention import causal, tensors
from tests.ops.largest import Largest
from tests.parity import EPS

PATTERNS = [
    Pattern(0.3),
    Pattern(0.3, causal=True),
    Pattern(0.3, window=(3, 1), softcap=2.0),
    Pattern(0.3, causal=True, dropout_p=0.3, seed=5),
]


def _run(given: list[Tensor], pattern: Pattern, bias: Tensor | None) -> list[Tensor]:
    leaves = [t.clone().requires_grad_() for t in given]
    out = attention(*leaves[:3], pattern, bias=bias, sinks=leaves[3])
    return [out.detach(), *torch.autograd.grad(out.square().sum(), leaves)]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("elements", [1, 150, 1100])
def test_blocks_give_what_one_block_gives(pattern: Pattern, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One query or a few to a block, heads together or not: within 8 eps of one block (sums of 22 terms)."""
    given = tensors(torch.float32, (2, 4, 11, 8), (2, 2, 11, 8), (2, 2, 11, 8), (4,))
    bias = causal(11, 11, torch.float32)
    whole = _run(given, pattern, bias)
    monkeypatch.setattr(op, "ELEMENTS", elements)
    monkeypatch.setattr(op, "LAUNCHES", 0)
    for ours, expected in zip(_run(given, pattern, bias), whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=8 * EPS[torch.float32], atol=8 * EPS[torch.float32])


@pytest.mark.parametrize("pattern", [replace(pattern, dropout_p=0.0) for pattern in PATTERNS[:3]])
def test_no_block_is_larger_than_allowed(pattern: Pattern, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 300 x 300 scores for each head no more than allowed are there, or one query's."""
    monkeypatch.setattr(op, "ELEMENTS", 1 << 12)
    query, key, value = tensors(torch.float32, (1, 4, 300, 8), (1, 2, 300, 8), (1, 2, 300, 8))
    query.requires_grad_()
    with Largest() as largest:
        attention(query, key, value, pattern).sum().backward()
    assert largest.elements <= max(1 << 12, query.numel())


def test_what_no_query_sees_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a window, blocks of scores are as wide as the queries of a block and the window."""
    widths = []
    scores = op.Block.scores

    def noted(block: op.Block, q: Tensor, k: Tensor) -> Tensor:
        widths.append((block.rows.stop - block.rows.start, block.keys.stop - block.keys.start))
        return scores(block, q, k)

    monkeypatch.setattr(op.Block, "scores", noted)
    monkeypatch.setattr(op, "LAUNCHES", 300)
    query, key = tensors(torch.float32, (1, 1, 128, 8), (1, 1, 128, 8))
    attention(query, key, key, Pattern(0.3, causal=True, window=(10, None)))
    assert len(widths) == 8 and all(rows == 16 and keys <= 26 for rows, keys in widths)
