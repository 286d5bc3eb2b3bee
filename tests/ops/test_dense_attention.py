"""Attention by its formula, against what is computed by blocks; second derivatives are in test_attention.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patcher.ops.attention import Pattern, attention
from patcher.ops.blocked_attention import Problem
from patcher.ops.dense_attention import dense_attention, dense_attention_gradients
from patcher.ops.visible_keys import Band
from tests.ops.attention import tensors

CASES: dict[str, tuple[Pattern, dict[str, Any]]] = {
    "plain": (Pattern(0.4), {}),
    "causal": (Pattern(0.4, causal=True), {}),
    "window": (Pattern(0.4, causal=True, window=(2, None)), {}),
    "soft cap": (Pattern(0.4, softcap=1.5), {}),
    "dropout": (Pattern(0.4, dropout_p=0.3, seed=7), {}),
    "mask": (Pattern(0.4), {"bias": torch.arange(9).view(1, 1, 9, 1) > torch.arange(9)}),
    "bias": (Pattern(0.4), {"bias": torch.linspace(-1, 1, 81).view(1, 1, 9, 9).double()}),
    "sinks": (Pattern(0.4, causal=True), {"sinks": torch.linspace(-1, 1, 4).double()}),
}


@pytest.mark.parametrize(("pattern", "more"), CASES.values(), ids=CASES.keys())
def test_it_is_what_is_computed_by_blocks(pattern: Pattern, more: dict[str, Any]) -> None:
    """Output and gradients in float64; the first query of the mask sees nothing, and gives zeros."""
    given = tensors(torch.float64, (2, 4, 9, 8), (2, 2, 9, 8), (2, 2, 9, 6))
    leaves = [x.clone().requires_grad_() for x in given]
    out = attention(*leaves, pattern, **more)
    grad = torch.linspace(-1, 1, out.numel()).view_as(out).double()
    expected = torch.autograd.grad(out, leaves, grad)
    problem = Problem(*leaves, pattern, Band(9, 9, *pattern.reach), more.get("bias"), more.get("sinks"))
    torch.testing.assert_close(dense_attention(problem), out, rtol=1e-12, atol=1e-12)
    found = dense_attention_gradients(problem, grad, (True, True, True, False, False))
    for ours, theirs in zip(found[:3], expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    assert found[3] is found[4] is None
