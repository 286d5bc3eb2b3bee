"""Attention with soft-capped scores, against upstream's own and against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from patcher.ops import blocked_attention as op
from patcher.ops.blocked_attention import Scores, blocked_attention
from tests.oracle import INTERPRETED, PATCHED

EPS = {torch.float32: 2**-23, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def _tensors(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*shape, generator=generator).to(dtype) for shape in shapes]


def _causal(queries: int, keys: int, dtype: torch.dtype) -> Tensor:
    hidden = torch.arange(keys) > torch.arange(queries)[:, None] + keys - queries
    return torch.zeros(queries, keys, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)


def _naive(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float, softcap: float | None, dO: Tensor
) -> list[Tensor]:
    """float64, with whole matrices and repeated heads; the output as [B, L, H D]."""
    leaves = [t.double().detach().requires_grad_() for t in (q, k, v)]
    groups = q.shape[1] // k.shape[1]
    K, V = (t.repeat_interleave(groups, 1) for t in leaves[1:])
    s = leaves[0] @ K.transpose(-1, -2) * scale
    s = s if softcap is None else softcap * torch.tanh(s / softcap)
    out = ((s + bias.double()).softmax(-1) @ V).transpose(1, 2).flatten(2)
    out.backward(dO.double())
    return [out.detach(), *(t.grad for t in leaves if t.grad is not None)]


def _distances(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    assert [t.shape for t in found] == [t.shape for t in exact]
    return [((a.double() - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("queries", "keys", "per_row"), [(13, 13, False), (5, 13, False), (13, 13, True)])
def test_softcapped_attention_is_as_exact_as_upstreams(
    dtype: torch.dtype, queries: int, keys: int, per_row: bool
) -> None:
    """Grouped heads, a cache (fewer queries than keys), a mask per row: no farther from float64 than upstream's.

    Both share one final rounding (half an eps); in fp32 other orders of the sums add up to 4 eps.
    """
    q, k, v, dO = _tensors(dtype, (2, 4, queries, 8), (2, 2, keys, 8), (2, 2, keys, 8), (2, queries, 32))
    mask = _causal(keys, keys, dtype)
    if per_row:
        mask = mask.expand(2, 1, keys, keys).clone()
        mask[1, 0, :, :3] = torch.finfo(dtype).min  # left padding; its rows see no key at all
    arguments = (q, k, v, mask, 24, 3.0, dO)
    found = PATCHED.call("attention:softcapped", *arguments)
    theirs = INTERPRETED.call("attention:softcapped", *arguments)
    scale = torch.tensor(24**-0.5, dtype=dtype).item()
    exact = _naive(q, k, v, mask[..., keys - queries :, :], scale, 3.0, dO)
    for ours, upstream in zip(_distances(found, exact), _distances(theirs, exact), strict=True):
        assert ours <= 1.1 * upstream + (4 * EPS[dtype] if dtype == torch.float32 else 0)


def test_blocks_of_rows_give_what_one_block_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """With three rows to a block, output and gradients stay within 8 eps of one block's (sums of 11 terms)."""
    tensors = _tensors(torch.float32, (2, 4, 11, 8), (2, 2, 11, 8), (2, 2, 11, 8))
    scores = Scores(0.3, 5.0, _causal(11, 11, torch.float32))

    def run() -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in tensors]
        out = blocked_attention(leaves[0], leaves[1], leaves[2], scores)
        out.square().sum().backward()
        return [out.detach(), *(t.grad for t in leaves if t.grad is not None)]

    whole = run()
    monkeypatch.setattr(op, "ELEMENTS", 2 * 4 * 11 * 3)
    for ours, expected in zip(run(), whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=8 * EPS[torch.float32], atol=8 * EPS[torch.float32])


def test_autocast_does_not_reach_the_sums() -> None:
    """Under bf16 autocast fp32 inputs are computed in fp32, bit for bit, forward and backward."""
    tensors = _tensors(torch.float32, (1, 2, 5, 8), (1, 2, 5, 8), (1, 2, 5, 8))

    def run(enabled: bool) -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in tensors]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            out = blocked_attention(leaves[0], leaves[1], leaves[2], Scores(0.3))
            out.sum().backward()
        return [out.detach(), *(t.grad for t in leaves if t.grad is not None)]

    for inside, outside in zip(run(True), run(False), strict=True):
        assert torch.equal(inside, outside)
